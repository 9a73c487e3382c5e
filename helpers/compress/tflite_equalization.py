"""Per-tensor quantization without the collapse, for a float `.tflite`, whatever made it: what cannot change is cleared, and channels
are equalized (Nagel et al. 2019, *Data-free quantization through weight equalization and bias correction*, sections 3 and 4.1).

    cleared, table = tflite_equalization.clear_constant(blob)
    equal, table = tflite_equalization.equalize(cleared, capped=True)

Both compute what the file computed. `equalization` does the same to Keras models.
"""

import numpy as np
import pandas as pd
from scipy import special

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.compress import tflite_noise, tflite_scales
from helpers.compress.tflite_operators import BIAS_PLACE, KERNEL_PLACE
from helpers.compress.tflite_plan import Plan, opened
from helpers.tflite import activations, rewrite

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

DEAD = 1e-6  # share of its kernel's largest range below which a channel carries nothing
SWEEPS, CONVERGED = 50, 0.05
COLUMNS = ["tensor", "channel", "factor"]
# What makes the same of a channel that is the same everywhere, along a last axis that it keeps.
KEEPS = (
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
    *("RESHAPE", "SQUEEZE", "PAD"),
)
# What an operator without weights makes of a number.
MAKES = {
    "LOGISTIC": special.expit,
    "TANH": np.tanh,
    "ELU": lambda values: np.where(values > 0, values, np.expm1(np.minimum(values, 0))),
    "HARD_SWISH": lambda values: values * np.clip(values + 3, 0, 6) / 6,
    "RELU": lambda values: np.maximum(values, 0),
    "RELU6": lambda values: np.clip(values, 0, activations.CAP),
}
READERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_CUT = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0, np.inf),
    schema.ActivationFunctionType.RELU6: (0, activations.CAP),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1, 1),
}


def clear_constant(model):
    """A float `.tflite` in which weights that read a channel which is the same whatever goes in are zero; it computes the same.

    Weight decay empties a kernel's channel; what is left of it is its bias, or zero where that is not positive and a ReLU
    follows. What the next layer makes of it was not trained, and after a batch norm is folded it may be the largest weight of
    its layer, since a batch norm divides by the deviation of a channel that does not move: a single scale for the layer then
    serves that weight alone. A channel that is zero is not read any more; of another one the bias takes up what was made of it,
    where every place reads all of it. A channel is also zero where no input between 0 and a ReLU6's cap can make it positive.
    Returns (bytes, frame), a row for each cleared channel: tensor, channel, value (what it always is). Bytes are those of the
    file if there is none. Raises InputError for an unusable or a quantized file.
    """
    file, plan, _ = opened(model)
    known = _Constant(plan)
    for number, node in enumerate(plan.nodes):
        known.read(number, node)
    table = pd.DataFrame(known.rows, columns=["tensor", "channel", "value"])
    return (rewrite.with_operands(file, known.operands) if known.operands else file), table


