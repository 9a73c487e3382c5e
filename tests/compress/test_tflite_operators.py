"""Every rule computes what LiteRT's kernel computes: files of one operator, with each of its options."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as s
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.compress.tflite_operators import NO_GRADIENT, RULES
from helpers.compress.tflite_plan import Plan
from helpers.tflite import interpreting, litert
from tests import single_operator

SAME, VALID = s.Padding.SAME, s.Padding.VALID
ACTIVATIONS = [getattr(s.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")]


def real(*shape, low=-3.0, high=3.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype("float32")


def whole(*values):
    return np.array(values, np.int32)


def agrees(blob, *x):
    """The outputs of the graph, after they were compared with the interpreter's."""
    plan = Plan(blob)
    found = [np.asarray(each) for each in plan.run({}, x, lambda index, value: value, plan.outputs)]
    loaded = litert.interpreter(blob, delegates=False)
    for details, each in zip(loaded.get_input_details(), x, strict=True):
        loaded.set_tensor(details["index"], each)
    loaded.invoke()
    for details, each in zip(loaded.get_output_details(), found, strict=True):
        wanted = interpreting.real_numbers(loaded.get_tensor(details["index"]), details)
        assert each.shape == wanted.shape and each.dtype == wanted.dtype
        if wanted.dtype == np.float32:
            assert np.abs(each - wanted).max(initial=0) <= 1e-5 * max(np.abs(wanted).max(initial=0), 1)
        else:
            np.testing.assert_array_equal(each, wanted)
    return found


