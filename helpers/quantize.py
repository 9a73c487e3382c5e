"""Keras model -> `.tflite`, by every conversion recipe of the lab.

The official `TFLiteConverter.from_keras_model` spends nine tenths of its time on writing a SavedModel. Here the
model is frozen to one concrete function first; the file computes the same outputs, bit for bit (a test compares).
"""

import numpy as np

from helpers import runtime_env

with runtime_env.quiet():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

RECIPES = {
    "float32": "as trained",
    "float16": "weights float16, computed in float32",
    "dynamic": "weights int8, activations quantized on the fly (dynamic range)",
    "int8": "weights and activations int8; input and output stay float32",
    "full_int8": "int8 throughout, input and output included",
    "int16x8": "weights int8, activations int16",
}
CALIBRATED = ("int8", "full_int8", "int16x8")


class ConversionError(ValueError):
    """The model or the request cannot be converted."""


def freeze(model):
    """A Keras model with one input -> a concrete function with its weights as constants, batch size left open."""
    shape, dtype = (None, *model.input_shape[1:]), model.inputs[0].dtype
    function = tf.function(lambda x: model(x, training=False))
    signature = tf.TensorSpec(shape, dtype, name="input")
    return convert_variables_to_constants_v2(function.get_concrete_function(signature))


def convert(model, recipe="float32", calibration=None, sparse=False):
    """Convert a Keras model to the bytes of a `.tflite`.

    recipe: a key of RECIPES. calibration: float32 (samples, ...), the representative set from which the integer
    recipes take the ranges of activations. sparse: store weights with many zeros in TFLite's sparse encoding, for
    float32 only: LiteRT 2.3 refuses to load most integer files with it, and runs some with wrong results.
    Raises ConversionError for an unknown recipe, missing calibration samples, pruning wrappers that were not
    stripped, or weights that are not finite.
    """
    if recipe not in RECIPES:
        raise ConversionError(f"recipe={recipe!r} is unknown: choose one of {', '.join(RECIPES)}.")
    if sparse and recipe != "float32":
        raise ConversionError(f"sparse=True goes with recipe='float32' only, not {recipe!r}: compress that file with gzip instead.")
    wrapped = [layer.name for layer in model.layers if type(layer).__name__ == "PruneLowMagnitude"]
    if wrapped:
        raise ConversionError(f"layer {wrapped[0]} is still wrapped for pruning: call strip_pruning(model) before converting.")
    for variable in model.weights:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            raise ConversionError(f"weights of {variable.name} hold NaN or infinity: train or load the model again.")
    function = freeze(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    if recipe != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if sparse:
        converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if recipe == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if recipe in CALIBRATED:
        converter.representative_dataset = representative(calibration, function.inputs[0].shape)
    if recipe == "full_int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if recipe == "int16x8":
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    with runtime_env.quiet():
        return converter.convert()


def representative(calibration, input_shape):
    """The generator that the converter wants of a calibration set: one sample at a time, batch dimension kept.

    calibration: float (samples, ...) that fits input_shape (None, ...). Raises ConversionError otherwise.
    """
    shape = tuple(input_shape)[1:]
    if calibration is None or np.size(calibration) == 0:
        raise ConversionError(
            f"calibration is empty: integer recipes need at least 1 sample of shape {shape}; 100 is usual."
        )
    samples = np.asarray(calibration, "float32")
    if samples.shape[1:] != shape:
        raise ConversionError(
            f"calibration has shape {samples.shape}: this model takes (samples, {', '.join(map(str, shape))})."
        )
    if not np.isfinite(samples).all():  # the converter would leave the model in float32 without a word
        raise ConversionError("calibration holds NaN or infinity: clean the samples first.")
    return lambda: ([sample[None]] for sample in samples)
