"""Quantize a float `.tflite` instead of a Keras model: operator by operator, per-tensor or per-channel, to 8, 4 or 2 bits.

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
from helpers.tflite import activations, flatbuffer, inputs, inside, litert, rewrite

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from litert_quantizer import Quantizer
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.calibrator import Calibrator
    from litert_quantizer.qtyping import QuantGranularity, TFLOperationName
    from litert_quantizer.recipe_manager import RecipeManager

EVERYTHING, DEPTHWISE = "*", "DEPTHWISE_CONV_2D"
OSCAR, HADAMARD = "oscar", "hadamard"  # what `dynamic` can do against outliers
MIN_MAX, GPTQ = "min_max", "gptq"
# How scales and integers of weights are chosen: a word of ours -> litert-quantizer's.
ALGORITHMS = {
    MIN_MAX: AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    "mse": AlgorithmName.MSE,
    "octav": AlgorithmName.OCTAV,
    GPTQ: AlgorithmName.GPTQ,
    HADAMARD: AlgorithmName.DECOMPOSED_HADAMARD_ROTATION,
    OSCAR: AlgorithmName.OSCAR,
}
# The fewest bits of which a kind of operator has kernels that answer right: a convolution of 2 bits runs, and answers nonsense.
FEWEST_BITS = {"CONV_2D": 4, DEPTHWISE: 8}
# Of the range of what is capped at 6: built-in kernels of 16 bits refuse a file in which 6 is more than 2**31 steps away.
LEAST = 1e-4
DYNAMIC = "dynamic"  # of a Format's activations


@dataclass(frozen=True)
class Format:
    """How an operator is quantized. weights: bits, 8, 4 or 2. activations: bits, 8 or 16; DYNAMIC for 8 bits with a scale for each
    row, found as the file runs, between float32 tensors; or None to compute in float32 from weights that are unpacked first.
    per_channel: a scale for each output channel, or one for the whole kernel. block: a scale for each block of 32 or 64 weights
    that one output adds up, as dense layers in dynamic range have it at 4 bits; None for none. algorithm: a key of ALGORITHMS,
    best asked of those kinds of operators, by name, that it is for. Not all of these go together; `exists` says which."""

    weights: int = 8
    activations: int | str | None = 8
    per_channel: bool = True
    block: int | None = None
    algorithm: str = MIN_MAX

    def __post_init__(self):
        if self.weights not in (2, 4, 8):
            raise InputError(f"weights={self.weights} must be 2, 4 or 8 bits.")
        if self.activations not in (8, 16, DYNAMIC, None):
            raise InputError(f"activations={self.activations} must be 8 or 16 bits, {DYNAMIC!r}, or None for float32.")
        if self.block not in (None, 32, 64):
            raise InputError(f"block={self.block} must be 32 or 64 weights, or None.")
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"algorithm={self.algorithm!r} must be one of {', '.join(ALGORITHMS)}.")


@dataclass(frozen=True)
class Scheme:
    """How a float file is quantized but for some layers. form: of all others. ranges: what `calibrate` returned, needed
    where activations are quantized. instead: the format of the spared layers, such as Format(8, 16) for activations of 16
    bits; None for float32."""

    form: Format = Format()
    ranges: dict | None = None
    instead: Format | None = None


def available(form, op):
    """The format of an operator where `form` is asked of everything: depthwise kernels have 8 bits where it says fewer, those of
    other convolutions 4 (FEWEST_BITS), by min-max."""
    least = FEWEST_BITS.get(op, 0)
    return form if form.weights >= least else replace(form, weights=least, algorithm=MIN_MAX, block=None)


def exists(form, op):
    """Whether litert-quantizer has a format for an operator, such as "CONV_2D". What it has may still fail for a model."""
    try:
        _ask(RecipeManager(), ".*", TFLOperationName(op), form)
    except ValueError:
        return False
    return True


def calibrate(model, calibration):
    """The range of every tensor of a float `.tflite` over a calibration set: name -> min, max.

    calibration: (samples, ...), float32 where the model takes that; for a model of several inputs name -> such an array.
    The smallest and the largest value over all samples, as in the converter's PTQ. Of a tensor that is 0 for all of them nothing
    is known: it gets 0 to 1. What a fused ReLU6 leaves reaches LEAST. What a minimum with a constant alone reads reaches as far as what
    it makes, so that integers can pass with one scale. Samples are shown in parts, so that
    memory does not grow with their number, and one at a time to a file that is made for one.
    Raises StructureError for a model with a loop or a branch, InputError for an array where the model has several inputs, and as
    `litert.interpreter` and `inputs.representative` do for a file or a set that cannot be used.
    """
    model = rewrite.with_signature(model)
    branches = sorted({"WHILE", "IF"}.intersection(litert.operators(model).op))
    if branches:
        raise StructureError(
            f"part of the model's graph is a loop or a branch ({', '.join(branches)}), of whose inside no ranges are seen: make "
            "recurrent layers with a fixed number of steps and unroll=True, or quantize weights alone (convert --recipe dynamic of "
            "the Keras model)."
        )
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
    for name in flatbuffer.without_scale(litert.content(model)):  # LiteRT would end the whole process
        raise InputError(
            f"constant {name} holds infinity or the largest numbers there are, for which integers have no scale: write a mask with a "
            "number that the scores stay above, such as -30, instead of -inf."
        )
    recipes, ranges = RecipeManager(), {}
    recipes.load_quantization_recipe(_quantizer(model, {EVERYTHING: Format()}).get_quantization_recipe())
    # Asked for every operator of every part, and always the same.
    recipes.get_quantization_configs = functools.cache(recipes.get_quantization_configs)
    size = litert.at_once(model, {name: np.asarray(each) for name, each in calibration.items()})
    with _silence():
        watching = Calibrator(
            litert.content(model), runtime_env.LITERT_THREADS
        )  # which reads the file once for all parts
        # Each part by itself: otherwise litert-quantizer takes a moving average over the parts.
        for start in range(0, number, size):
            part = {
                name: np.asarray(calibration[name][start : start + size], end["dtype"]) for name, end in ends.items()
            }
            watching.reset_model_qsvs()
            watching.calibrate({signature: [part]}, recipes)
            for tensor, seen in watching.get_model_qsvs().items():
                ranges[tensor] = _widened(ranges.get(tensor), seen)
    capped = _capped(model)
    for tensor, seen in ranges.items():
        # With steps as small as those of 0 to 0 the bias of the layer behind it would not fit into 32 bits.
        zero = bool(seen) and not np.any([seen["min"], seen["max"]])
        if zero or (seen and tensor in capped):
            ranges[tensor] = _widened(seen, {"min": np.float32(0), "max": np.float32(1 if zero else LEAST)})
    for source, made in activations.minimums(model):
        if ranges.get(source) and ranges.get(made):  # what lies above the largest cap is cut off anyway
            shared = {"min": np.minimum(ranges[source]["min"], ranges[made]["min"]), "max": ranges[made]["max"]}
            ranges[source] = ranges[made] = shared
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


def known_to(algorithm, model, calibration):
    """What an algorithm goes by besides the weights: name of a tensor -> the powers of its channels for OSCAR ("mu2", (channels,)),
    the mean products of every two of them for GPTQ ("hessian", twice that, float32 (channels, channels)); nothing for others.

    calibration: samples as `calibrate` takes them. litert-quantizer's own gathers nothing for OSCAR where activations have no
    ranges. Raises as `inside.channel_powers`.
    """
    if algorithm == OSCAR:
        return {name: {"mu2": power} for name, power in inside.channel_powers(model, calibration).items()}
    if algorithm == GPTQ:
        products = inside.channel_products(model, calibration)
        return {name: {"hessian": (2 * product).astype(np.float32)} for name, product in products.items()}
    return {}


def apply(model, formats, ranges=None):
    """A float `.tflite` -> the bytes of a quantized one; input and output stay float32 (an output is given as integers with their
    scale where its operator is named).

    formats: operator as in `litert.operators` (such as "DEPTHWISE_CONV_2D"), name of one operator's output tensor, or "*"
    for all that can be quantized (see `available`) -> Format, or None for float; later entries win over earlier ones.
    ranges: what `calibrate` returned, needed where a format has activations; and, by the same names, what is `known_to` an
    algorithm. Another operator that has no kernel for the format of "*" stays float: name it to be told. HADAMARD takes a
    file that is made for one sample.
    Raises InputError for an unusable file; ValueError for one that is quantized already, for an operator that does
    not exist, or for a format that it does not have, such as depthwise kernels of 4 bits.
    """
    model = rewrite.with_signature(model)
    sizes, signatures = _open_sizes(model)
    runner = _quantizer(rewrite.with_sizes(model, sizes) if sizes else model, formats)
    if runner.need_calibration and not ranges:
        raise InputError("ranges is empty: formats with activations need the result of calibrate(model, samples).")
    # litert-quantizer changes what GPTQ knows as it goes by it.
    ranges = {name: {key: np.copy(of) for key, of in seen.items()} for name, seen in (ranges or {}).items()}
    with _silence():
        made = rewrite.with_outputs_of(bytes(runner.quantize(ranges or None).quantized_model), model)
        made = activations.with_whole_minimums(made)
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
    formats = {EVERYTHING: Format(weights, DYNAMIC)}
    if against is not None:
        formats["FULLY_CONNECTED"] = Format(weights, DYNAMIC, algorithm=against)
    made = apply(model, formats, known_to(against, model, calibration))
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
        try:
            _ask(runner, where, kind, form)
            if kind == EVERYTHING:  # which litert-quantizer does not check; dense layers have whatever others have
                _ask(RecipeManager(), where, TFLOperationName.FULLY_CONNECTED, form)
        except ValueError as error:
            if form.block:
                raise InputError(
                    f"block={form.block} has kernels for weights=4 and activations={DYNAMIC!r} alone: say both, or leave it out."
                ) from error
            raise InputError(f"formats asks {form} of {operator}, which has no such kernel: try 8 bits.") from error
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        runner.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    return runner


def _ask(recipe, where, kind, form):
    """Add a format to a recipe. Raises InputError where litert-quantizer has none such for this kind of operator."""
    name = f"BLOCKWISE_{form.block}" if form.block else "CHANNELWISE" if form.per_channel else "TENSORWISE"
    how = QuantGranularity(name), ALGORITHMS[form.algorithm]
    if form.activations is None:
        recipe.add_weight_only_config(where, kind, form.weights, *how)
    elif form.activations == DYNAMIC:
        recipe.add_dynamic_config(where, kind, form.weights, *how)
    else:
        recipe.add_static_config(where, kind, form.activations, form.weights, *how)


def _in_full(formats):
    """(operator, Format) one by one, with what "*" means for convolutions said after it."""
    for operator, form in formats.items():
        yield operator, form
        if operator == EVERYTHING and form is not None:
            yield from ((op, available(form, op)) for op in FEWEST_BITS if available(form, op) != form)


@contextlib.contextmanager
def _silence():
    """litert-quantizer prints a summary and a progress bar for every file, and warns of its own ways."""
    with (
        runtime_env.quiet(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield
