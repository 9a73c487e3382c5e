"""Why a quantized file answers so much worse than the float file it was made from, where its scales tell.

An integer tensor has one scale, set by its largest number. Three things make that scale useless for all other numbers:

    parts      an output joins parts of another size, as boxes in pixels and scores: the small ones get less than a step
    mask       what is added before a softmax to hide some places, -1e9 for instance, sets the scale of what goes into it
    outliers   a few channels are so much larger than the others that these get a handful of steps (Dettmers et al. 2022,
               LLM.int8(), section 4; Xiao et al. 2023, SmoothQuant, section 3)

    for cause in causes.find(int8, float32, {"x": x}):
        print(cause)
"""

from dataclasses import dataclass

import numpy as np

from helpers.base import repository, runtime_env
from helpers.tflite import flatbuffer, inputs, inside, litert

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

PARTS, MASK, OUTLIERS = "parts", "mask", "outliers"
TIMES_APART = 100  # parts of an output: the smaller one then has two or three steps of 8 bits
HIDES = (
    1000  # what goes into a softmax: e to the power of -1000 is nothing, and a step of 8 bits is e to the power of 4
)
LARGER = 16  # channels: the median one then has at most eight steps on a side
FEW = 8  # channels, below which a median of them says little
NARROW = 16  # values of an output, up to which each may be a quantity of its own
SAMPLES = 16
INTEGERS = {schema.TensorType.INT8: 8, schema.TensorType.UINT8: 8}
# What leaves the last axis as it is, or only moves numbers.
CARRIES = ("RESHAPE", "TRANSPOSE", "QUANTIZE", "DEQUANTIZE", "SQUEEZE", "EXPAND_DIMS")
JOINS = ("CONCATENATION", "PACK")
BOUNDED = ("SOFTMAX", "LOGISTIC", "TANH")  # answers of one kind, whose size means how likely they are
READERS = (*flatbuffer.WEIGHT_OPERATORS, "MEAN", "SQUARED_DIFFERENCE")  # layers of weights, and what normalizes

# What `runner` is asked to do in a process of its own, with model, baseline and samples: -> causes, a list of sentences.
JOB = {"task": "call", "module": __name__, "function": "answer", "path": str(repository.HELPERS.parent)}


@dataclass(frozen=True)
class Cause:
    """kind: PARTS, MASK or OUTLIERS. tensor: its name. times: how much larger the large numbers are than the small ones. sentence:
    what it is, and what helps."""

    kind: str
    tensor: str
    times: float
    sentence: str

    def __str__(self):
        return self.sentence


def find(quantized, model, samples):
    """What in a quantized file explains that it answers worse than the float `.tflite` it was made from: a list of Causes, the
    outputs first. Empty for a file whose activations are not integers of 8 bits, and for one that has none of the three faults.

    quantized, model: bytes or paths. samples: name of an input -> array (n, ...), or one array; the first few are run.
    Raises InputError for files that are damaged, and for samples that do not fit.
    """
    stored, graph = _Graph(quantized), _Graph(model)
    masks = list(_masks(stored))
    if not stored.integers:
        return masks
    largest = inside.channel_maxima(model, {name: each[:SAMPLES] for name, each in inputs.by_name(samples).items()})
    outliers = [each for each in _outliers(graph, stored, largest) if not any(each.tensor == of.tensor for of in masks)]
    return [*_parts(graph, stored, largest), *masks, *outliers]


def answer(job, samples):
    """What a process that was given JOB answers."""
    return {"causes": [str(cause) for cause in find(job["model"], job["baseline"], samples)]}


