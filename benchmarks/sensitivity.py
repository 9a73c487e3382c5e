"""How long does the sensitivity of all 53 layers of MobileNetV2 take, and how much faster is that than the official way?

The official way for the same variants: a `QuantizationDebugger` conversion of the Keras model for each, with the other
layers on its deny list. A sample of layers is timed and scaled. Promised on 2 cores: 45 s, and 20 times faster.

    python benchmarks/sensitivity.py
"""

import time

from helpers.base import runtime_env
from helpers.compress import quantize, sensitivity
from helpers.networks import checkpoints, data, models
from helpers.tflite import inputs, litert

with runtime_env.quiet():
    import tensorflow as tf

IMAGES = 1000
SAMPLE = 3  # layers, each alone and left out


def officially(model, calibration, x, names):
    """Seconds for a sample of variants by `from_keras_model`, `QuantizationDebugger` and a run over the images."""
    started = time.monotonic()
    for number in range(2 * SAMPLE):
        place = number // 2 * (len(names) // SAMPLE)
        denied = [name for index, name in enumerate(names) if (index == place) == bool(number % 2)]
        with runtime_env.quiet():
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            samples = inputs.representative(calibration, (None, *calibration.shape[1:]))
            converter.representative_dataset = samples
            options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=denied)
            debugger = tf.lite.experimental.QuantizationDebugger(
                converter=converter, debug_dataset=samples, debug_options=options
            )
            file = debugger.get_nondebug_quantized_model()
        litert.predict(file, x)
        print(f"official way, variant {number + 1} of {2 * SAMPLE}: {time.monotonic() - started:.0f} s", flush=True)
    return (time.monotonic() - started) / (2 * SAMPLE)


def main():
    images, model = data.load("fashion8k"), checkpoints.load("mobilenetv2_fashion_96")
    x, y = models.network_input(images.x_test[:IMAGES], 96).numpy(), images.y_test[:IMAGES]
    calibration = models.network_input(images.x_train[:100], 96).numpy()
    started = time.monotonic()
    file = quantize.convert(model)
    table = sensitivity.sweep(file, calibration, x, y)
    ours = time.monotonic() - started
    print(f"{len(table)} variants, made and judged on {IMAGES:,} images: {ours:.1f} s")
    each = officially(model, calibration, x, list(table[table["mode"] == sensitivity.ALONE].name))
    print(f"the official way takes {each:.1f} s a variant: {each * len(table) / ours:.0f} times as long")


if __name__ == "__main__":
    main()
