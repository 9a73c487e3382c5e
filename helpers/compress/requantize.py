"""Quantize a float `.tflite` instead of a Keras model: operator by operator, per-tensor or per-channel, to 8 or 4 bits.

Thin over litert-quantizer. No Keras model and no conversion are needed, so that a variant takes a tenth of a second;
calibrate once, quantize many times.
"""

import contextlib
import functools
import io
import re
from dataclasses import dataclass, replace

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.tflite import flatbuffer, inputs, inside, litert, rewrite

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from litert_quantizer import Quantizer
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import QuantGranularity, TFLOperationName

EVERYTHING, DEPTHWISE = "*", "DEPTHWISE_CONV_2D"
OSCAR, HADAMARD = "oscar", "hadamard"  # what `dynamic` can do against outliers
# Of the range of what is capped at 6: built-in kernels of 16 bits refuse a file in which 6 is more than 2**31 steps away.
LEAST = 1e-4
DYNAMIC = "dynamic"  # of a Format's activations


@dataclass(frozen=True)
class Format:
    """How an operator is quantized. weights: bits, 8 or 4. activations: bits, 8 or 16; DYNAMIC for 8 bits with a scale for each
    row, found as the file runs, between float32 tensors; or None to compute in float32 from weights that are unpacked first.
    per_channel: a scale for each output channel, or one for the whole kernel."""

    weights: int = 8
    activations: int | str | None = 8
    per_channel: bool = True

    def __post_init__(self):
        if self.weights not in (4, 8):
            raise InputError(f"weights={self.weights} must be 4 or 8 bits.")
        if self.activations not in (8, 16, DYNAMIC, None):
            raise InputError(f"activations={self.activations} must be 8 or 16 bits, {DYNAMIC!r}, or None for float32.")


@dataclass(frozen=True)
class Scheme:
    """How a float file is quantized but for some layers. form: of all others. ranges: what `calibrate` returned, needed
    where activations are quantized. instead: the format of the spared layers, such as Format(8, 16) for activations of 16
    bits; None for float32."""

    form: Format = Format()
    ranges: dict | None = None
    instead: Format | None = None


def available(form, op):
    """The format of an operator where `form` is asked of everything: depthwise kernels have 8 bits where it says 4."""
    return replace(form, weights=8) if op == DEPTHWISE else form


def calibrate(model, calibration):
    """The range of every tensor of a float `.tflite` over a calibration set: name -> min, max.

    calibration: (samples, ...), float32 where the model takes that; for a model of several inputs name -> such an array.
    The smallest and the largest value over all samples, as in the converter's PTQ. Of a tensor that is 0 for all of them nothing
    is known: it gets 0 to 1. What a fused ReLU6 leaves reaches LEAST. Samples are shown in parts, so that
    memory does not grow with their number, and one at a time to a file that is made for one.
    Raises what `litert.interpreter` raises for an unusable file and `inputs.representative` for an unusable set.
    """
    model = rewrite.with_signature(model)
    loaded = litert.interpreter(model)
    signature = next(iter(loaded.get_signature_list()))
    ends = loaded.get_signature_runner(signature).get_input_details()
    if not isinstance(calibration, dict):
        if len(ends) > 1:
            raise InputError(f"calibration must be a mapping with an array for each of {', '.join(ends)}.")
        [(name, end)] = ends.items()
        if end["dtype"] == np.float32:
            inputs.representative(calibration, _declared_shape(end))
        calibration = {name: calibration}
    inputs.representative_by_name(calibration, {name: _declared_shape(end) for name, end in ends.items()})
    number = len(next(iter(calibration.values())))
    if any(None in _declared_shape(end)[1:] for end in ends.values()):
        model = rewrite.with_sizes(
            model, {end["name"]: (1, *calibration[name].shape[1:]) for name, end in ends.items()}
        )
    runner, ranges = _quantizer(model, {EVERYTHING: Format()}), {}
    size = litert.at_once(model, number)
    with _silence():
        # One call a part: within a call, litert-quantizer would take a moving average over the parts.
        for start in range(0, number, size):
            part = {
                name: np.asarray(calibration[name][start : start + size], end["dtype"]) for name, end in ends.items()
            }
            found = runner.calibrate({signature: [part]}, num_threads=runtime_env.LITERT_THREADS)
            for tensor, seen in found.items():
                ranges[tensor] = _widened(ranges.get(tensor), seen)
    capped = _capped(model)
    for tensor, seen in ranges.items():
        # With steps as small as those of 0 to 0 the bias of the layer behind it would not fit into 32 bits.
        zero = bool(seen) and not np.any([seen["min"], seen["max"]])
        if zero or (seen and tensor in capped):
            ranges[tensor] = _widened(seen, {"min": np.float32(0), "max": np.float32(1 if zero else LEAST)})
    return ranges