X, POSITIVE = real(1, 4, 6, 3), real(1, 4, 6, 3, low=0.1)
# kind -> list of (options, settings, inputs, constants, order, dtypes of the outputs); what is left out at the end is usual
CASES = {
    "ADD": [(s.AddOptionsT, {"fusedActivationFunction": a}, [X, real(1, 4, 1, 3, seed=1)]) for a in ACTIVATIONS],
    "SUB": [(s.SubOptionsT, {"fusedActivationFunction": a}, [X, X[:, :1]]) for a in ACTIVATIONS[:2]],
    "MUL": [(s.MulOptionsT, {}, [X], [real(3)])],
    "DIV": [(s.DivOptionsT, {}, [X, POSITIVE])],
    "ADD_N": [(s.AddNOptionsT, {}, [X, X, POSITIVE])],
    "BATCH_MATMUL": [
        (
            s.BatchMatMulOptionsT,
            {"adjX": a, "adjY": b},
            [real(1, 2, *((5, 4) if a else (4, 5))), real(1, 2, *((3, 5) if b else (5, 3)))],
        )
        for a in (False, True)
        for b in (False, True)
    ],
    "FLOOR_DIV": [(s.FloorDivOptionsT, {}, [X, POSITIVE])],
    "FLOOR_MOD": [(s.FloorModOptionsT, {}, [X, POSITIVE])],
    "MAXIMUM": [(s.MaximumMinimumOptionsT, {}, [X], [real(3)])],
    "MINIMUM": [(s.MaximumMinimumOptionsT, {}, [X, POSITIVE])],
    "POW": [(s.PowOptionsT, {}, [POSITIVE, X])],
    "SQUARED_DIFFERENCE": [(s.SquaredDifferenceOptionsT, {}, [X, POSITIVE])],
    **{
        kind: [(None, {}, [X])]
        for kind in ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG")
    },
    **{
        kind: [(None, {}, [X])]
        for kind in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ROUND", "SIN", "SQUARE", "TANH")
    },
    **{kind: [(None, {}, [POSITIVE])] for kind in ("LOG", "RSQRT", "SQRT")},
    "SIGN": [(s.SignOptionsT, {}, [X])],
    "GELU": [(s.GeluOptionsT, {"approximate": a}, [X]) for a in (False, True)],
    "LEAKY_RELU": [(s.LeakyReluOptionsT, {"alpha": 0.2}, [X])],
    "PRELU": [(None, {}, [X], [real(1, 1, 3)])],
    "ARG_MAX": [
        (s.ArgMaxOptionsT, {"outputType": t}, [X], [whole(-1)], None, [d]) for t, d in ((2, "int32"), (4, "int64"))
    ],
    "ARG_MIN": [(s.ArgMinOptionsT, {"outputType": 2}, [X], [whole(1)], None, ["int32"])],
    "CUMSUM": [(s.CumsumOptionsT, {"exclusive": e, "reverse": r}, [X], [whole(2)]) for e in (0, 1) for r in (0, 1)],
    "L2_NORMALIZATION": [(s.L2NormOptionsT, {}, [X])],
    "LOG_SOFTMAX": [(s.LogSoftmaxOptionsT, {}, [X])],
    "SOFTMAX": [(s.SoftmaxOptionsT, {"beta": b}, [X]) for b in (1.0, 2.0)],
    **{
        kind: [
            (s.ReducerOptionsT, {"keepDims": k}, [X], [axes])
            for k in (False, True)
            for axes in (whole(1, 2), whole(-1))
        ]
        for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
    },
    "BATCH_TO_SPACE_ND": [
        (s.BatchToSpaceNDOptionsT, {}, [real(4, 2, 3, 3)], [whole(2, 2), whole(0, 1, 1, 0).reshape(2, 2)])
    ],
    "SPACE_TO_BATCH_ND": [(s.SpaceToBatchNDOptionsT, {}, [X], [whole(2, 2), whole(1, 1, 0, 2).reshape(2, 2)])],
    "BROADCAST_TO": [(s.BroadcastToOptionsT, {}, [real(1, 1, 3)], [whole(2, 4, 3)])],
    "CONCATENATION": [(s.ConcatenationOptionsT, {"axis": a}, [X, POSITIVE]) for a in (1, -1)],
    "DEPTH_TO_SPACE": [(s.DepthToSpaceOptionsT, {"blockSize": 2}, [real(1, 2, 3, 8)])],
    "SPACE_TO_DEPTH": [(s.SpaceToDepthOptionsT, {"blockSize": 2}, [X])],
    "EMBEDDING_LOOKUP": [(None, {}, [whole(2, 0, 1)[:1]], [real(3, 4)])],
    "EXPAND_DIMS": [(s.ExpandDimsOptionsT, {}, [X], [whole(a)]) for a in (1, -1)],
    "FILL": [(s.FillOptionsT, {}, [], [whole(2, 3), np.float32(1.5).reshape(())])],
    "GATHER": [
        (s.GatherOptionsT, {"axis": 1}, [X], [whole(2, 0)]),
        (s.GatherOptionsT, {"axis": 0}, [whole(4, 0, 2).reshape(1, 3)], [real(5, 6)], [1, 0]),
        (s.GatherOptionsT, {"axis": 2, "batchDims": 1}, [X, whole(1, 0).reshape(1, 2)]),
    ],
    "GATHER_ND": [(s.GatherNdOptionsT, {}, [X], [whole(0, 1, 0, 2).reshape(2, 2)])],
    "MIRROR_PAD": [
        (s.MirrorPadOptionsT, {"mode": m}, [X], [whole(0, 0, 1, 2, 2, 1, 0, 0).reshape(4, 2)]) for m in (0, 1)
    ],
    "PACK": [(s.PackOptionsT, {"axis": a, "valuesCount": 2}, [X, POSITIVE]) for a in (1, -1)],
    "UNPACK": [(s.UnpackOptionsT, {"axis": 1, "num": 4}, [X], [], None, ["float32"] * 4)],
    "PAD": [(s.PadOptionsT, {}, [X], [whole(0, 0, 1, 2, 0, 1, 0, 0).reshape(4, 2)])],
    "PADV2": [(s.PadV2OptionsT, {}, [X], [whole(0, 0, 1, 2, 0, 1, 0, 0).reshape(4, 2), real(1)])],
    "RESHAPE": [
        (s.ReshapeOptionsT, {"newShape": whole(1, 24, 3)}, [X], [whole(1, -1, 3)]),
        (s.ReshapeOptionsT, {"newShape": whole(1, 24, 3)}, [X]),
    ],
    "REVERSE_V2": [(s.ReverseV2OptionsT, {}, [X], [whole(2)])],
    "SLICE": [(s.SliceOptionsT, {}, [X], [whole(0, 1, 0, 0), whole(1, 2, -1, 2)])],
    "SPLIT": [(s.SplitOptionsT, {"numSplits": 3}, [X], [whole(2)], [1, 0], ["float32"] * 3)],
    "SPLIT_V": [(s.SplitVOptionsT, {"numSplits": 2}, [X], [whole(4, 2), whole(2).reshape(())], None, ["float32"] * 2)],
    "SQUEEZE": [(s.SqueezeOptionsT, {"squeezeDims": d}, [real(1, 4, 1, 3)]) for d in (whole(2), whole())],
    "STRIDED_SLICE": [
        (s.StridedSliceOptionsT, {}, [X], [whole(0, 1, 0, 0), whole(1, 4, 6, 3), whole(1, 2, 3, 1)]),
        (
            s.StridedSliceOptionsT,
            {"beginMask": 15, "endMask": 13},
            [X],
            [whole(0, 0, 0, 0), whole(0, 3, 0, 0), whole(1, 1, 2, 1)],
        ),
        (s.StridedSliceOptionsT, {"shrinkAxisMask": 2}, [X], [whole(0, 2, 0, 0), whole(1, 3, 6, 3), whole(1, 1, 1, 1)]),
        (s.StridedSliceOptionsT, {}, [X], [whole(0, 3, 5, 2), whole(1, 0, 1, 0), whole(1, -1, -2, -1)]),
    ],
    "TILE": [(s.TileOptionsT, {}, [X], [whole(1, 2, 1, 3)])],
    "TRANSPOSE": [(s.TransposeOptionsT, {}, [X], [whole(0, 3, 1, 2)])],
    "CAST": [
        (s.CastOptionsT, {"inDataType": 0, "outDataType": 2}, [X], [], None, ["int32"]),
        (None, {}, [whole(1, 0, 4).reshape(1, 3)]),
    ],
    **{
        kind: [(getattr(s, options), {}, [np.round(X), np.round(POSITIVE)], [], None, ["bool"])]
        for kind, options in {
            "EQUAL": "EqualOptionsT",
            "GREATER": "GreaterOptionsT",
            "GREATER_EQUAL": "GreaterEqualOptionsT",
            "LESS": "LessOptionsT",
            "LESS_EQUAL": "LessEqualOptionsT",
            "NOT_EQUAL": "NotEqualOptionsT",
        }.items()
    },
    "LOGICAL_AND": [(s.LogicalAndOptionsT, {}, [X > 0, X > 1], [], None, ["bool"])],
    "LOGICAL_OR": [(s.LogicalOrOptionsT, {}, [X > 0, X > 1], [], None, ["bool"])],
    "LOGICAL_NOT": [(s.LogicalNotOptionsT, {}, [X > 0], [], None, ["bool"])],
    "ONE_HOT": [
        (
            s.OneHotOptionsT,
            {"axis": axis},
            [whole(2, 0).reshape(1, 2)],
            [whole(4).reshape(()), np.array(1.5, "float32"), np.array(-1, "float32")],
        )
        for axis in (-1, 1)
    ],
    "RANGE": [(s.RangeOptionsT, {}, [], [whole(n).reshape(()) for n in (1, 9, 2)], None, ["int32"])],
    "SELECT": [(s.SelectOptionsT, {}, [X > 0, X, POSITIVE])],
    "SELECT_V2": [(s.SelectV2OptionsT, {}, [X[..., :1] > 0, X], [real(3)])],
    "SHAPE": [(s.ShapeOptionsT, {"outType": t}, [X], [], None, [d]) for t, d in ((2, "int32"), (4, "int64"))],
    "ZEROS_LIKE": [(s.ZerosLikeOptionsT, {}, [X])],
}
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
SHAPED = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases])
def test_a_rule_computes_what_the_kernel_does(kind, case):
    options, settings_, x, constants, order, results = (*case, *(None,) * (6 - len(case)))
    blob = single_operator.build(kind, options, x, constants or (), order, results or ("float32",), **settings_)
    agrees(blob, *x)


