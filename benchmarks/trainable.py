"""Which files can be trained? 36 architectures of Keras, a file of PyTorch and files of products, as float `.tflite`s in
`tflite_graph` and `tflite_training`.

    python benchmarks/trainable.py               # all, a quarter of an hour on two cores; kept in results/trainable/
    python benchmarks/trainable.py ViT LSTM      # these only, nothing is kept

An architecture is a file of Keras 3 with random weights; the file of PyTorch is a checkpoint (`benchmarks/from_pytorch.py`).
Files of products are those in `production/` of the folder that `$COMPRESSION_LAB_DATA` names, if it is set. Columns:

    exact       the graph answers as LiteRT, to two ten-thousandths of the largest answer
    gradient    every kernel and every bias that leads to an output has a finite one
    simulation  the int8 file and its simulation differ by at least 3 dB less than the file and float32 do; or by one step of
                the output at most, which is a tie in rounding; or, in deep networks, where every rounding that falls otherwise
                is multiplied, by no more than XNNPACK and LiteRT's built-in kernels differ on the same file
    trains      with 4-bit kernels of one scale each, 20 steps by its own answers do not leave it worse on the samples, in dB

A cell is "right", "refused" (with a sentence), "wrong", "traceback" or "crash".
"""

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

COLUMNS = ("exact", "gradient", "simulation", "trains")
KERAS, PYTORCH, PRODUCT = "Keras 3", "PyTorch", "a product"  # what a file was made by or comes from
CLOSE, APART = 2e-4, 3  # share of the largest answer; dB
STEPS, RATE = 20, 1e-3
SAMPLES = 12


class Wrong(Exception):
    """What was to hold does not."""


class Trial:
    """A float file and samples for it, name of an input -> array."""

    def __init__(self, file, named):
        self.file, self.named = file, named
        self.graph = None

    def exact(self):
        import numpy as np

        from helpers import litert, tflite_graph

        self.graph = tflite_graph.Graph(self.file)
        self.named = {name: self.named[name] for name in self.graph.inputs}
        self.float32 = list(litert.run(self.graph.file, self.named).values())
        for wanted, found in zip(self.float32, self.graph(*self.named.values()), strict=True):
            apart, largest = np.abs(found - wanted).max(), np.abs(wanted).max()
            if not apart <= CLOSE * largest:
                raise Wrong(f"apart by {apart / largest:.1e} of the largest answer")

    def gradient(self):
        import numpy as np
        import tensorflow as tf

        unused = self.graph.check_trainable()
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(each**2) for each in self.graph.logits(*self.named.values())])
        weights = self.graph.weights
        for index, gradient in zip(weights, tape.gradient(loss, list(weights.values())), strict=True):
            name = self.graph.name_of(index)
            if name not in unused and (gradient is None or not np.isfinite(gradient).all()):
                raise Wrong(f"none reaches {name}")

    def simulation(self):
        import numpy as np

        from helpers import affine, litert, requantize, scales

        ranges = requantize.calibrate(self.graph.file, self.named)
        quantized = requantize.apply(self.graph.file, {"*": requantize.Format()}, ranges)
        rounded = list(litert.run(quantized, self.named).values())
        simulated = self.graph.rounding_as(quantized)(*self.named.values())
        steps = scales.of_outputs(quantized)["step"]  # NaN for an output in float32
        compared = zip(self.float32, rounded, simulated, steps, strict=True)
        for place, (exact, wanted, found, step) in enumerate(compared):
            close, rough = affine.sqnr(wanted, found.numpy()), affine.sqnr(exact, wanted)
            if close >= min(rough + APART, 60) or np.abs(found - wanted).max() <= 1.01 * step:
                continue
            other = list(litert.run(quantized, self.named, delegates=False).values())[place]
            kernels = affine.sqnr(wanted, other)
            if not close >= max(kernels, rough - APART):
                raise Wrong(
                    f"{close:.1f} dB from its file, which is {rough:.1f} dB from float32; its two kernels {kernels:.1f} dB apart"
                )

    def trains(self):
        from helpers import affine, litert, requantize, tflite_training

        aware = tflite_training.quantization_aware(
            self.graph.file, self.named, requantize.Format(4, 8, per_channel=False)
        )
        before = aware.quantized()
        samples = list(self.named.values())
        samples = samples[0] if len(samples) == 1 else samples
        tflite_training.train(aware, samples, steps=STEPS, learning_rate=RATE, selection=samples)
        worst = [
            min(map(affine.sqnr, self.float32, litert.run(file, self.named).values()))
            for file in (before, aware.quantized())
        ]
        if not worst[1] >= worst[0] - 1:
            raise Wrong(f"from {worst[0]:.1f} to {worst[1]:.1f} dB")


