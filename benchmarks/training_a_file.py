"""A file trained as a `.tflite` beside tfmot's way: the same network, images, batches, steps and rate, five seeds each.

    python benchmarks/training_a_file.py       # a quarter of an hour on two cores; kept in results/training_a_file/
    python benchmarks/training_a_file.py 1     # one seed, nothing is kept

Routes: tfmot (quantization-aware Keras model with calibrated ranges and a range for every channel, labels), tflite (the graph of
the file, the same labels), tflite_label_free (the file's own answers). Wanted: tflite at most half a point below tfmot, three
times as fast from the float model to the file, file and simulation agreeing on 99.5% of the answers. What was measured stands in
RESULTS.md: they agree; it is faster, though not by so much, since tfmot's way starts from this lab's calibration as well.
Numbers, by bits 8 and 4: `top1.<route>_<bits>`, `delta_top1.…` against float32, `gain.tflite_over_tfmot_<bits>`,
`agreement.…` of file and simulation, `agreement.kernels_<bits>` of XNNPACK and the built-in kernels on the files of tflite (no
simulation can agree with both of them on more), `seconds.<route>_<bits>.build`, `.step`, `.convert`.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

STEPS, RATES = {8: 25, 4: 100}, {8: 1e-5, 4: 3e-4}
IMAGES, BATCH, CALIBRATION, AT_ONCE = 2000, 32, 100, 100
SEEDS = 5


class Watch:
    """Seconds of some parts of a route."""

    def __init__(self):
        self.seconds, self.since = {}, time.monotonic()

    def lap(self, part, times=1):
        now = time.monotonic()
        self.seconds[part], self.since = (now - self.since) / times, now


def batches(x, y, steps, seed):
    """As `tflite_training.train` draws them."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = random.choice(len(x), BATCH, replace=False)
        yield x[chosen], y[chosen]


def by_tfmot(model, calibration, x, y, bits, seed):
    """The trained file, what answers as it was trained (samples -> logits), and the seconds that it took."""
    from helpers import models, qat, quantize, requantize, training

    watch = Watch()
    aware = qat.start_calibrated(qat.quantization_aware(model, bits), model, calibration)
    models.compile_classifier(qat.hold_batch_statistics(aware))
    watch.lap("build")
    training.fine_tune(aware, batches(x, y, STEPS[bits], seed), STEPS[bits], RATES[bits])
    watch.lap("step", STEPS[bits])
    if bits == 8:
        file = quantize.convert(aware, "qat")
    else:
        plain = quantize.convert(quantize.freeze(qat.without_fake_quantization(aware, model)))
        formats = {"*": requantize.Format(weights=bits)}
        file = requantize.apply(plain, formats, requantize.calibrate(plain, calibration))
    watch.lap("convert")
    return file, lambda part: aware(part, training=False), watch.seconds


def by_file(model, calibration, x, y, bits, seed):
    """The same by the graph of the file; y None for its own answers."""
    from helpers import quantize, requantize, tflite_training

    watch = Watch()
    float_file = quantize.convert(quantize.freeze(model))
    aware = tflite_training.quantization_aware(float_file, calibration, requantize.Format(weights=bits))
    watch.lap("build")
    tflite_training.train(aware, x, y, STEPS[bits], RATES[bits], BATCH, seed)
    watch.lap("step", STEPS[bits])
    file = aware.quantized()
    watch.lap("convert")
    return file, lambda part: aware.forward(part)[0], watch.seconds


def by_builtin_kernels(file, x):
    """The classes that a file answers without XNNPACK."""
    from helpers import litert

    [answers] = litert.run(file, {"x": x}, batch=BATCH, delegates=False).values()
    return answers.argmax(1)


def main(seeds):
    """Run all routes for so many seeds; the numbers."""
    from helpers import checkpoints, data, litert, models, quantize, stats

    images, model = data.load("fashion8k"), checkpoints.load("mobilenetv2_fashion_96")
    size = model.input_shape[1]
    x, y = models.network_input(images.x_train[:IMAGES], size).numpy(), images.y_train[:IMAGES]
    x_test, y_test = models.network_input(images.x_test, size).numpy(), images.y_test
    baseline = litert.predict(quantize.convert(quantize.freeze(model)), x_test).argmax(1) == y_test
    routes = {"tfmot": (by_tfmot, y), "tflite": (by_file, y), "tflite_label_free": (by_file, None)}
    numbers = {"top1.float32": stats.proportion(baseline)}
    for bits in STEPS:
        right, kernels = {}, []
        for name, (route, labels) in routes.items():
            found, agreed, seconds = [], [], []
            for seed in range(seeds):
                file, simulated, took = route(model, x[:CALIBRATION], x, labels, bits, seed)
                answers = litert.predict(file, x_test).argmax(1)
                parts = [simulated(x_test[i : i + AT_ONCE]) for i in range(0, len(x_test), AT_ONCE)]
                found.append(answers == y_test)
                agreed.append(answers == np.concatenate(parts).argmax(1))
                seconds.append(took)
                if name == "tflite":
                    kernels.append(answers == by_builtin_kernels(file, x_test))
                print(f"{name} at {bits} bits, seed {seed}: {found[-1].mean():.3f}, {took}", flush=True)
            right[name] = np.array(found)
            numbers[f"top1.{name}_{bits}"] = stats.proportion(right[name])
            numbers[f"delta_top1.{name}_{bits}"] = stats.paired_difference(
                np.broadcast_to(baseline, right[name].shape), right[name]
            )
            numbers[f"agreement.{name}_{bits}"] = stats.proportion(np.array(agreed))
            for part in ("build", "step", "convert"):
                numbers[f"seconds.{name}_{bits}.{part}"] = float(np.median([each[part] for each in seconds]))
        numbers[f"agreement.kernels_{bits}"] = stats.proportion(np.array(kernels))
        for name in ("tflite", "tflite_label_free"):
            numbers[f"gain.{name}_over_tfmot_{bits}"] = stats.paired_difference(right["tfmot"], right[name])
    for name, number in numbers.items():
        print(f"{name:44} {number}")
    return numbers


if __name__ == "__main__":
    given = int(sys.argv[1]) if sys.argv[1:] else SEEDS
    found = main(given)
    if not sys.argv[1:]:
        import os

        from helpers.base import repository
        from helpers.evidence import results

        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
        settings = {"steps": STEPS[4], "images": IMAGES, "seeds": given}
        print(f"Kept: {results.record('training', 'training_a_file', settings, found)}")