def test_every_rule_is_tested():
    assert set(CASES) | set(WEIGHTED) | set(SHAPED) == set(RULES)
    assert set(RULES) >= NO_GRADIENT


sides = st.integers(3, 9)
paddings, few = st.sampled_from([SAME, VALID]), st.integers(1, 3)
fused = st.sampled_from(ACTIVATIONS)


@settings(max_examples=60, deadline=None)
@given(
    sides,
    sides,
    few,
    few,
    few,
    few,
    st.sampled_from([1, 1, 2]),
    st.sampled_from([1, 2]),
    few,
    paddings,
    fused,
)
def test_convolutions(height, width, high, wide, sh, sw, dilation, groups, filters, padding, activation):
    if dilation > 1:
        sh = sw = 1  # no network has both
    if padding == VALID and (height < dilation * (high - 1) + 1 or width < dilation * (wide - 1) + 1):
        return
    x, kernel = real(1, height, width, 2 * groups), real(groups * filters, high, wide, 2, seed=1)
    options = {"padding": padding, "strideH": sh, "strideW": sw, "fusedActivationFunction": activation}
    options |= {"dilationHFactor": dilation, "dilationWFactor": dilation}
    weights = [kernel, real(groups * filters, seed=2)]
    agrees(single_operator.build("CONV_2D", s.Conv2DOptionsT, [x], weights, **options), x)


