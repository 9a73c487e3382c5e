"""How long do all PTQ variants of notebook 04 take, converted and judged on 1,000 images? Promised: at most 60 s on 2 cores.

python benchmarks/ptq_variants.py
"""

import time

from helpers.compress import equalization, quantize, requantize
from helpers.networks import checkpoints, data, models
from helpers.tflite import measure

IMAGES = 1000


def main():
    """Make the variants by the converter anew and by the lab, and print what each way takes."""
    images, model = data.load("fashion8k"), checkpoints.load("mobilenetv2_fashion_96")
    x, y = models.network_input(images.x_test[:IMAGES], 96).numpy(), images.y_test[:IMAGES]
    calibration = models.network_input(images.x_train[:100], 96).numpy()
    started = time.monotonic()
    frozen = quantize.freeze(model)
    files = {"float32": quantize.convert(frozen)}
    for scheme, per_channel in (("per-channel", True), ("per-tensor", False)):
        files[f"int8 {scheme}"] = quantize.convert(frozen, "int8", calibration, per_channel=per_channel)
        files[f"dynamic {scheme}"] = quantize.convert(frozen, "dynamic", per_channel=per_channel)
    ranges = requantize.calibrate(files["float32"], calibration)
    for only, depthwise in (("depthwise", True), ("pointwise", False)):
        formats = {"*": requantize.Format(per_channel=not depthwise)}
        formats["DEPTHWISE_CONV_2D"] = requantize.Format(per_channel=depthwise)
        files[f"only {only} per-channel"] = requantize.apply(files["float32"], formats, ranges)
    folded = equalization.fold_batch_norms(model)
    cleared = equalization.clear_dead(folded)
    equalized = equalization.equalize(cleared)
    for name, cure in (
        ("biases corrected", equalization.correct_bias(folded, calibration)),
        ("cleared", cleared),
        ("cleared, equalized", equalized),
        ("all three", equalization.correct_bias(equalized, calibration)),
    ):
        files[f"per-tensor, {name}"] = quantize.convert(cure, "int8", calibration, per_channel=False)
    files["4-bit weights"] = requantize.apply(
        files["float32"],
        {"*": requantize.Format(4, None)},
    )
    for name, file in files.items():
        print(f"{name:30} top-1 {measure.correct(file, x, y).mean():.3f}")
    print(f"{len(files)} variants, made and judged on {IMAGES:,} images: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