def equalize(model, samples=None, capped=False, gated=False):
    """Cross-layer equalization of a float `.tflite`: neighbouring layers share out their ranges, and it computes the same, bit for bit.

    What makes channel i of a tensor is multiplied by s_i, what reads it is divided by s_i = sqrt(r2_i / r1_i), for the ranges r1
    before and r2 behind (Nagel et al. 2019, equation 11; each as a share of its kernel's largest, since several kernels may make or
    read a tensor, as in a residual stream), for every `tflite_scales.Passage`, repeated until the ranges stand still. Factors
    are rounded to powers of two, which change no bit of float32 and leave ranges at most 1.4 times apart on either side.
    samples: some dozen, (n, ...) as the model takes them, or name of an input -> such an array: factors are then those that leave least
    noise, in kernels and in the tensors between them, as these samples show it (`tflite_noise`).
    capped: also through ReLU6, whose cap is scaled along, channel by channel (`activations.with_caps`: a minimum behind it). Nagel et
    al. replace ReLU6 by ReLU, which changes the function. gated: also through swish, whose sigmoid is given what it was given before
    (`activations.with_gates`: a product before it).
    Returns (bytes, frame), a row for each channel that was scaled: tensor, channel, factor. Raises InputError for an unusable or a
    quantized file; StructureError where no channel can be scaled.
    """
    file, plan, _ = opened(model)
    if capped or gated:
        file = activations.with_caps(file) if capped else file
        file = activations.with_gates(file) if gated else file
        plan = Plan(file)
    found = [each for each in tflite_scales.passages(plan) if each.making(plan, {})]
    if not found:
        raise StructureError(
            "model has no two layers of weights with only what lets a factor pass between them (ReLU, pooling, sums; ReLU6 with its "
            "cap, swish with a gate): there is nothing to equalize. Quantize it per-channel, or keep its sensitive layers in float."
        )
    exponents = [np.zeros(each.channels) for each in found]
    balance = _Alike(plan) if samples is None else tflite_noise.LeastNoise(plan, found, exponents, file, samples)
    operands, rows = {}, []
    for _ in range(balance.sweeps):
        largest = 0.0
        for passage, sum_of in zip(found, exponents, strict=True):
            step = balance.step(passage, sum_of, operands)
            operands = passage.moved(plan, operands, 2.0**step)
            sum_of += step
            largest = max(largest, np.abs(step).max())
        if largest < CONVERGED:
            break
    operands = {}
    for passage, each in zip(found, exponents, strict=True):
        factors = 2.0 ** np.rint(each - each.max())  # at most 1, so that no cap lies above a ReLU6's
        operands = passage.moved(plan, operands, factors)
        name = plan.names[passage.tensor]
        rows += [(name, int(at), float(factors[at])) for at in np.flatnonzero(factors != 1)]
    changed = activations.with_fused_caps(rewrite.with_operands(file, operands))
    return activations.without_gates(changed) if gated else changed, pd.DataFrame(rows, columns=COLUMNS)


class _Alike:
    """Ranges before and behind are made alike."""

    sweeps = SWEEPS

    def __init__(self, plan):
        self.plan = plan

    def step(self, passage, _, operands):
        """What to multiply channels by, as powers of 2: (channels,). operands: constants as scaled so far."""
        before, behind = (
            np.max([each / (each.max() or 1) for each in kernels], axis=0)
            for kernels in (passage.making(self.plan, operands), passage.reading(self.plan, operands))
        )
        carried = (before > DEAD) & (behind > DEAD)
        step = np.zeros(len(before))
        if carried.any():
            step[carried] = (np.log2(behind[carried]) - np.log2(before[carried])) / 2
            step[~carried] = np.median(step[carried])
        return step


