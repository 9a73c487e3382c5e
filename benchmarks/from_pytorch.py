"""A file that Keras never saw: `checkpoints/pytorch_fashion_28.tflite`, a small classifier trained and converted by PyTorch.

    python -m venv torch && torch/bin/pip install torch litert-torch     # packages that the lock does not have
    torch/bin/python benchmarks/from_pytorch.py                          # two minutes on one core

It takes images as PyTorch does, (n, 1, 28, 28), in -1..1, one at a time. Trained on the 4,000 training images of `fashion8k` by
a recipe that was not tuned, and judged once on its test images; the card beside the file says how well.
"""

import json
import sys
from importlib import metadata
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch import nn

NAME, SEED, EPOCHS, BATCH, RATE = "pytorch_fashion_28", 0, 20, 64, 3e-3
PACKAGES = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")
ROOT = Path(__file__).resolve().parent.parent


class Residual(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018) with squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, inside, width, stride, activation):
        super().__init__()
        wide = 3 * inside
        widen = nn.Conv2d(inside, wide, 1, bias=False)
        space = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        squeeze = nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 8, 1)
        self.widen = nn.Sequential(widen, nn.BatchNorm2d(wide), activation())
        self.space = nn.Sequential(space, nn.BatchNorm2d(wide), activation())
        self.weigh = nn.Sequential(*squeeze, nn.SiLU(), nn.Conv2d(8, wide, 1), nn.Sigmoid())
        self.narrow = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))
        self.skips = inside == width and stride == 1

    def forward(self, x):
        y = self.space(self.widen(x))
        y = self.narrow(y * self.weigh(y))
        return x + y if self.skips else y


def network():
    """About 18,000 weights: (n, 1, 28, 28) -> logits (n, 10)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU(), nn.MaxPool2d(2)),
        *(Residual(16, 16, 1, nn.SiLU), Residual(16, 24, 2, nn.ReLU6), Residual(24, 24, 1, nn.Hardswish)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(24, 10)),
    )


def main(folder):
    """Train, convert, judge; write the file and its card into a folder."""
    torch.manual_seed(SEED)
    with np.load(ROOT / "data" / "fashion8k.npz") as arrays:
        images = {name: arrays[name].reshape(-1, 1, 28, 28) / np.float32(127.5) - 1 for name in ("x_train", "x_test")}
        labels = {name: arrays[name].astype("int64") for name in ("y_train", "y_test")}
    x, y = torch.from_numpy(images["x_train"]), torch.from_numpy(labels["y_train"])
    model, steps = network(), EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(x), (BATCH,))
        part = x[chosen].flip(3) if torch.rand(()) < 0.5 else x[chosen]
        loss = nn.functional.cross_entropy(model(part), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    file = Path(folder) / f"{NAME}.tflite"
    litert_torch.convert(model, (torch.zeros(1, 1, 28, 28),)).export(str(file))
    with torch.no_grad():
        right = model(torch.from_numpy(images["x_test"])).argmax(1).numpy() == labels["y_test"]
    card = {
        "model": "Inverted residual network of PyTorch with squeeze-and-excitation, 28 px, 10 classes, logits",
        "data": {"name": "fashion8k", "trained_on": len(x)},
        "recipe": {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "seed": SEED},
        "command": "python benchmarks/from_pytorch.py",
        "top1_test": {"value": float(right.mean()), "images": len(right)},
        "licence": "Trained from scratch; MIT, as this repository",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{file}: {file.stat().st_size:,} bytes, top-1 {right.mean():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:] or [ROOT / "checkpoints"])
