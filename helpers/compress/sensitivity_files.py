"""The sensitive layers of a file of the user's, and why it loses what it loses. Of a `.tflite` it needs no TensorFlow."""

from helpers.compress import own_data, own_model, requantize, sensitivity
from helpers.tflite import causes, inputs


def of_file(path, calibration, judged, form, cache, progress=iter, every=False, purpose=None, **opened):
    """`sensitivity.sweep` for a model that `own_model.load(path, **opened)` takes, and arrays in `.npz` files as
    `inputs.judged` reads them; of the calibration file the samples alone.

    Returns (the Model, the table, whose attrs also hold `causes`: what of the file that is quantized throughout explains a loss, in
    sentences). Raises InputError for files that cannot be used.
    """
    (x, *_), (images, labels, _) = inputs.judged(calibration, "calibration"), inputs.judged(judged, "test")
    own = own_model.load(path, **opened)  # which takes longer than to refuse a file that is not there
    samples = own_data.fitted(x, own, f"calibration={str(calibration)!r}")
    images = own_data.fitted(images, own, f"test={str(judged)!r}")
    form = form or requantize.Format()
    ranges = requantize.calibrate(own.file, samples) if form.activations else None
    table = sensitivity.sweep(
        own.file,
        samples,
        images,
        labels,
        form,
        cache,
        progress,
        known=own.layers,
        every=every,
        purpose=purpose,
        ranges=ranges,
    )
    whole = requantize.apply(own.file, {requantize.EVERYTHING: form}, ranges)
    table.attrs["causes"] = tuple(str(cause) for cause in causes.find(whole, own.file, samples))
    return own, table