@settings(max_examples=60, deadline=None)
@given(sides, sides, few, few, few, few, st.sampled_from([1, 1, 2]), st.sampled_from([1, 2]), paddings, fused)
def test_depthwise_convolutions(height, width, high, wide, sh, sw, dilation, multiplier, padding, activation):
    if dilation > 1:
        sh = sw = 1
    if padding == VALID and (height < dilation * (high - 1) + 1 or width < dilation * (wide - 1) + 1):
        return
    x, kernel = real(1, height, width, 3), real(1, high, wide, 3 * multiplier, seed=1)
    options = {"padding": padding, "strideH": sh, "strideW": sw, "fusedActivationFunction": activation}
    options |= {"dilationHFactor": dilation, "dilationWFactor": dilation, "depthMultiplier": multiplier}
    weights = [kernel, real(3 * multiplier, seed=2)]
    agrees(single_operator.build("DEPTHWISE_CONV_2D", s.DepthwiseConv2DOptionsT, [x], weights, **options), x)


@settings(max_examples=40, deadline=None)
@given(sides, sides, few, few, st.integers(1, 3), paddings, st.booleans())
def test_transposed_convolutions(height, width, high, wide, stride, padding, biased):
    if padding == SAME:
        shape = whole(1, height * stride, width * stride, 2)
    else:
        shape = whole(1, (height - 1) * stride + max(high, stride), (width - 1) * stride + max(wide, stride), 2)
    x, weights = real(1, height, width, 3), [shape, real(2, high, wide, 3, seed=1)] + [real(2, seed=2)] * biased
    options = {"padding": padding, "strideH": stride, "strideW": stride}
    order = [1, 2, 0] + [3] * biased
    agrees(single_operator.build("TRANSPOSE_CONV", s.TransposeConvOptionsT, [x], weights, order, **options), x)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 5), st.booleans(), fused)
def test_dense_layers(shape, source, units, kept, activation):
    x, weights = real(1, *shape, source), [real(units, source, seed=1), real(units, seed=2)]
    options = {"keepNumDims": kept, "fusedActivationFunction": activation}
    agrees(single_operator.build("FULLY_CONNECTED", s.FullyConnectedOptionsT, [x], weights, **options), x)
    agrees(
        single_operator.build("FULLY_CONNECTED", s.FullyConnectedOptionsT, [x], weights[:1], [0, 1, -1], **options), x
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), sides, sides, few, few, few, few, paddings, fused)
def test_pooling(kind, height, width, high, wide, sh, sw, padding, activation):
    x = real(1, height, width, 2)
    options = {"padding": padding, "strideH": sh, "strideW": sw, "filterHeight": high, "filterWidth": wide}
    blob = single_operator.build(kind, s.Pool2DOptionsT, [x], **options, fusedActivationFunction=activation)
    agrees(blob, x)


@settings(max_examples=40, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([(False, False), (True, False), (False, True)]))
def test_resizing(height, width, to_height, to_width, how):
    x, size = real(1, height, width, 2), whole(to_height, to_width)
    options = {"alignCorners": how[0], "halfPixelCenters": how[1]}
    agrees(single_operator.build("RESIZE_BILINEAR", s.ResizeBilinearOptionsT, [x], [size], **options), x)
    nearest = s.ResizeNearestNeighborOptionsT
    agrees(single_operator.build("RESIZE_NEAREST_NEIGHBOR", nearest, [x], [size], **options), x)