def _capped(model):
    """The names of tensors that an operator caps at 6 (or 1) as it writes them."""
    caps = (schema.ActivationFunctionType.RELU6, schema.ActivationFunctionType.RELU_N1_TO_1)
    with flatbuffer.unpacked(litert.content(model)) as parsed:
        graph = parsed.subgraphs[0]
        return {
            graph.tensors[operator.outputs[0]].name.decode()
            for operator in graph.operators
            if getattr(operator.builtinOptions, "fusedActivationFunction", None) in caps
        }


def _declared_shape(end):
    """The shape of an input, None for a size that is left open."""
    return [None if side < 0 else int(side) for side in end["shape_signature"]]


def _widened(known, seen):
    """The range that holds two; either may be missing (of a tensor that holds no numbers)."""
    if not known or not seen:
        return known or seen
    return {"min": np.minimum(known["min"], seen["min"]), "max": np.maximum(known["max"], seen["max"])}


def apply(model, formats, ranges=None):
    """A float `.tflite` -> the bytes of a quantized one; input and output stay float32.

    formats: operator as in `litert.operators` (such as "DEPTHWISE_CONV_2D"), name of one operator's output tensor, or "*"
    for all that can be quantized (see `available`) -> Format, or None for float; later entries win over earlier ones.
    ranges: what `calibrate` returned; needed where a format has activations. Another operator that has no kernel for the
    format of "*" stays float: name it to be told.
    Raises InputError for an unusable file; ValueError for one that is quantized already, for an operator that does
    not exist, or for a format that it does not have, such as depthwise kernels of 4 bits.
    """
    model = rewrite.with_signature(model)
    sizes, signatures = _open_sizes(model)
    runner = _quantizer(rewrite.with_sizes(model, sizes) if sizes else model, formats)
    if runner.need_calibration and not ranges:
        raise InputError("ranges is empty: formats with activations need the result of calibrate(model, samples).")
    with _silence():
        made = bytes(runner.quantize(ranges).quantized_model)
    return rewrite.with_sizes(made, sizes, signatures) if sizes else made


def dynamic(model, weights=8, against=None, calibration=None):
    """A float `.tflite` -> the bytes of one in dynamic range: weights as integers of 8 or 4 bits, with a scale for each output
    channel (depthwise kernels always of 8), and activations rounded to 8 bits as they come, with a scale for each row.

    against: what to do in dense layers against channels larger than the others. OSCAR multiplies what they read by a factor for
    each channel, and the weights by its inverse, as suits the powers of the channels in the calibration set ((samples, ...), or
    name of an input -> such an array), and clips the weights. HADAMARD rotates both, which needs no samples, but a file made for
    one sample at a time.
    Raises InputError for an unusable or a quantized file, and for OSCAR without samples; StructureError where what was asked for
    leaves no trace in the file, which litert-quantizer does not tell.
    """
    if weights not in (4, 8):
        raise InputError(f"weights={weights!r} must be 4 or 8 bits.")
    if against not in (None, OSCAR, HADAMARD):
        raise InputError(f"against={against!r} must be {OSCAR!r}, {HADAMARD!r} or None.")
    if against == OSCAR and calibration is None:
        raise InputError("calibration is empty: against='oscar' needs samples to tell which channels are large.")
    model = rewrite.with_signature(model)
    if against == HADAMARD and _is_open(model):
        raise InputError(
            "against='hadamard' writes the shapes of tensors into the file, and this one leaves the number of samples open: "
            "convert the model for one sample, or take against='oscar'."
        )
    runner = _quantizer(model, {})
    runner.add_dynamic_config(".*", TFLOperationName.ALL_SUPPORTED, weights)
    runner.add_dynamic_config(".*", TFLOperationName(DEPTHWISE), available(Format(weights), DEPTHWISE).weights)
    powers = None
    if against is not None:
        algorithm = AlgorithmName.OSCAR if against == OSCAR else AlgorithmName.DECOMPOSED_HADAMARD_ROTATION
        runner.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, weights, algorithm_key=algorithm)
    if against == OSCAR:
        # Its own `calibrate` gathers nothing where activations have no ranges.
        powers = {name: {"mu2": power} for name, power in inside.channel_powers(model, calibration).items()}
    with _silence():
        made = bytes(runner.quantize(powers).quantized_model)
    trace = {None: lambda file: 0, OSCAR: _factors, HADAMARD: _rotations}[against]
    if against is not None and trace(made) <= trace(model):
        raise StructureError(
            f"against={against!r} changed nothing: it is for dense layers, and finds none here that it can take; leave it out."
        )
    return made


