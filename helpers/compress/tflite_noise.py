"""Which factors of channels leave least noise when kernels and activations have one scale each: `LeastNoise`.

A tensor whose channel j is multiplied by f_j is rounded in three places: in the kernels that make it, in itself, and in the kernels
that read it. Rounding in steps of d adds d^2 / 12 to the mean square of each number, and a step is what the largest channel makes it.
Seen where the tensor is read, as a share of what is made there, by weights whose squares sum to W_j, c_j of them, where the channel
carries the power y_j:

    kernels that make it    sum_j W_j / f_j^2 P_j * max_j(f_j m_j)^2      P: power of what goes into such a weight, m: its range
    itself                  sum_j W_j / f_j^2     * max_j(f_j a_j)^2      a: its range
    kernels that read it    sum_j c_j f_j^2 y_j   * max_j(r_j / f_j)^2    r: their range

Equalization (Nagel et al. 2019, equation 11) makes f m and r / f alike, and forgets the tensor between, whose small channels then get
few steps. Here the sum is made small; the maxima are taken as norms of order SHARP, so that it has derivatives. Squares and counts
are weighed by how much of an error arrives further on, told by the squares of the weights behind.
"""

from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.compress import tflite_layout, tflite_scales
from helpers.compress.tflite_operators import KERNEL_PLACE
from helpers.tflite import inside

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

SHARP = 10
STEPS_OF_KERNELS = 254  # over twice the largest weight
STEPS_OF_TENSORS = 255  # over all values
MOST = 10  # powers of 2, up and down
ROUNDS = 80
SWEEPS, GAINS, TINY = 4, 3, 1e-30
HELD = 1e-4  # pulls what nothing decides to a factor of 1


@dataclass(frozen=True)
class Term:
    """sum_j weights_j f_j^(-2 side) * max_j(ranges_j f_j^side)^2, both (channels,)."""

    weights: np.ndarray
    ranges: np.ndarray
    side: int

    def value(self, logs):
        """It, and its derivative by the logarithms of the factors."""
        scaled = self.ranges * np.exp(self.side * logs)
        top = scaled.max()
        if not top > 0:
            return 0.0, np.zeros(len(logs))
        powers = (scaled / top) ** SHARP
        square = (top * powers.sum() ** (1 / SHARP)) ** 2
        parts = self.weights * np.exp(-2 * self.side * logs)
        whole = parts.sum()
        return whole * square, 2 * self.side * square * (whole * powers / powers.sum() - parts)


def least(terms, channels):
    """The logarithms (base 2) of the factors that make a sum of Terms small: float (channels,). All start at 0.

    Descent with a step for each channel, which grows while the sign of its derivative stays (Riedmiller & Braun 1993, *RPROP*); the
    logarithm of the sum has one minimum. For MobileNetV2 18 times as fast as scipy's L-BFGS-B.
    """
    logs, steps, former = np.zeros(channels), np.full(channels, 0.5), np.zeros(channels)
    for _ in range(ROUNDS):
        values, slopes = zip(*(term.value(logs) for term in terms), strict=True)
        total = sum(values)
        if not total > 0:
            return logs
        slope = sum(slopes) / total + 2 * HELD * logs
        turned = slope * former < 0
        steps = np.clip(np.where(turned, steps / 2, steps * 1.2), 1e-4, 1)
        former = np.where(turned, 0, slope)
        logs = logs - np.sign(former) * steps
    return np.clip(logs / np.log(2), -MOST, MOST)


