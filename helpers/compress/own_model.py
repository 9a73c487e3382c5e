"""A user's own model: loaded, checked, looked into. What cannot be used is refused in one sentence.

A Keras model may hold code of its author (Lambda layers, SavedModel functions): load only files that you trust.
"""

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import quantize
from helpers.networks import flatten, models, opening
from helpers.tflite import flatbuffer, inputs, interpreting, litert, rewrite

with runtime_env.quiet():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

NO_KERAS = (
    "Pruning of channels, equalization and training need the layers of a Keras model, and this is {}: for them give the .keras or "
    ".h5 file that it was made from."
)
NO_GRAPH = (
    "A .tflite cannot be converted anew: for float16, dynamic range and the pruning of channels give the .keras or .h5 file that "
    "it was made from."
)
SINGLE = "It is converted for one sample at a time, since the converter takes no batches of it."
_OPERATOR = re.compile(r"'(tf\.\w+)' op")
SMALL = ("int4", "int8", "uint8", "int16", "float16")  # weights that were quantized already


@dataclass(frozen=True)
class End:
    """An input or output of a model. shape: of one sample; None for a size that is left open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self):
        return f"{self.dtype} (n, {', '.join('?' if side is None else str(side) for side in self.shape)})"


@dataclass(frozen=True)
class Model:
    """A network of a user's, whatever file it came from.

    name: of the file. kind: what the file is, in words. file: bytes of the float32 `.tflite`. graph: what
    `quantize.convert` takes, or None for a `.tflite`. keras: the flat Keras 2 model of the same function, whose channels
    can be pruned, or None. inputs, outputs: its ends. notes: sentences on what is not as it was in the file, or cannot be
    done with it. layers: names of its layers that have kernels, where it has layers. original: the Keras model as its file
    has it, of either Keras, or None.
    """

    name: str
    kind: str
    file: bytes
    graph: object
    keras: object
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    notes: tuple[str, ...]
    layers: tuple[str, ...] = ()
    original: object = None

    @property
    def skipped(self):
        """The notes as one text."""
        return " ".join(self.notes)

    @property
    def changes(self):
        """The notes on what is not as it was in the file, without those on what cannot be done with it."""
        return [note for note in self.notes if note not in (NO_GRAPH, NO_KERAS.format(self.kind))]

    @property
    def ends(self):
        """What it takes and gives, in words."""
        takes, gives = (", ".join(f"{end.name} {end}" for end in ends) for ends in (self.inputs, self.outputs))
        return f"takes {takes}, gives {gives}"

    def is_classifier(self):
        """Whether it has one output, with an answer for each of two classes or more."""
        shapes = [end.shape for end in self.outputs]
        return len(shapes) == 1 and len(shapes[0]) == 1 and (shapes[0][0] or 0) >= 2


def load(path, code=None, signature=None):
    """A `.keras`, `.h5` or `.tflite` file, or the folder of a SavedModel, of any inputs and outputs, as a Model.

    code: a Python file with the classes of layers that only its author has. signature: which one of a SavedModel or a `.tflite` of
    several; by default the only one, or a SavedModel's "serving_default".
    Raises InputError for a missing or damaged file, an unknown suffix, layers whose code is not given, weights that are not
    finite, a file that is quantized already, and what the converter refuses.
    """
    path = Path(path)
    label = f"model={str(path)!r}"
    if not path.exists():
        raise InputError(f"{label} does not exist: give a .keras, .h5 or .tflite file, or the folder of a SavedModel.")
    if path.suffix == ".tflite" and path.is_file():
        return _tflite(label, path, signature)
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise InputError(f"{label} is a folder without a saved_model.pb: give a SavedModel, or a file.")
        kind, model, graph = _saved_model(label, path, signature)
    elif path.suffix in opening.KERAS_FILES:
        if signature is not None:
            raise InputError(f"{label} is a Keras file, which has no signatures: leave signature={signature!r} out.")
        model, graph = opening.keras_file(path, code), None
        kind = f"a model of Keras {2 if isinstance(model, tf.keras.Model) else 3}"
    else:
        raise InputError(
            f"{label} ends in {path.suffix or 'no suffix'}: give a .keras, .h5 or .tflite file, or the folder of a SavedModel."
        )
    _refuse_text(label, (getattr(model, "inputs", None) or ()) if model is not None else graph.inputs)
    keras, notes = None, []
    if model is not None:
        try:
            keras, notes = flatten.flat(model)
        except StructureError as problem:
            notes = [f"Pruning of channels, equalization and training are left out: {problem}"]
    graph, blob, more = _converted(label, graph, keras, model)
    if model is None:
        notes = [NO_KERAS.format(kind)]
    # A kernel has two axes or more; what scales or shifts has one.
    owners = (
        layer for layer in flatten.layers_of(keras or model) if any(len(weight.shape) > 1 for weight in layer.weights)
    )
    # The converter folds a normalization into the kernel before it and calls the operator by both.
    layers = tuple(layer.name for layer in owners if not type(layer).__name__.endswith("Normalization"))
    return Model(path.stem, kind, blob, graph, keras, *_ends(blob), (*notes, *more), layers, model)


def profile(file, x=None, known=()):
    """Where the weights and multiply-accumulates of a `.tflite` are, for one sample: `litert.weight_layers` with macs and
    the shares weights_share and macs_share. x: samples, (n, ...), or name of an input -> such an array, whose sizes count where
    the file leaves them open. known: as in `litert.weight_layers`."""
    if x is None:
        loaded = litert.interpreter(file, delegates=False)
    else:  # a delegate hides the shapes inside it
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        loaded = interpreting.load(
            litert.content(file), 1, samples=inputs.by_name(x), experimental_op_resolver_type=plain
        )
    tensors = {tensor["index"]: tensor for tensor in loaded.get_tensor_details()}
    places = {}
    for operator in loaded._get_ops_details():  # private, but nothing else tells what an operator reads
        made = operator["outputs"][0]
        # A transposed convolution works at each place of its input, all others at each of their output.
        at = operator["inputs"][2] if operator["op_name"] == "TRANSPOSE_CONV" else made
        places[tensors[made]["name"]] = math.prod(tensors[at]["shape"][1:-1].tolist())
    table = litert.weight_layers(file, known)
    table["macs"] = table["weights"] * table["name"].map(places)
    return table.assign(**{f"{key}_share": table[key] / table[key].sum() for key in ("weights", "macs")})


def _tflite(label, path, signature):
    blob, notes = rewrite.with_plain_weights(rewrite.one_signature(inputs.tflite(path), signature, label))
    custom = flatbuffer.custom_operators(blob)
    if custom:
        raise InputError(
            f"{label} needs the custom operator {custom[0]}, which is code of its author's: nothing here can run it."
        )
    blob = rewrite.with_signature(blob)
    ends = _ends(blob)
    table = litert.tensors(blob).query("constant")
    small = litert.weight_layers(blob).query("dtype in @SMALL", local_dict={"SMALL": SMALL})
    if len(small) or (table["scales"] > 0).any():
        dtype = small["dtype"].iloc[0] if len(small) else table[table["scales"] > 0]["dtype"].iloc[0]
        raise InputError(f"{label} has {dtype} weights already: give the float32 model that it was made from.")
    _check_finite(label, blob)
    try:
        _able_to_run(blob)
    except StructureError as problem:
        raise InputError(
            f"{label}: {problem}. Convert the model again, for one sample if it was for any number."
        ) from problem
    return Model(path.stem, "a .tflite file", blob, None, None, *ends, (*notes, NO_GRAPH))


def _check_finite(label, blob):
    for name in flatbuffer.not_finite(blob):
        raise InputError(f"{label}: weights of {name} hold NaN or infinity: convert the model again.")


def _ends(blob):
    """Inputs and outputs as a float32 file declares them, in the order and by the names of its signature."""
    loaded = litert.interpreter(blob)
    found = []
    for details, names in (
        (loaded.get_input_details(), flatbuffer.signature_names(blob, "inputs")),
        (loaded.get_output_details(), flatbuffer.signature_names(blob, "outputs")),
    ):
        found.append(
            tuple(
                End(
                    names.get(each["index"], each["name"]),
                    tuple(None if side < 0 else int(side) for side in each["shape_signature"][1:]),
                    np.dtype(each["dtype"]).name,
                )
                for each in details
            )
        )
    return found


def _saved_model(label, path, signature):
    """kind, Keras model or None, and frozen graph or None (where there is a Keras model)."""
    with runtime_env.quiet():
        try:
            model = tf.keras.models.load_model(path, compile=False)
        except Exception:  # of Keras 3, or no Keras model at all
            model = None
        if isinstance(model, tf.keras.Model) and model.inputs and signature is None:
            opening.check_finite(model.weights, label)
            return "a SavedModel of Keras 2", model, None
        try:
            loaded = tf.saved_model.load(path)  # kept while its function is frozen: the variables are its own
        except Exception as error:  # a damaged protocol buffer, missing variables, ...
            raise InputError(
                f"{label} cannot be loaded as a SavedModel ({opening.first_line(error)}): save it again."
            ) from error
        function = _signature(label, loaded, signature)
        opening.check_finite(function.variables, label)
        try:
            return "a SavedModel without a Keras model", None, _frozen(function)
        except ValueError as error:  # what changes a variable while it answers has no place in a graph of constants
            raise InputError(
                f"{label} cannot be frozen ({opening.first_line(error)}): something in it goes on changing its state, most "
                "likely random augmentation or dropout that was exported for training. Give the .keras file instead, or "
                "export the model without these layers."
            ) from error


def _signature(label, loaded, name):
    """The concrete function of a SavedModel to be used."""
    known = dict(loaded.signatures)
    if name is not None and name not in known:
        raise InputError(f"{label}: it has no signature {name}: choose one of {', '.join(known) or 'none'}.")
    if name is None and "serving_default" in known:
        name = "serving_default"
    if name is None and len(known) == 1:
        [name] = known
    if name is not None:
        return known[name]
    if known:
        raise InputError(f"{label}: {interpreting.several(list(known))}.")
    try:
        functions = loaded.__call__.concrete_functions
    except AttributeError:
        functions = []
    for function in functions:
        if all(isinstance(each, tf.TensorSpec) for each in tf.nest.flatten(function.structured_input_signature)):
            return function
    raise InputError(
        f"{label} has no signature: save it with tf.saved_model.save(model, folder, signatures=function), where function = "
        "tf.function(model).get_concrete_function(tf.TensorSpec(shape, dtype))."
    )


def _frozen(function, batch=None):
    """A concrete function with its weights as constants, for a fixed batch if one is given."""
    if batch is not None:
        args, kwargs = tf.nest.map_structure(
            lambda spec: tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, spec.name),
            function.structured_input_signature,
        )
        called = function
        function = tf.function(lambda *x, **named: called(*x, **named)).get_concrete_function(*args, **kwargs)
    return convert_variables_to_constants_v2(function)


def _converted(label, graph, keras, model):
    """Frozen graph, float32 `.tflite` and notes. What the converter cannot do with an open batch it is asked again for single
    samples: recurrent layers need it. Of a copy whose file LiteRT cannot run (the masked means of Keras 2's group normalization)
    the original is tried first."""
    if graph is None:
        source = keras if keras is not None else model
        if not getattr(source, "inputs", None):
            raise InputError(
                f"{label} declares no inputs (it is subclassed, or was never built): save it as a SavedModel, with "
                "model.export(folder) in Keras 3 or tf.saved_model.save(model, folder) after it was called once."
            )
        function = models.inference(source)
        graph = quantize.freeze(source) if isinstance(source, tf.keras.Model) else _frozen(function)
    else:
        function = graph
    try:
        return graph, _able_to_run(rewrite.with_signature(quantize.convert(graph))), []
    except StructureError as error:
        first = error
        tries = [(models.inference(model), None)] if keras is not None and not isinstance(model, tf.keras.Model) else []
    except InputError:
        raise
    except Exception as error:  # the converter's own, of many classes
        first, tries = error, []
    for each, batch in (*tries, (function, 1)):
        with contextlib.suppress(Exception):
            frozen = _frozen(each, batch)
            return frozen, _able_to_run(rewrite.with_signature(quantize.convert(frozen))), [SINGLE] if batch else []
    raise InputError(f"{label} cannot be converted to .tflite ({_operators_at_fault(first)}).") from first


def _able_to_run(blob):
    """A `.tflite`. Raises StructureError where LiteRT fails at one sample of zeros; not tried where sizes are open, since not
    every size need fit."""
    loaded = litert.interpreter(blob)
    ends = loaded.get_input_details()
    if all((each["shape_signature"][1:] > 0).all() for each in ends):
        for each in ends:
            loaded.set_tensor(each["index"], np.zeros(each["shape"], each["dtype"]))
        try:
            loaded.invoke()
        except RuntimeError as error:
            raise StructureError(f"LiteRT cannot run it: {opening.first_line(error)}") from error
    return blob


def _operators_at_fault(error):
    """What stopped the converter, in words instead of its listing of the graph."""
    text = str(error)
    if "TensorList" in text:
        return (
            "its recurrent layers run over an open number of steps: build the model with a fixed one, as in Input((steps, "
            "features)) instead of Input((None, features))"
        )
    named = sorted(set(_OPERATOR.findall(text)))
    if named:
        return f"there is no kernel for {', '.join(named[:4])}"
    return opening.first_line(error)


def _refuse_text(label, ends):
    """Raises InputError for inputs of text, by their dtypes."""
    if any("string" in str(getattr(end.dtype, "name", end.dtype)) for end in ends):
        raise InputError(
            f"{label} takes text, of which a .tflite knows nothing: save the part behind TextVectorization (or another layer "
            "that makes numbers of words) as a model of its own."
        )