def of_architecture(name):
    """The float `.tflite` of an architecture of the zoo, and samples for it."""
    from benchmarks import zoo

    with tempfile.TemporaryDirectory() as folder:
        candidate = zoo.Candidate(name, "3", folder)
        candidate.load()
        named = dict(zip((end.name for end in candidate.own.inputs), candidate.in_order(), strict=True))
        return Trial(candidate.own.file, named)


def of_file(path):
    """The float `.tflite` that a file holds, and samples for it."""
    import numpy as np

    from helpers import own_model

    own, random = own_model.load(path), np.random.default_rng(0)
    shapes = {end.name: [SAMPLES, *(side or 64 for side in end.shape)] for end in own.inputs}
    return Trial(own.file, {name: random.uniform(0, 1, shape).astype("float32") for name, shape in shapes.items()})


def judged(name):
    """column -> (outcome, why). name: of an architecture, or the path of a `.tflite`."""
    from helpers.base.errors import LabError

    row, why = {}, ""
    try:
        trial = of_file(name) if str(name).endswith(".tflite") else of_architecture(name)
    except LabError as error:
        return dict.fromkeys(COLUMNS, ("refused", str(error)))
    for column in COLUMNS:
        try:
            if column != "exact" and trial.graph is None:
                row[column] = ("refused", why)
                continue
            getattr(trial, column)()
            row[column] = ("right", "")
        except LabError as error:
            why = str(error)
            row[column] = ("refused", why)
        except Wrong as error:
            row[column] = ("wrong", str(error))
        except Exception as error:  # whatever else
            row[column] = ("traceback", f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}")
    return row


def everything():
    """Name of an architecture or path of a file -> what it was made by."""
    from helpers.networks import checkpoints
    from tests import architectures

    found = dict.fromkeys(architectures.BUILDERS, KERAS) | {
        checkpoints.CHECKPOINTS / "pytorch_fashion_28.tflite": PYTORCH
    }
    if os.environ.get("COMPRESSION_LAB_DATA"):
        products = Path(os.environ["COMPRESSION_LAB_DATA"], "production").glob("*.tflite")
        found |= dict.fromkeys(sorted(products), PRODUCT)
    return dict(sorted(found.items(), key=lambda each: each[0] == "ConvNeXt"))  # it takes as long as all others


def labelled(name):
    """What a row is called."""
    return Path(name).stem if str(name).endswith(".tflite") else name


def rows_of(names):
    """(name, row of `judged`) of each. A process loads TensorFlow for many; what stops it stops nothing else."""
    pool = None
    for name in names:
        pool = pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            yield name, pool.submit(judged, name).result()
        except BrokenProcessPool:
            pool = None
            yield name, dict.fromkeys(COLUMNS, ("crash", ""))
    if pool:
        pool.shutdown()


def main():
    """Judge what is named, or all and keep it."""
    import pandas as pd

    from benchmarks import zoo
    from helpers.base import repository
    from helpers.evidence import results

    kept = repository.output_root() / f"trainable_{zoo.code(__file__)}.csv"  # by other code nothing goes on
    made_by, rows = everything(), []
    if kept.is_file() and not sys.argv[1:]:  # a killed run goes on
        rows = pd.read_csv(kept, keep_default_na=False).to_numpy().tolist()
    done = {row[0] for row in rows}
    for name, row in rows_of(sys.argv[1:] or [each for each in made_by if labelled(each) not in done]):
        label = labelled(name)
        print(f"{label:28}", *(f"{outcome:10}" for outcome, _ in row.values()), flush=True)
        row = {column: (outcome, why.replace(str(name), label)) for column, (outcome, why) in row.items()}
        for column, (outcome, why) in row.items():
            if outcome != "right":
                print(f"{'':30}{column}: {why[:200]}", flush=True)
        rows += [(label, made_by.get(name, ""), column, *cell) for column, cell in row.items()]
        frame = pd.DataFrame(rows, columns=["model", "made_by", "column", "outcome", "why"])
        if not sys.argv[1:]:
            repository.write(kept, frame.to_csv(index=False))
    counts = {
        f"trainable.{column}.{outcome}": len(part) for (column, outcome), part in frame.groupby(["column", "outcome"])
    }
    print(counts)
    if not sys.argv[1:]:
        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
        path = results.record(
            "trainable", "trainable", {"samples": SAMPLES, "models": frame["model"].nunique()}, counts
        )
        repository.write((repository.REPOSITORY / path).with_suffix(".csv"), frame.to_csv(index=False))
        kept.unlink()
        print(f"Kept: {path}")


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if __name__ == "__main__":
    main()