class _Graph:
    """The operators of a file's main graph by the names of their tensors. outputs: name in the signature, or place -> name of the
    tensor. integers: name of a tensor that is computed -> (lowest, highest) number that it can hold, of those with 8 bits."""

    def __init__(self, model):
        blob = litert.content(model)
        with flatbuffer.unpacked(blob) as parsed:
            graph = parsed.subgraphs[0]
            names = [tensor.name.decode() for tensor in graph.tensors]
            constant = [len(flatbuffer.stored(parsed.buffers[each.buffer], blob)) > 0 for each in graph.tensors]
            signed = flatbuffer.signature_names(blob, "outputs")
            self.outputs = {signed.get(index, place): names[index] for place, index in enumerate(graph.outputs)}
            self.operators = [
                (
                    flatbuffer.operator_name(parsed, each),
                    [names[index] for index in each.inputs if index >= 0 and not constant[index]],
                    [names[index] for index in each.outputs],
                )
                for each in graph.operators
            ]
            self.integers = {
                name: held
                for name, tensor, fixed in zip(names, graph.tensors, constant, strict=True)
                if not fixed and (held := _held(tensor))
            }
        self.made = {name: (kind, given) for kind, given, made in self.operators for name in made}

    def source(self, name):
        """The tensor whose numbers one holds, moved at most."""
        while name in self.made and self.made[name][0] in CARRIES and self.made[name][1]:
            name = self.made[name][1][0]
        return name

    def readers(self, name):
        """The operators that read the numbers of a tensor, moved at most."""
        found = []
        for kind, given, made in self.operators:
            if name in given:
                found += [each for other in made for each in self.readers(other)] if kind in CARRIES else [kind]
        return found


def _held(tensor):
    """(lowest, highest) of a tensor of integers of 8 bits with one scale, or None."""
    quantization = tensor.quantization
    if (
        tensor.type not in INTEGERS
        or quantization is None
        or quantization.scale is None
        or len(quantization.scale) != 1
    ):
        return None
    limits = np.iinfo("int8" if tensor.type == schema.TensorType.INT8 else "uint8")
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return scale * (limits.min - zero), scale * (limits.max - zero)


def _parts(graph, stored, largest):
    same = graph.outputs.keys() == stored.outputs.keys()
    in_order = dict(zip(graph.outputs, stored.outputs.values(), strict=False))
    for end, name in graph.outputs.items():
        theirs = stored.outputs[end] if same else in_order.get(end, "")
        if stored.source(theirs) not in stored.integers:
            continue
        kind, given = graph.made.get(graph.source(name), ("", []))
        if kind in JOINS:
            sizes = {each: float(largest[each].max()) for each in given if each in largest}
            what = "the parts"
        elif kind not in BOUNDED and name in largest and 1 < len(largest[name]) <= NARROW:
            sizes = {f"value {place}": float(size) for place, size in enumerate(largest[name])}
            what = "the values"
        else:
            continue
        sizes = {each: size for each, size in sizes.items() if size > 0}
        if not sizes or max(sizes.values()) <= TIMES_APART * min(sizes.values()):
            continue
        large, small = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        times = sizes[large] / sizes[small]
        yield Cause(
            PARTS,
            name,
            times,
            f"{what} of output {end} share one scale, and {large} (up to {sizes[large]:.3g}) is {times:,.0f} times as large as "
            f"{small} (up to {sizes[small]:.3g}): split the output, or bring its parts to the same size, as boxes to 0..1",
        )


def _masks(stored):
    for kind, given, _ in stored.operators:
        held = stored.integers.get(given[0]) if kind == "SOFTMAX" and given else None
        if held and held[0] < -HIDES:
            yield Cause(
                MASK,
                given[0],
                -held[0],
                f"{given[0]}, which goes into a softmax, reaches down to {held[0]:.3g}, and a step of it is "
                f"{(held[1] - held[0]) / 255:.3g}: a mask's constant sets the scale; use -20 for it, which hides as well",
            )


def _outliers(graph, stored, largest):
    """The tensor of each channel, or set of channels, that is furthest from the others."""
    found = {}
    for name, sizes in largest.items():
        held, used = stored.integers.get(name), sizes[sizes > 0]
        if held is None or len(used) < FEW or not {*graph.readers(name)} & {*READERS}:
            continue
        median, reach = float(np.median(used)), max(map(abs, held))
        times = reach / median
        channels = tuple(np.flatnonzero(sizes > LARGER * median))
        if times > LARGER and channels and times > found.get(channels, (0,))[0]:
            found[channels] = times, name
    for channels, (times, name) in sorted(found.items(), key=lambda each: -each[1][0]):
        which = f"channel {channels[0]}" if len(channels) == 1 else f"{len(channels)} channels ({_listed(channels)})"
        yield Cause(
            OUTLIERS,
            name,
            times,
            f"{which} of {name} set its scale, {times:,.0f} times the median channel, which has {127 / times:.1f} steps on a side: "
            "migrate them into the weights that read them, or leave activations in float32 (dynamic range)",
        )


def _listed(channels, most=3):
    return ", ".join(map(str, channels[:most])) + (", …" if len(channels) > most else "")
