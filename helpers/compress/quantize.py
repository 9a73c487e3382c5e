"""Keras model -> `.tflite`, by every conversion recipe of the lab.

The official `TFLiteConverter.from_keras_model` spends nine tenths of its time on writing a SavedModel. Here the
model is frozen to one concrete function first; the file computes the same outputs, bit for bit (a test compares).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.networks import models
from helpers.tflite import flatbuffer, inputs

with runtime_env.quiet():
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


LARGEST = (
    256  # of an 8-bit operator's scales, input times kernel over output; XNNPACK refuses others, or ends the process
)


@dataclass(frozen=True)
class Recipe:
    """One way to convert: its name, what is in the file (words), what it sets in a `tf.lite.TFLiteConverter`, and whether
    it takes the ranges of activations from a calibration set."""

    name: str
    meaning: str
    configure: Callable[[tf.lite.TFLiteConverter], None]
    calibrated: bool = False


RECIPES = {}


def recipe(name, meaning, calibrated=False):
    """Decorates what sets a converter's options, which makes it the recipe of that name."""

    def known(configure):
        RECIPES[name] = Recipe(name, meaning, configure, calibrated)
        return configure

    return known


@recipe("float32", "as trained")
def _as_trained(converter):
    pass


@recipe("float16", "weights float16, computed in float32")
def _half(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


@recipe("int8", "weights and activations int8; input and output stay float32", calibrated=True)
@recipe("dynamic", "weights int8, activations quantized on the fly (dynamic range)")  # decorators apply upwards
def _optimized(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


@recipe("full_int8", "int8 throughout, input and output included", calibrated=True)
def _integers_only(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


@recipe("int16x8", "weights int8, activations int16", calibrated=True)
def _wide_activations(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]


@recipe("qat", "int8 with the ranges that quantization-aware training left; input and output stay float32")
def _as_it_was_trained(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _samples(function, calibration):
    """What the converter asks for the ranges of activations."""
    if isinstance(calibration, dict):
        shapes = {each.name.split(":")[0]: each.shape for each in function.inputs}
        return inputs.representative_by_name(calibration, shapes)
    source = function.inputs[0]
    return inputs.representative(calibration, source.shape, source.dtype.name)


def freeze(model):
    """A Keras model -> a concrete function with its weights as constants, batch size left open.

    `convert` does this by itself; who converts one model many times freezes it once, which saves half of the time.
    Raises InputError for pruning wrappers that were not stripped, or weights that are not finite.
    """
    wrapped = [layer.name for layer in model.layers if type(layer).__name__ == "PruneLowMagnitude"]
    if wrapped:
        raise InputError(
            f"layer {wrapped[0]} is still wrapped for pruning: call strip_pruning(model) before converting."
        )
    for variable in model.weights:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            raise InputError(f"weights of {variable.name} hold NaN or infinity: train or load the model again.")
    return convert_variables_to_constants_v2(models.inference(model))


def convert(model, recipe="float32", calibration=None, sparse=False, per_channel=True):
    """Convert a Keras model, or what `freeze` made of it, to the bytes of a `.tflite`.

    recipe: a key of RECIPES. calibration: float32 (samples, ...), the representative set from which the integer recipes take
    the ranges of activations; for a model of several inputs name -> array. sparse: store weights with many zeros in TFLite's
    sparse encoding, for float32 only: LiteRT 2.3 refuses to load most integer files with it, and runs some with wrong
    results. per_channel: a scale for each output channel of a kernel, or one for all; the ranges that training left decide
    for "qat".
    Raises InputError for an unknown recipe, missing calibration samples, and what `freeze` refuses; StructureError for an integer
    recipe of a loop over steps, as recurrent layers have it that are not unrolled, and for a layer that answers 0 to all calibration
    samples, if LiteRT could not load its file.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe={recipe!r} is unknown: choose one of {', '.join(RECIPES)}.")
    if sparse and recipe != "float32":
        raise InputError(
            f"sparse=True goes with recipe='float32' only, not {recipe!r}: compress that file with gzip instead."
        )
    function = freeze(model) if isinstance(model, tf.keras.Model) else model
    if RECIPES[recipe].calibrated and any(each.type == "TensorListReserve" for each in function.graph.get_operations()):
        raise StructureError(
            f"recipe={recipe!r} is not to be had of a loop over steps, which would end the process that calibrates it: make recurrent "
            "layers with a fixed number of steps and unroll=True, or choose float16 or dynamic."
        )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    RECIPES[recipe].configure(converter)
    if RECIPES[recipe].calibrated:
        converter.representative_dataset = _samples(function, calibration)
    if sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    # A private switch of the converter, without a public one; tests look into the files.
    converter._experimental_disable_per_channel = not per_channel
    with runtime_env.quiet():
        file = converter.convert()
    if RECIPES[recipe].calibrated:
        _check_scales(file)
    return file


def _check_scales(file):
    with flatbuffer.unpacked(file) as parsed:
        graph = parsed.subgraphs[0]
        for operator in graph.operators:
            if flatbuffer.operator_name(parsed, operator) not in flatbuffer.WEIGHT_OPERATORS:
                continue
            ends = [graph.tensors[index] for index in (*operator.inputs[:2], operator.outputs[0])]
            if any(each.type != schema.TensorType.INT8 for each in ends):
                continue
            source, kernel, made = (np.max(each.quantization.scale) for each in ends)
            if source * kernel >= LARGEST * made:
                raise StructureError(
                    f"{ends[-1].name.decode()} is 0 for all calibration samples, or nearly, and of so small a scale LiteRT could not load the "
                    "file: quantize the float32 file, which gives it another (convert --recipe float32 first, then --recipe int8 of "
                    "that), or calibrate with samples that it answers to, if there are any."
                )