class LeastNoise:
    """The factors of a file's passages that leave least noise, as some samples show it, one passage after another.

    found: Passages of a plan. exponents: for each of them what its channels have been multiplied by, as powers of 2, (channels,); whoever
    takes a step adds it there. file: of the plan. samples: (n, ...), or name of an input -> such an array.
    """

    sweeps = SWEEPS

    def __init__(self, plan, found, exponents, file, samples):
        self.plan = plan
        self.largest = inside.maxima_by_index(file, samples)
        self.powers = inside.powers_by_index(file, samples)
        # Number of an operator -> what is done to the channels that it reads, or makes.
        self.upstream, self.downstream = {}, {}
        for place, passage in enumerate(found):
            self.upstream |= {number: exponents[place] for number, _ in passage.read}
            self.downstream |= {number: place for number, _ in passage.made}
        self.exponents = exponents
        self.gains = [np.ones(each.channels) for each in found]
        for _ in range(GAINS):
            for place in reversed(range(len(found))):
                self.gains[place] = self._gain(found[place])

    def _gain(self, passage):
        """How much of the power of an error in a channel arrives in what reads it, and further on: (channels,), 1 on average."""
        total = np.zeros(passage.channels)
        power = self._power(passage)
        for number, kernel in passage.kernels_reading(self.plan, {}):
            arriving, _ = self._arriving(passage, number, kernel)
            total += arriving / max(float(arriving @ power), TINY)
        return total / (total.mean() or 1)

    def _power(self, passage):
        return self.powers[passage.tensor].reshape(-1, passage.channels).mean(0)

    def _arriving(self, passage, number, kernel):
        """Of a kernel that reads a passage: for each channel the sum of its squared weights, and how many there are, both in
        proportion to what an error in the number that a weight contributes to means."""
        node, place = self.plan.nodes[number], self.downstream.get(number)
        counts = np.ones_like(kernel, dtype=np.float64)
        if place is not None:
            gains = self.gains[place] * 4.0 ** -self.exponents[place]
            counts = counts * tflite_layout.spread(node, KERNEL_PLACE[node.kind], kernel.shape, gains, False)
        at = KERNEL_PLACE.get(node.kind, 1)
        return tuple(
            tflite_layout.summed(node, at, each, passage.channels)
            for each in (counts * kernel.astype(float) ** 2, counts)
        )

    def step(self, passage, sum_of, operands):
        """What to multiply the channels of a passage by, as powers of 2: (channels,). sum_of: what they were multiplied by so far;
        operands: constants as scaled by that."""
        plan, channels = self.plan, passage.channels
        range_of = self.largest[passage.tensor].reshape(-1, channels).max(0) * 2.0**sum_of
        power = self._power(passage) * 4.0**sum_of
        sides = 1 if self._is_positive(passage.tensor) else 2
        arriving, terms = np.zeros(channels), []
        for number, kernel in passage.kernels_reading(plan, operands):
            squares, many = self._arriving(passage, number, kernel)
            node, answers = plan.nodes[number], max(float(squares @ power), TINY)
            ranges = tflite_layout.largest(node, KERNEL_PLACE.get(node.kind, 1), np.abs(kernel), channels)
            terms.append(Term(power * many / answers, ranges * 2 / STEPS_OF_KERNELS, -1))
            arriving += squares / answers
        terms.append(Term(arriving, range_of * sides / STEPS_OF_TENSORS, 1))
        for number, kernel in passage.kernels_making(plan, operands):
            node, received = plan.nodes[number], self._received(number, channels)
            ranges = tflite_layout.largest(node, KERNEL_PLACE[node.kind], np.abs(kernel), channels, False)
            terms.append(Term(arriving * received, ranges * 2 / STEPS_OF_KERNELS, 1))
        return least(terms, channels)

    def _received(self, number, channels):
        """The power of all that goes into one number of each channel that a layer makes: (channels,) or a number."""
        node = self.plan.nodes[number]
        kernel = self.plan.constants[node.inputs[KERNEL_PLACE[node.kind]]]
        source = node.inputs[tflite_scales.DATA_PLACE[node.kind]]
        power = self.powers[source]
        moved = self.upstream.get(number)
        if moved is not None and len(power) % len(moved) == 0:
            power = power * np.tile(4.0**moved, len(power) // len(moved))
        if node.kind == "DEPTHWISE_CONV_2D":
            each = np.repeat(power, kernel.shape[-1] // len(power)) * np.prod(kernel.shape[1:3])
            return each.reshape(-1, channels).mean(0)
        return float(power.mean() * np.prod(kernel.shape[1:]))

    def _is_positive(self, index):
        for node in self.plan.nodes:
            if index in node.outputs:
                fused = getattr(node.options, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
                return node.kind in ("RELU", "RELU6", "MINIMUM") or fused in (
                    schema.ActivationFunctionType.RELU,
                    schema.ActivationFunctionType.RELU6,
                )
        return False
