"""The operators of a float `.tflite` in TensorFlow, differentiable where the operator is: RULES, name -> rule(node, *inputs).

A rule computes what LiteRT's float kernel computes (schema.fbs of TensorFlow Lite says what each option means). Inputs come in
the order of the file, None where an optional one is left out; node.options are the operator's own, node.dtype is the type of
its first output. Several outputs are a list.
"""

import copy
from dataclasses import dataclass, field, replace

import numpy as np

from helpers.base import runtime_env

with runtime_env.quiet():
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

# Operators with weights of their own -> place of the kernel among the inputs; a bias comes behind.
KERNEL_PLACE = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
BIAS_PLACE = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
NO_GRADIENT = {
    *("ARG_MAX", "ARG_MIN", "CEIL", "EQUAL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS"),
    *(
        "LESS_EQUAL",
        "LOGICAL_AND",
        "LOGICAL_NOT",
        "LOGICAL_OR",
        "NOT_EQUAL",
        "ONE_HOT",
        "RANGE",
        "ROUND",
        "SHAPE",
        "SIGN",
    ),
}
_ACTIVATION = {
    schema.ActivationFunctionType.NONE: lambda x: x,
    schema.ActivationFunctionType.RELU: tf.nn.relu,
    schema.ActivationFunctionType.RELU_N1_TO_1: lambda x: tf.clip_by_value(x, -1.0, 1.0),
    schema.ActivationFunctionType.RELU6: tf.nn.relu6,
}
_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}


@dataclass
class Node:
    """An operator of a graph. inputs, outputs: indices of tensors, -1 for an input that is left out. name: of its output."""

    kind: str
    options: object
    inputs: list
    outputs: list
    name: str
    dtype: np.dtype = field(default_factory=lambda: np.dtype("float32"))


def why_not(node):
    """What of an operator has no rule here, in words; "" if it can be computed. (The schema knows more fused activations, but
    LiteRT's kernels pass over them.)"""
    if node.kind not in RULES:
        return f"{node.kind} has no rule here" if node.kind != "CUSTOM" else "a custom operator has no rule here"
    fused = getattr(node.options, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return "" if fused in _ACTIVATION else f"the activation that is fused into {node.kind} has no rule here"


def without_activation(node):
    """The node of a layer that fuses no activation; nothing else of it is changed."""
    options = copy.copy(node.options)
    options.fusedActivationFunction = schema.ActivationFunctionType.NONE
    return replace(node, options=options)


def _fused(node, y):
    return _ACTIVATION[node.options.fusedActivationFunction](y)


def _biased(node, y, bias):
    return _fused(node, y if bias is None else y + bias)


def _conv_2d(node, x, kernel, bias=None):
    """kernel: (out, height, width, in / groups)."""
    options, kernel = node.options, tf.transpose(kernel, (1, 2, 3, 0))
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    groups = x.shape[-1] // kernel.shape[2]
    # TensorFlow has no gradient of a grouped convolution on a CPU, and `convolution` one of a dilated one.
    parts = [
        tf.nn.convolution(part, of, strides, _PADDING[options.padding], dilations=dilations)
        for part, of in zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    ]
    return _biased(node, parts[0] if groups == 1 else tf.concat(parts, -1), bias)


def _depthwise_conv_2d(node, x, kernel, bias=None):
    """kernel: (1, height, width, channels * multiplier)."""
    options, (_, height, width, _) = node.options, kernel.shape
    kernel = tf.reshape(kernel, (height, width, x.shape[-1], -1))
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    if strides[0] == strides[1]:
        y = tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), _PADDING[options.padding], dilations=dilations)
        return _biased(node, y, bias)
    # TensorFlow takes equal strides only: every place is computed, and some are taken.
    if _PADDING[options.padding] == "SAME":
        pads = [
            _same_padding(tf.shape(x)[axis], dilation * (size - 1) + 1, stride)
            for axis, size, stride, dilation in zip((1, 2), (height, width), strides, dilations, strict=True)
        ]
        x = tf.pad(x, [[0, 0], *pads, [0, 0]])
    y = tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID", dilations=dilations)
    return _biased(node, y[:, :: strides[0], :: strides[1]], bias)