def _factors(blob):
    """How many operators multiply by constants that are not all the same."""
    with flatbuffer.unpacked(blob) as parsed:
        graph = parsed.subgraphs[0]
        constants = [
            flatbuffer.stored(parsed.buffers[graph.tensors[operator.inputs[1]].buffer], blob)
            for operator in graph.operators
            if flatbuffer.operator_name(parsed, operator) == "MUL"
        ]
        return sum(len(each) > 4 and np.ptp(each.view("float32")) > 0 for each in constants)


def _rotations(blob):
    """How many dense layers there are, those included that rotate."""
    return int((litert.operators(blob).op == "FULLY_CONNECTED").sum())


def _is_open(blob):
    """Whether a file leaves sizes of its inputs open, the number of samples included."""
    return any((end["shape_signature"] < 0).any() for end in litert.interpreter(blob).get_input_details())


@functools.lru_cache(maxsize=2)
def _open_sizes(blob):
    """Of a file that leaves sizes of samples open: name of an input's tensor -> a shape that can be run, and -> what it leaves
    open. litert-quantizer runs the file, which at the size of 1 that such a file declares is not always possible."""
    ends = litert.interpreter(blob).get_input_details()
    if not any((end["shape_signature"][1:] < 0).any() for end in ends):
        return {}, {}
    return {end["name"]: tuple(end["shape"].tolist()) for end in ends}, {
        end["name"]: tuple(end["shape_signature"].tolist()) for end in ends
    }


@functools.lru_cache(maxsize=2)
def _tensor_names(blob):
    """The names of a float model's tensors; many variants are made of the same one, and reading it takes a while."""
    if len(litert.kernels_in(blob)):
        raise InputError("model is quantized already: give the float32 .tflite that it was made from.")
    return frozenset(litert.tensors(blob)["name"])


@functools.lru_cache(maxsize=2)
def _reader(blob):
    """litert-quantizer with a float model in it, which takes half as long to read as to quantize."""
    with runtime_env.quiet():
        return Quantizer(blob)


def _quantizer(model, formats):
    blob = litert.content(model)
    tensors, runner = _tensor_names(blob), _reader(blob)
    runner.load_quantization_recipe([])  # it may hold that of the last variant
    for operator, form in _in_full(formats):
        where, kind = ".*", operator
        if operator not in set(TFLOperationName):
            if operator not in tensors:
                raise InputError(f"formats names {operator!r}: there is no such operator or output tensor.")
            where, kind = f"^{re.escape(operator)}(;|$)", "*"
        kind = TFLOperationName(kind)
        if form is None:
            runner.update_quantization_recipe(where, kind, algorithm_key="no_quantize")
            continue
        granularity = QuantGranularity.CHANNELWISE if form.per_channel else QuantGranularity.TENSORWISE
        try:
            if form.activations is None:
                runner.add_weight_only_config(where, kind, form.weights, granularity)
            elif form.activations == DYNAMIC:
                runner.add_dynamic_config(where, kind, form.weights, granularity)
            else:
                runner.add_static_config(where, kind, form.activations, form.weights, granularity)
        except ValueError as error:
            raise InputError(f"formats asks {form} of {operator}, which has no such kernel: try 8 bits.") from error
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        runner.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    return runner


def _in_full(formats):
    """(operator, Format) one by one, with what "*" means for depthwise kernels said after it."""
    for operator, form in formats.items():
        yield operator, form
        if operator == EVERYTHING and form is not None and form.weights == 4:
            yield DEPTHWISE, available(form, DEPTHWISE)


@contextlib.contextmanager
def _silence():
    """litert-quantizer prints a summary and a progress bar for every file, and warns of its own ways."""
    with (
        runtime_env.quiet(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield
