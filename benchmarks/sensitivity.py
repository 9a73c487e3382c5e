"""How long does the sensitivity of all 53 layers of MobileNetV2 take, and how much faster is that than other ways to the same?

Against itself, each variant run as a whole instead of from where it begins to differ: the numbers must be identical. And against
TensorFlow's own way, a `QuantizationDebugger` with the other layers on its deny list, of which a sample of layers is timed and
scaled: made anew for each variant, conversion included, as its guide does it; and one debugger, converted and calibrated once, that is
only told other deny lists. Promised on 2 cores: 45 s, and 1.5 times as fast as whole variants.

    python benchmarks/sensitivity.py --record      # five minutes
    python benchmarks/sensitivity.py --images 100 --rounds 1 --sample 1    # whether it works
"""

import os
import sys
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

from helpers.base import repository, runtime_env
from helpers.compress import quantize, sensitivity
from helpers.evidence import results
from helpers.networks import checkpoints, data, models
from helpers.tflite import inputs, litert, replay

with runtime_env.quiet():
    import tensorflow as tf

PROMISED = 45, 1.5  # seconds, times


def swept(file, calibration, x, y, kept_bytes):
    """Seconds of a sweep, and its table."""
    sensitivity.forget()
    started = time.monotonic()
    table = sensitivity.sweep(file, calibration, x, y, kept_bytes=kept_bytes)
    return time.monotonic() - started, table


def debugger(model, calibration, denied):
    """Converted from Keras and calibrated."""
    with runtime_env.quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        samples = inputs.representative(calibration, (None, *calibration.shape[1:]))
        converter.representative_dataset = samples
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=denied)
        return tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=samples, debug_options=options
        )


def made(of):
    """The file of a debugger."""
    with runtime_env.quiet():
        return of.get_nondebug_quantized_model()


def officially(model, calibration, x, names, sample):
    """Seconds a variant takes to be made and run over the images, for `sample` layers, each alone and left out: by a debugger of its
    own, and by one for all, whose making counts once for all variants of all layers."""
    started = time.monotonic()
    shared, seconds = debugger(model, calibration, []), {"anew": [], "reused": []}
    once = (time.monotonic() - started) / (2 * len(names) + 1)
    for number in range(2 * sample):
        place = number // 2 * (len(names) // sample)
        denied = [name for index, name in enumerate(names) if (index == place) == bool(number % 2)]
        started = time.monotonic()
        exact = litert.predict(made(debugger(model, calibration, denied)), x)
        seconds["anew"].append(time.monotonic() - started)
        started = time.monotonic()
        shared.options.denylisted_nodes = denied
        found = litert.predict(made(shared), x)
        seconds["reused"].append(time.monotonic() - started + once)
        np.testing.assert_array_equal(found, exact)
        print(f"TensorFlow's way, variant {number + 1} of {2 * sample}: {seconds['anew'][-1]:.1f} s anew, ", end="")
        print(f"{seconds['reused'][-1]:.2f} s by the debugger reused", flush=True)
    return {way: float(np.mean(each)) for way, each in seconds.items()}


@click.command()
@click.option("--images", default=1000, show_default=True, help="How many images judge each variant.")
@click.option("--rounds", default=3, show_default=True, help="How often the two ways of the sweep take turns.")
@click.option("--sample", default=3, show_default=True, help="How many layers TensorFlow's way is timed with.")
@click.option("--record", is_flag=True, help="Keep the numbers in the repository.")
def main(images, rounds, sample, record):
    """Time the sweep of MobileNetV2 0.35 at 96 px, whole variants, and TensorFlow's debugger."""
    photos, model = data.load("fashion8k"), checkpoints.load("mobilenetv2_fashion_96")
    x, y = models.network_input(photos.x_test[:images], 96).numpy(), photos.y_test[:images]
    calibration = models.network_input(photos.x_train[:100], 96).numpy()
    file, turns = quantize.convert(model), []
    for _ in range(rounds):
        (whole, exact), (ours, table) = (swept(file, calibration, x, y, kept) for kept in (0, replay.KEPT_BYTES))
        pd.testing.assert_frame_equal(table, exact, check_exact=True)
        turns.append((whole, ours))
        print(
            f"{len(table)} variants on {images:,} images: {whole:.1f} s as a whole, {ours:.1f} s as a sweep", flush=True
        )
    whole, ours = np.array(turns).T
    names = list(table[table["mode"] == sensitivity.ALONE].name)
    each = officially(model, calibration, x, names, sample)
    numbers = {
        "sweep.seconds": np.median(ours),
        "sweep.speedup_prefix": np.median(whole / ours),
        "sweep.speedup_official_anew": each["anew"] * len(table) / np.median(ours),
        "sweep.speedup_official_reused": each["reused"] * len(table) / np.median(ours),
    }
    for name, value in numbers.items():
        print(f"{name} {value:.1f}")
    if record:
        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
        settings = {"images": images, "rounds": rounds, "sample": sample, "variants": len(table)}
        print(f"Kept: {results.record('sweep', 'sensitivity', settings, numbers, photos, {'sweep': None})}")
    sys.exit(int(numbers["sweep.seconds"] > PROMISED[0] or numbers["sweep.speedup_prefix"] < PROMISED[1]))


if __name__ == "__main__":
    main()