class _Constant:
    """The channels of each tensor that are the same for all inputs. values: index of a tensor -> float (channels,), NaN for a channel
    that changes. highest: index -> the most that a channel can be, of those between 0 and a cap."""

    def __init__(self, plan):
        self.plan, self.operands, self.rows = plan, {}, []
        self.values, self.highest = {}, {}

    def read(self, number, node):
        """Take an operator into account: what it reads of these channels, and which it makes."""
        cut = _CUT.get(getattr(node.options, "fusedActivationFunction", schema.ActivationFunctionType.NONE))
        if node.kind in READERS and cut:
            made = self._of_layer(number, node, cut)
        elif node.kind in (*KEEPS, *MAKES) and cut and self._keeps_channels(node):
            made = self._kept(node, cut)
        elif node.kind in ("ADD", "MUL") and cut:
            made = self._of_two(node, cut)
        else:
            return
        if made is not None and np.isfinite(made).any():
            self.values[node.outputs[0]] = made

    def _kept(self, node, cut):
        source, made = node.inputs[0], node.outputs[0]
        if source in self.highest:  # all of MAKES leave what is between 0 and the cap there
            self.highest[made] = self.highest[source]
        found = self.values.get(source)
        if found is None:
            return None
        if node.kind == "PAD":  # with zeros
            return np.where(found == 0, 0, np.nan)
        return np.clip(MAKES[node.kind](found) if node.kind in MAKES else found, *cut)

    def _of_two(self, node, cut):
        """What a sum or a product makes, as swish is one, and a gate for each channel: zero where a factor is."""
        shapes = [self.plan.shapes[index] for index in (*node.inputs, *node.outputs)]
        if any(not shape or shape[-1] != shapes[-1][-1] for shape in shapes):
            return None
        one, other = (self.values.get(index, np.nan) for index in node.inputs)
        if node.kind == "ADD":
            return np.clip(one + other, *cut)
        return np.clip(np.where((one == 0) | (other == 0), 0, one * other), *cut)

    def _keeps_channels(self, node):
        shapes = [self.plan.shapes[index] for index in (node.inputs[0], node.outputs[0])]
        if any(len(shape) < 2 for shape in shapes) or shapes[0][-1] != shapes[1][-1]:
            return False
        axes = self.plan.constants.get(node.inputs[1]) if node.kind == "MEAN" else np.zeros(1)
        return axes is not None and len(shapes[0]) - 1 not in np.ravel(axes) % len(shapes[0])

    def _of_layer(self, number, node, cut):
        """What the channels of a layer are, after its weights are cleared."""
        kernel = self._constant(number, node, KERNEL_PLACE[node.kind])
        has_bias = BIAS_PLACE[node.kind] < len(node.inputs) and node.inputs[BIAS_PLACE[node.kind]] >= 0
        bias = self._constant(number, node, BIAS_PLACE[node.kind]) if has_bias else 0
        if kernel is None or bias is None:
            return None
        bias = np.broadcast_to(np.float32(bias), _by_output(node, kernel).shape[:1])
        source = self.values.get(node.inputs[0])
        if (
            source is not None and len(source) == kernel.shape[-1]
        ):  # not so of groups, nor where several are made of each
            kernel, bias = self._cleared(number, node, kernel, bias, source, has_bias)
        rows = _by_output(node, kernel)
        ranges = np.abs(rows).max(1)
        empty = (ranges == 0) | ((ranges <= DEAD * ranges.max()) & (bias < 0) & (cut[0] == 0))
        highest = self.highest.get(node.inputs[0])
        if cut[0] == 0 and highest is not None and len(highest) == kernel.shape[-1]:
            empty |= _by_output(node, np.maximum(kernel, 0) * highest).sum(1) + bias < 0
        if cut == (0, activations.CAP):
            self.highest[node.outputs[0]] = np.full(len(rows), float(activations.CAP))
        return np.where(empty, np.clip(bias, *cut), np.nan)

    def _constant(self, number, node, place):
        values = self.operands.get((number, place), self.plan.constants.get(node.inputs[place]))
        return values if values is not None and values.dtype == np.float32 else None

    def _cleared(self, number, node, kernel, bias, source, has_bias):
        """Kernel and bias that make the same of a channel without reading it."""
        anywhere = has_bias and _reads_alike(node, kernel)
        gone = ((source == 0) | (np.isfinite(source) & anywhere)) & kernel.reshape(-1, len(source)).any(0)
        if not gone.any():
            return kernel, bias
        self.rows += [(self.plan.names[node.inputs[0]], int(at), float(source[at])) for at in np.flatnonzero(gone)]
        constant = np.where(gone, source, 0).astype(np.float64)
        if constant.any():
            bias = (bias + _by_output(node, kernel * constant).sum(1)).astype(np.float32)
            self.operands[number, BIAS_PLACE[node.kind]] = bias
        kernel = np.where(gone, np.float32(0), kernel)
        self.operands[number, KERNEL_PLACE[node.kind]] = kernel
        return kernel, bias


def _by_output(node, kernel):
    """A kernel as (channels that it makes, weights of each)."""
    return (
        kernel.reshape(-1, kernel.shape[-1]).T if node.kind == "DEPTHWISE_CONV_2D" else kernel.reshape(len(kernel), -1)
    )


def _reads_alike(node, kernel):
    """Whether a layer reads the same number of places everywhere: at a border, padding takes some away."""
    whole = node.kind == "FULLY_CONNECTED" or kernel.shape[1:3] == (1, 1)
    return whole or node.options.padding == schema.Padding.VALID
