"""The article's claims: what each says, the numbers that decide it, and the rule. Nobody writes a verdict by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from helpers.stats import Estimate

CONFIRMED, REFUTED, DEPENDS, NOT_TESTABLE = "confirmed", "refuted", "depends", "not testable here"


class ClaimError(KeyError):
    """A claim is unknown, or a number that it needs was not measured."""


@dataclass(frozen=True)
class Claim:
    """A statement, the names of the numbers that it needs, and the rule: Estimates, in that order -> (verdict, because)."""

    statement: str
    needs: tuple[str, ...]
    rule: Callable[..., tuple[str, str]]


def judge(numbers, *names):
    """The verdicts on some claims: frame indexed by claim with statement, verdict, because.

    numbers: name -> Estimate, or float for what is exact. Raises ClaimError for an unknown claim or a missing number.
    """
    rows = []
    for name in names:
        if name not in CLAIMS:
            raise ClaimError(f"claim={name!r} is unknown: there are {', '.join(CLAIMS)}.")
        claim = CLAIMS[name]
        missing = [need for need in claim.needs if need not in numbers]
        if missing:
            raise ClaimError(f"claim {name} needs the numbers {', '.join(missing)}, which were not measured.")
        given = [numbers[need] for need in claim.needs]
        verdict, because = claim.rule(*(n if isinstance(n, Estimate) else Estimate(*[float(n)] * 3) for n in given))
        rows.append({"claim": name, "statement": claim.statement, "verdict": verdict, "because": because})
    return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "because"]).set_index("claim")


def _polynomial_costs_little(delta, sparsity):
    because = f"{sparsity.value:.0%} sparsity costs {-100 * delta.value:.1f} points (95% interval {-100 * delta.high:.1f} to {-100 * delta.low:.1f})"
    if abs(sparsity.value - 0.8) > 0.01:
        return NOT_TESTABLE, f"{because}; the claim speaks of 80%"
    if delta.low >= -0.02:
        return CONFIRMED, f"{because}, at most the 2 points claimed"
    if delta.high < -0.02:
        return REFUTED, f"{because}, more than the 2 points claimed"
    return DEPENDS, f"{because}, too wide to decide: judge on more test images"


def _ramp_is_stabler(at_once, over_constant, over_linear, hard_over_constant):
    broken = at_once.high < -0.05
    better = [gain.low > 0 for gain in (over_constant, over_linear, hard_over_constant)]
    because = (
        f"at once and without training it costs {-100 * at_once.value:.0f} points; with the same training, the polynomial ramp "
        f"gains {100 * over_constant.value:.1f} points over the constant schedule, {100 * over_linear.value:.1f} over the linear "
        f"ramp, and {100 * hard_over_constant.value:.1f} over the constant one at the harder target"
    )
    if broken and all(better):
        return CONFIRMED, because
    if not broken and not any(better):
        return REFUTED, because
    if hard_over_constant.high < 0:
        return DEPENDS, f"{because}: with these few steps the ramp has too little time left after its end"
    return DEPENDS, because if any(better) else f"{because}: training decides, not the ramp"


def _no_callback_no_mask(sparsity, raises):
    if sparsity.value > 0:
        return REFUTED, f"without the callback the kernels still reached {sparsity.value:.0%} zeros"
    how = "fit() stops with an error that names the callback" if raises.value else "training goes on without a word"
    return CONFIRMED, f"no mask was updated; {how}"


def _converts_as_is(loads, agreement, size_ratio, latency_ratio):
    if not loads.value:
        return REFUTED, "the wrapped model does not convert"
    because = f"it converts, and {agreement.value:.0%} of its answers equal the stripped model's"
    faults = [f"its file is {size_ratio.value:.1f} times as large"] * (size_ratio.value > 1.1)
    faults += ["it is slower"] * (latency_ratio.high < 0.9)
    faults += ["its answers differ"] * (agreement.value < 0.99)
    return (
        (DEPENDS, f"{because}, but {' and '.join(faults)}: call strip_pruning first")
        if faults
        else (CONFIRMED, because)
    )


def _storage_not_speed(raw, dense_gzip, pruned_gzip, latency_ratio, block_ratio):
    shrinks = dense_gzip.value / pruned_gzip.value
    because = f"gzip shrinks it {shrinks:.1f} times; on disk it is {raw.value:.2f} times the dense file"
    if latency_ratio.low > 1.2:
        return REFUTED, f"{because}, and it runs faster"
    if shrinks >= 2 and latency_ratio.low > 0.8 and latency_ratio.high < 1.2:
        blocks = "; of the kinds of zeros, only blocks of 16 run faster" if block_ratio.low > 1.2 else ""
        return CONFIRMED, f"{because}, and its latency is that of the dense model{blocks}"
    return DEPENDS, because


def _curve_shows_the_bug(healthy_gap, planted_gap, planted_delta):
    because = (
        f"the logged curve ends within {100 * healthy_gap.value:.0f} points of its target; with a wrong end_step it ends "
        f"{100 * planted_gap.value:.0f} points short, while accuracy looks fine ({100 * planted_delta.value:+.1f} points)"
    )
    if healthy_gap.value < 0.05 < planted_gap.value and planted_delta.low > -0.02:
        return CONFIRMED, f"{because}; that people debug faster was not measured"
    return DEPENDS, because


def _printed_code_runs(cast_raises):
    if cast_raises.value:
        return REFUTED, "x.astype(float32), as printed, stops with a NameError; with quotes it runs"
    return CONFIRMED, "the casts run as printed"


def _quarter_of_the_storage(large_float, large_int8, small_float, small_int8):
    ratios = [large_int8.value / large_float.value, small_int8.value / small_float.value]
    because = f"int8 takes {ratios[0]:.2f} of float32's bytes for MobileNetV2, {ratios[1]:.2f} for the MLP"
    if max(ratios) <= 0.27:
        return CONFIRMED, because
    if min(ratios) > 0.3:
        return REFUTED, because
    return DEPENDS, f"{because}: a small model with many channels spends the rest on scales and names"


def _ptq_is_cheap(delta, seconds, more_calibration):
    because = (
        f"PTQ with this calibration set costs {-100 * delta.value:.1f} points (95% interval {-100 * delta.high:.1f} to "
        f"{-100 * delta.low:.1f}) without training; the largest set is {100 * more_calibration.value:+.1f} points away"
    )
    if seconds.value > 600 or delta.high < -0.02:
        return REFUTED, because
    if delta.low >= -0.02 and abs(more_calibration.value) <= 0.01:
        return CONFIRMED, because
    return DEPENDS, because


def _ptq_can_break(delta):
    because = f"per-channel int8 PTQ costs {-100 * delta.value:.1f} points here"
    if delta.high < -0.05:
        return CONFIRMED, because
    return DEPENDS, f"{because}, since every channel has its own scale; notebook 04 shows what happens without"


def _breaks_per_tensor(per_tensor, per_channel):
    because = (
        f"with one scale for each kernel int8 PTQ costs {-100 * per_tensor.value:.1f} points, with one for each channel "
        f"{-100 * per_channel.value:.1f}"
    )
    if per_tensor.high < -0.05:
        return CONFIRMED, because
    return (REFUTED if per_tensor.low >= -0.05 else DEPENDS), because


def _per_channel_keeps_more(gain, after_cure):
    because = (
        f"per-channel int8 PTQ minus per-tensor: {100 * gain.value:+.1f} points (95% interval {100 * gain.low:+.1f} to "
        f"{100 * gain.high:+.1f}); once dead channels are cleared, ranges equalized and biases corrected, the lead is "
        f"{100 * after_cure.value:+.1f} ({100 * after_cure.low:+.1f} to {100 * after_cure.high:+.1f})"
    )
    if gain.low > 0:
        return CONFIRMED, because
    return (REFUTED if gain.high < 0 else DEPENDS), because


def _qat_is_level(to_float, to_trained_on):
    because = (
        f"QAT int8 minus float32: {100 * to_float.value:+.1f} points (95% interval {100 * to_float.low:+.1f} to "
        f"{100 * to_float.high:+.1f}); minus float32 trained on for the same steps: {100 * to_trained_on.value:+.1f}"
    )
    if min(to_float.low, to_trained_on.low) >= -0.01:
        return CONFIRMED, because
    if max(to_float.high, to_trained_on.high) < -0.01:
        return REFUTED, because
    return DEPENDS, because


def _three_times_on_arm(ratio, on_arm):
    if not on_arm.value:
        return NOT_TESTABLE, "this is no ARM processor; running this notebook on one decides it"
    if ratio.low >= 2.5:
        return CONFIRMED, "int8 is at least 2.5 times as fast here"
    if ratio.high < 2.5:
        return REFUTED, "int8 is less than 2.5 times as fast here"
    return DEPENDS, "the interval of the ratio holds 2.5: time more rounds"


def _recovers(recovered, full_rate, hundredth):
    because = (
        f"from calibrated ranges, a tenth of the rate ends at {recovered.value:.1%} of float32's accuracy, the full rate at "
        f"{full_rate.value:.1%}, a hundredth at {hundredth.value:.1%}"
    )
    if recovered.low >= 0.98:
        return CONFIRMED, because
    return (REFUTED if recovered.high < 0.98 else DEPENDS), because


def _half_for_gpus(size_ratio, delta):
    return NOT_TESTABLE, (
        f"no GPU here; float16 halves the file ({size_ratio.value:.2f}) at {100 * delta.value:+.1f} points; a GPU delegate "
        "timing it against int8 decides it"
    )


def _not_always_a_loss(half, eight, trained):
    named = {"float16": half, "int8": eight, "QAT int8": trained}
    because = ", ".join(f"{name} {100 * delta.value:+.1f}" for name, delta in named.items()) + " points"
    best = max(named, key=lambda name: named[name].low)
    if named[best].low >= -0.005:
        return CONFIRMED, f"{because}; whatever {best} loses is less than half a point"
    if max(delta.high for delta in named.values()) < 0:
        return REFUTED, because
    return DEPENDS, f"{because}; the intervals are too wide to exclude a loss"


def _printed_loss_works(lost):
    because = f"the printed loss costs {-100 * lost.value:.1f} points against the same training with from_logits=True"
    if lost.high < -0.01:
        return REFUTED, f"{because}: it takes logits for probabilities"
    return (CONFIRMED if lost.low > -0.01 else DEPENDS), because


CLAIMS = {
    "C01": Claim(
        "Pruning an MLP gradually from 50% to 80% costs only 1-2 points of accuracy",
        ("delta_top1.pruned", "sparsity.kernel"),
        _polynomial_costs_little,
    ),
    "C02": Claim(
        "Going to 80% at once can break the model; a polynomial ramp is stabler than a linear or constant schedule",
        (
            "delta_top1.one_shot",
            "gain.polynomial_over_constant",
            "gain.polynomial_over_linear",
            "gain.polynomial_over_constant_hard",
        ),
        _ramp_is_stabler,
    ),
    "C03": Claim(
        "Without the UpdatePruningStep callback the masks are not updated",
        ("sparsity.without_callback", "raises.without_callback"),
        _no_callback_no_mask,
    ),
    "C04": Claim(
        "The pruned model converts to TFLite as it is",
        ("converts.wrapped", "agreement.wrapped", "size_ratio.wrapped", "latency_ratio.wrapped"),
        _converts_as_is,
    ),
    "C05": Claim(
        "Unstructured sparsity compresses well but brings no speed on general CPUs",
        (
            "size_ratio.pruned",
            "size.float32_gzip",
            "size.pruned_gzip",
            "latency_ratio.pruned",
            "latency_ratio.pruned_blocks",
        ),
        _storage_not_speed,
    ),
    "C21a": Claim(
        "TensorBoard curves of sparsity make debugging faster",
        ("schedule_gap.healthy", "schedule_gap.planted_bug", "delta_top1.planted_bug"),
        _curve_shows_the_bug,
    ),
    "C07": Claim(
        "int8 takes a quarter of float32's storage",
        ("size.float32", "size.int8", "size.mlp_float32", "size.mlp_int8"),
        _quarter_of_the_storage,
    ),
    "C08": Claim(
        "PTQ needs no training, about 100 calibration samples, and minutes",
        ("delta_top1.int8", "seconds.int8", "gain.largest_calibration"),
        _ptq_is_cheap,
    ),
    "C09a": Claim(
        "PTQ can cost more than 5 points of top-1 on models with a wide dynamic range",
        ("delta_top1.int8",),
        _ptq_can_break,
    ),
    "C09b": Claim(
        "PTQ with one scale for each kernel can cost more than 5 points of top-1 on models with a wide dynamic range",
        ("delta_top1.ptq_per_tensor", "delta_top1.ptq_per_channel"),
        _breaks_per_tensor,
    ),
    "C13": Claim(
        "Per-channel quantization keeps accuracy better than per-tensor",
        ("gain.per_channel_over_per_tensor", "gain.per_channel_over_equalized"),
        _per_channel_keeps_more,
    ),
    "C10": Claim(
        "QAT brings int8 MobileNetV2 level with float32",
        ("delta_top1.qat_int8", "gain.qat_over_float32_finetuned"),
        _qat_is_level,
    ),
    "C11": Claim(
        "int8 MobileNetV2 runs nearly 3x faster than float32 (said of ARM CPUs)",
        ("latency_ratio.int8", "machine.arm"),
        _three_times_on_arm,
    ),
    "C12": Claim(
        "A few QAT epochs at a tenth of the original learning rate recover at least 98% of the original accuracy",
        ("recovered.rate_0.1", "recovered.rate_1", "recovered.rate_0.01"),
        _recovers,
    ),
    "C17": Claim(
        "float16 is the better choice for GPUs, since it avoids integer conversions",
        ("size_ratio.float16", "delta_top1.float16"),
        _half_for_gpus,
    ),
    "C20": Claim(
        "'Quantization always loses accuracy' is a misconception",
        ("delta_top1.float16", "delta_top1.int8", "delta_top1.qat_int8"),
        _not_always_a_loss,
    ),
    "C22b": Claim(
        "The article's QAT code, typed in as printed, does what its text says",
        ("gain.printed_loss",),
        _printed_loss_works,
    ),
    "C22a": Claim(
        "The article's pruning code, typed in as printed, does what its text says",
        ("raises.printed_cast",),
        _printed_code_runs,
    ),
}
