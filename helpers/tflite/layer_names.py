"""Which layer of Keras an operator of a `.tflite` belongs to, by the names of its tensors."""

import re

_NUMBER = re.compile(r"_\d+(?=/|;|$)")  # that Keras 3 puts behind the names of layers which it exports
# A layer's scope, and what Keras opens inside it.
_INNER = re.compile(r"(?<=/)([^/;]+)/(?:Tensordot|einsum|batchnorm|moments|Gelu)(?:_\d+)?(?=/)")
# How names of operations inside a layer begin: they name no part of it.
OPERATIONS = (
    "einsum",
    "tensordot",
    "matmul",
    "conv1d",
    "conv2d",
    "convolution",
    "depthwise",
    "separable",
    "biasadd",
    "readvariableop",
)


def of(tensors, known):
    """The layer of each of some operators, by the names of its output and of its kernel."""
    plain = [[_NUMBER.sub("", name) for name in each] for each in tensors]
    exact, renamed = ([_named_by(known, *each) for each in some] for some in (tensors, plain))
    names = renamed if sum(map(bool, renamed)) > sum(map(bool, exact)) else exact
    return [
        name or _between(names, place, known, tensors) or _keras_name(*tensors[place])
        for place, name in enumerate(names)
    ]


def _between(names, place, known, tensors):
    """The only layer that lies between those of the operators before and behind, for one that has no name at all (a grouped
    convolution of Keras 3); None if there is no such layer."""
    whole = [None if name is None else name.split("/")[0] for name in names]
    before, behind = (next(filter(None, some), None) for some in (whole[:place][::-1], whole[place + 1 :]))
    if "/" in tensors[place][0] or before not in known or behind not in known:
        return None
    candidates = known[known.index(before) + 1 : known.index(behind)]
    return candidates[0] if len(candidates) == 1 else None


def _named_by(known, *tensors):
    """The known layer in the names of some tensors, and the part of it that they belong to; None if there is none. Names of
    layers may hold slashes themselves; the longest that fits is meant."""
    for part in ";".join(tensors).split(";"):
        path = f"/{part}/"
        name = max((each for each in known if f"/{each}/" in path), key=len, default=None)
        if name is not None:
            *inner, _ = path.rsplit(f"/{name}/", 1)[1].strip("/").split("/")
            return "/".join([name, *(word for word in inner if not word.lower().startswith(OPERATIONS))])
    return None


def _keras_name(*tensors):
    """'net/relu/Relu6;net/bn/FusedBatchNormV3;net/conv/Conv2D1' -> 'conv'; the first of the names that holds one.

    Keras 3 calls the operator "convolution". Several axes make a dense layer 'net/dense/Tensordot/MatMul'.
    """
    parts = [part.split("/") for part in _INNER.sub(r"\1", ";".join(tensors)).split(";")]
    for *path, operation in parts:
        if path and operation.startswith(("Conv2D", "convolution", "depthwise", "MatMul")):
            return path[-1]
    *path, operation = parts[0]
    return path[-1] if path else operation
