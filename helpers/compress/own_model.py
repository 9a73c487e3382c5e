"""A user's own model: loaded, checked, looked into. What cannot be used is refused in one sentence.

A Keras model may hold code of its author (Lambda layers, SavedModel functions): load only files that you trust.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base import extras
from helpers.base.errors import InputError, StructureError, first_line
from helpers.tflite import flatbuffer, inputs, interpreting, litert, rewrite

KERAS_FILES = (".keras", ".h5", ".hdf5")
NO_GRAPH = (
    "A .tflite cannot be converted anew: for float16, dynamic range and the pruning of channels give the .keras or .h5 file that "
    "it was made from."
)
NO_KERAS = (
    "Pruning of channels, equalization and training need the layers of a Keras model, and this is {}: for them give the .keras or "
    ".h5 file that it was made from."
)
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
    has it, of either Keras, or None. heads: names of the graph's outputs in its order, or none: what
    `rewrite.with_output_names` takes.
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
    heads: tuple[str, ...] = ()

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
    elif path.suffix not in KERAS_FILES:
        raise InputError(
            f"{label} ends in {path.suffix or 'no suffix'}: give a .keras, .h5 or .tflite file, or the folder of a SavedModel."
        )
    with extras.needed(label):  # a .tflite needs no TensorFlow
        from helpers.compress import own_keras
    return own_keras.load(label, path, code, signature)


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
    # Sizes that are computed, as by a RESHAPE of an open number of samples, are known after a run.
    interpreting.put(loaded, None if x is None else inputs.by_name(x))
    loaded.invoke()
    tensors = {tensor["index"]: tensor for tensor in loaded.get_tensor_details()}
    places, batch = (
        {},
        max(1, int(next((each["shape"][0] for each in loaded.get_input_details() if len(each["shape"])), 1))),
    )
    for operator in loaded._get_ops_details():  # private, but nothing else tells what an operator reads
        made = operator["outputs"][0]
        # A transposed convolution works at each place of its input, all others at each of their output.
        at = operator["inputs"][2] if operator["op_name"] == "TRANSPOSE_CONV" else made
        # Places may lie beside the samples: (places, outputs) of a dense layer, the parts of a dilated convolution, frames.
        places[tensors[made]["name"]] = math.prod(tensors[at]["shape"].tolist()[:-1]) // batch
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
    found = ends(blob)
    table = litert.tensors(blob).query("constant")
    small = litert.weight_layers(blob).query("dtype in @SMALL", local_dict={"SMALL": SMALL})
    if len(small) or (table["scales"] > 0).any():
        dtype = small["dtype"].iloc[0] if len(small) else table[table["scales"] > 0]["dtype"].iloc[0]
        raise InputError(f"{label} has {dtype} weights already: give the float32 model that it was made from.")
    _check_finite(label, blob)
    try:
        able_to_run(blob)
    except StructureError as problem:
        raise InputError(
            f"{label}: {problem}. Convert the model again, for one sample if it was for any number."
        ) from problem
    return Model(path.stem, "a .tflite file", blob, None, None, *found, (*notes, NO_GRAPH))


def _check_finite(label, blob):
    for name in flatbuffer.not_finite(blob):
        raise InputError(f"{label}: weights of {name} hold NaN or infinity: convert the model again.")


def ends(blob):
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


def able_to_run(blob):
    """A `.tflite` (bytes), as it is. Raises StructureError where LiteRT fails at one sample of zeros; not tried where sizes are open, since not
    every size need fit."""
    loaded = litert.interpreter(blob)
    found = loaded.get_input_details()
    if all((each["shape_signature"][1:] > 0).all() for each in found):
        for each in found:
            loaded.set_tensor(each["index"], np.zeros(each["shape"], each["dtype"]))
        try:
            loaded.invoke()
        except RuntimeError as error:
            raise StructureError(f"LiteRT cannot run it: {first_line(error)}") from error
    return blob