def _same_padding(size, window, stride):
    whole = tf.maximum((tf.math.floordiv(size + stride - 1, stride) - 1) * stride + window - size, 0)
    return [whole // 2, whole - whole // 2]


def _transpose_conv(node, shape, kernel, x, bias=None):
    """kernel: (out, height, width, in). shape: of the output; its batch is that of the input, whatever the file was made for."""
    options, shape = node.options, tf.concat([tf.shape(x)[:1], tf.cast(shape, tf.int32)[1:]], 0)
    y = tf.nn.conv2d_transpose(
        x, tf.transpose(kernel, (1, 2, 0, 3)), shape, (options.strideH, options.strideW), _PADDING[options.padding]
    )
    return _biased(node, y, bias)


def _fully_connected(node, x, kernel, bias=None):
    """kernel: (out, in)."""
    kernel = tf.convert_to_tensor(kernel)
    y = _biased(node, tf.matmul(tf.reshape(x, (-1, kernel.shape[-1])), kernel, transpose_b=True), bias)
    if not node.options.keepNumDims:
        return y
    return tf.reshape(y, tf.concat([tf.shape(x)[:-1], [kernel.shape[0]]], 0))


def _pool(pool):
    def rule(node, x):
        options = node.options
        window, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
        return _fused(node, pool(x, window, strides, _PADDING[options.padding]))

    return rule


def _elementwise(function):
    return lambda node, *x: function(*x)


def _arithmetic(function):
    """With the activation that the converter fuses into it."""
    return lambda node, a, b: _fused(node, function(a, b))


def _reduction(function):
    return lambda node, x, axes: function(x, tf.reshape(axes, [-1]), keepdims=bool(node.options.keepDims))


def _strided_slice(node, x, begin, end, strides):
    options = node.options
    end = begin + end if options.offset else end
    masks = options.beginMask, options.endMask, options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask
    return tf.strided_slice(x, begin, end, strides, *masks)


def _reshape(node, x, shape=None):
    return tf.reshape(x, node.options.newShape if shape is None else shape)


def _squeeze(node, x):
    dimensions = node.options.squeezeDims
    return tf.squeeze(x, None if dimensions is None or not len(dimensions) else list(map(int, dimensions)))


def _resize(operation):
    def rule(node, x, size):
        options = node.options
        return operation(
            images=x,
            size=size,
            align_corners=bool(options.alignCorners),
            half_pixel_centers=bool(options.halfPixelCenters),
        )

    return rule


def _gather(node, x, indices):
    return tf.gather(x, indices, axis=node.options.axis, batch_dims=node.options.batchDims)


def _one(array):
    """The number that an array of one holds, known when the function is traced."""
    return int(np.ravel(array)[0])


def _one_hot(node, indices, depth, on, off):
    return tf.one_hot(indices, depth, on, off, node.options.axis)


def _mirror_pad(node, x, paddings):
    reflects = node.options.mode == schema.MirrorPadMode.REFLECT
    return tf.pad(x, paddings, "REFLECT" if reflects else "SYMMETRIC")


def _arg(function):
    return lambda node, x, axis: function(x, _one(axis), output_type=tf.as_dtype(node.dtype))


RULES = {
    # with weights
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    # pooling and resizing
    "AVERAGE_POOL_2D": _pool(tf.nn.avg_pool2d),
    "MAX_POOL_2D": _pool(tf.nn.max_pool2d),
    "RESIZE_BILINEAR": _resize(tf.raw_ops.ResizeBilinear),
    "RESIZE_NEAREST_NEIGHBOR": _resize(tf.raw_ops.ResizeNearestNeighbor),
    # arithmetic
    "ADD": _arithmetic(tf.add),
    "SUB": _arithmetic(tf.subtract),
    "MUL": _arithmetic(tf.multiply),
    "DIV": _arithmetic(tf.divide),
    "ADD_N": lambda node, *x: tf.add_n(x),
    "BATCH_MATMUL": lambda node, a, b: tf.matmul(a, b, adjoint_a=node.options.adjX, adjoint_b=node.options.adjY),
    "FLOOR_DIV": _elementwise(tf.math.floordiv),
    "FLOOR_MOD": _elementwise(tf.math.floormod),
    "MAXIMUM": _elementwise(tf.maximum),
    "MINIMUM": _elementwise(tf.minimum),
    "POW": _elementwise(tf.pow),
    "SQUARED_DIFFERENCE": _elementwise(tf.math.squared_difference),
    # of each number
    "ABS": _elementwise(tf.abs),
    "CEIL": _elementwise(tf.math.ceil),
    "COS": _elementwise(tf.cos),
    "ELU": _elementwise(tf.nn.elu),
    "EXP": _elementwise(tf.exp),
    "FLOOR": _elementwise(tf.floor),
    "GELU": lambda node, x: tf.nn.gelu(x, bool(node.options.approximate)),
    "HARD_SWISH": _elementwise(lambda x: x * tf.nn.relu6(x + 3) / 6),
    "LEAKY_RELU": lambda node, x: tf.nn.leaky_relu(x, node.options.alpha),
    "LOG": _elementwise(tf.math.log),
    "LOGISTIC": _elementwise(tf.sigmoid),
    "NEG": _elementwise(tf.negative),
    "PRELU": _elementwise(lambda x, slope: tf.where(x > 0, x, slope * x)),
    "RELU": _elementwise(tf.nn.relu),
    "RELU6": _elementwise(tf.nn.relu6),
    "RELU_0_TO_1": _elementwise(lambda x: tf.clip_by_value(x, 0.0, 1.0)),
    "RELU_N1_TO_1": _elementwise(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    "ROUND": _elementwise(tf.round),
    "RSQRT": _elementwise(tf.math.rsqrt),
    "SIGN": _elementwise(tf.sign),
    "SIN": _elementwise(tf.sin),
    "SQRT": _elementwise(tf.sqrt),
    "SQUARE": _elementwise(tf.square),
    "TANH": _elementwise(tf.tanh),
    # over an axis
    "ARG_MAX": _arg(tf.argmax),
    "ARG_MIN": _arg(tf.argmin),
    "CUMSUM": lambda node, x, axis: tf.cumsum(x, _one(axis), bool(node.options.exclusive), bool(node.options.reverse)),
    "L2_NORMALIZATION": lambda node, x: _fused(
        node, x / tf.sqrt(tf.maximum(tf.reduce_sum(x * x, -1, keepdims=True), 1e-12))
    ),
    "LOG_SOFTMAX": _elementwise(tf.nn.log_softmax),
    "MEAN": _reduction(tf.reduce_mean),
    "REDUCE_MAX": _reduction(tf.reduce_max),
    "REDUCE_MIN": _reduction(tf.reduce_min),
    "REDUCE_PROD": _reduction(tf.reduce_prod),
    "SOFTMAX": lambda node, x: tf.nn.softmax(node.options.beta * x),
    "SUM": _reduction(tf.reduce_sum),
    # where numbers stand
    "BATCH_TO_SPACE_ND": _elementwise(tf.batch_to_space),
    "BROADCAST_TO": _elementwise(tf.broadcast_to),
    "CONCATENATION": lambda node, *x: tf.concat(x, node.options.axis),
    "DEPTH_TO_SPACE": lambda node, x: tf.nn.depth_to_space(x, node.options.blockSize),
    "EMBEDDING_LOOKUP": lambda node, indices, table: tf.gather(table, indices),
    "EXPAND_DIMS": lambda node, x, axis: tf.expand_dims(x, _one(axis)),
    "FILL": _elementwise(tf.fill),
    "GATHER": _gather,
    "GATHER_ND": _elementwise(tf.gather_nd),
    "MIRROR_PAD": _mirror_pad,
    "PACK": lambda node, *x: tf.stack(x, node.options.axis),
    "PAD": _elementwise(tf.pad),
    "PADV2": _elementwise(lambda x, paddings, value: tf.pad(x, paddings, constant_values=tf.reshape(value, []))),
    "RESHAPE": _reshape,
    "REVERSE_V2": _elementwise(tf.reverse),
    "SLICE": _elementwise(tf.slice),
    "SPACE_TO_BATCH_ND": _elementwise(tf.space_to_batch),
    "SPACE_TO_DEPTH": lambda node, x: tf.nn.space_to_depth(x, node.options.blockSize),
    "SPLIT": lambda node, axis, x: tf.split(x, node.options.numSplits, _one(axis)),
    "SPLIT_V": lambda node, x, sizes, axis: tf.split(x, np.ravel(sizes).tolist(), _one(axis)),
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _elementwise(tf.tile),
    "TRANSPOSE": _elementwise(tf.transpose),
    "UNPACK": lambda node, x: tf.unstack(x, node.options.num, node.options.axis),
    # whole numbers and conditions
    "CAST": lambda node, x: tf.cast(x, tf.as_dtype(node.dtype)),
    "EQUAL": _elementwise(tf.equal),
    "GREATER": _elementwise(tf.greater),
    "GREATER_EQUAL": _elementwise(tf.greater_equal),
    "LESS": _elementwise(tf.less),
    "LESS_EQUAL": _elementwise(tf.less_equal),
    "LOGICAL_AND": _elementwise(tf.logical_and),
    "LOGICAL_NOT": _elementwise(tf.logical_not),
    "LOGICAL_OR": _elementwise(tf.logical_or),
    "NOT_EQUAL": _elementwise(tf.not_equal),
    "ONE_HOT": _one_hot,
    "RANGE": _elementwise(tf.range),
    "SELECT": _elementwise(tf.where),
    "SELECT_V2": _elementwise(tf.where),
    "SHAPE": lambda node, x: tf.shape(x, tf.as_dtype(node.dtype)),
    "ZEROS_LIKE": _elementwise(tf.zeros_like),
}
