"""The article's claims: what each says, the numbers that decide it, and the rule. Nobody writes a verdict by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from helpers import results, verdicts
from helpers.stats import Estimate

SCHEMES = ("per_channel", "per_tensor", "int4")  # of quantization, in notebook 05


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


def ledger():
    """Every verdict on record, judged anew from the recorded numbers: a frame with claim, statement, notebook, profile,
    verdict, because; sorted by claim, the quick profile first. Raises ResultsError for damaged files."""
    rows = []
    for profile in results.profiles():
        for path in sorted((results.RECORDED / profile).glob("*.json")):
            content = results.read(path.stem, profile)
            judged = judge(content["numbers"], *content["verdicts"]).reset_index()
            rows.append(judged.assign(notebook=path.stem, profile=profile))
    columns = ["claim", "statement", "notebook", "profile", "verdict", "because"]
    return pd.concat(rows)[columns].sort_values("claim", kind="stable", ignore_index=True)


CLAIMS = {
    "C01": Claim(
        "Pruning an MLP gradually from 50% to 80% costs only 1-2 points of accuracy",
        ("delta_top1.pruned", "sparsity.kernel"),
        verdicts.polynomial_costs_little,
    ),
    "C02": Claim(
        "Going to 80% at once can break the model; a polynomial ramp is stabler than a linear or constant schedule",
        (
            "delta_top1.one_shot",
            "gain.polynomial_over_constant",
            "gain.polynomial_over_linear",
            "gain.polynomial_over_constant_hard",
        ),
        verdicts.ramp_is_stabler,
    ),
    "C03": Claim(
        "Without the UpdatePruningStep callback the masks are not updated",
        ("sparsity.without_callback", "raises.without_callback"),
        verdicts.no_callback_no_mask,
    ),
    "C04": Claim(
        "The pruned model converts to TFLite as it is",
        ("converts.wrapped", "agreement.wrapped", "size_ratio.wrapped", "latency_ratio.wrapped"),
        verdicts.converts_as_is,
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
        verdicts.storage_not_speed,
    ),
    "C06": Claim(
        "Structured (channel) pruning does bring speed on general CPUs",
        (
            "latency_ratio.mlp_l1_50",
            "latency_ratio.mlp_unstructured_50",
            "latency_ratio.mobilenetv2_pruned50",
            "macs.mobilenetv2_pruned50",
            "macs.mobilenetv2_dense",
        ),
        verdicts.channels_bring_speed,
    ),
    "C18": Claim(
        "ResNet-50 goes from 98 MB to 9.2 MB and gets 3.5x faster by 70% channel pruning, int8 and XNNPACK",
        (
            "size.resnet50_dense",
            "size.resnet50_pruned70_int8",
            "latency_ratio.resnet50_pruned70_int8",
            "latency_ratio.resnet50_pruned70_int8_over_xnnpack",
            "delta_top1.resnet8_pruned70_int8",
        ),
        verdicts.resnet50_as_claimed,
    ),
    "C21a": Claim(
        "TensorBoard curves of sparsity make debugging faster",
        ("schedule_gap.healthy", "schedule_gap.planted_bug", "delta_top1.planted_bug"),
        verdicts.curve_shows_the_bug,
    ),
    "C21b": Claim(
        "TensorBoard curves of quantization error make debugging faster",
        ("delta_top1.none", "delta_top1.named_by_log"),
        verdicts.error_curve_shows_the_layer,
    ),
    "C07": Claim(
        "int8 takes a quarter of float32's storage",
        ("size.float32", "size.int8", "size.mlp_float32", "size.mlp_int8"),
        verdicts.quarter_of_the_storage,
    ),
    "C08": Claim(
        "PTQ needs no training, about 100 calibration samples, and minutes",
        ("delta_top1.int8", "seconds.int8", "gain.largest_calibration"),
        verdicts.ptq_is_cheap,
    ),
    "C09a": Claim(
        "PTQ can cost more than 5 points of top-1 on models with a wide dynamic range",
        ("delta_top1.int8",),
        verdicts.ptq_can_break,
    ),
    "C09b": Claim(
        "PTQ with one scale for each kernel can cost more than 5 points of top-1 on models with a wide dynamic range",
        ("delta_top1.ptq_per_tensor", "delta_top1.ptq_per_channel"),
        verdicts.breaks_per_tensor,
    ),
    "C13": Claim(
        "Per-channel quantization keeps accuracy better than per-tensor",
        ("gain.per_channel_over_per_tensor", "gain.per_channel_over_equalized"),
        verdicts.per_channel_keeps_more,
    ),
    "C10": Claim(
        "QAT brings int8 MobileNetV2 level with float32",
        ("delta_top1.qat_int8", "gain.qat_over_float32_finetuned"),
        verdicts.qat_is_level,
    ),
    "C11": Claim(
        "int8 MobileNetV2 runs nearly 3x faster than float32 (said of ARM CPUs)",
        ("latency_ratio.int8", "machine.arm"),
        verdicts.three_times_on_arm,
    ),
    "C12": Claim(
        "A few QAT epochs at a tenth of the original learning rate recover at least 98% of the original accuracy",
        ("recovered.rate_0.1", "recovered.rate_1", "recovered.rate_0.01"),
        verdicts.recovers,
    ),
    "C14": Claim(
        "The first convolution and the last classifier are the layers most sensitive to quantization",
        (
            "sensitivity.layers",
            *(f"sensitivity.rank.{end}.{scheme}" for end in ("first_conv", "classifier") for scheme in SCHEMES),
        ),
        verdicts.ends_are_most_sensitive,
    ),
    "C15": Claim(
        "Keeping the first layer's weights in float, with int8 activations around it, protects accuracy",
        (*(f"gain.first_float_{scheme}" for scheme in SCHEMES), "gain.qat_first_last_float"),
        verdicts.first_in_float_protects,
    ),
    "C16": Claim(
        "Freezing the first and last layers during QAT avoids disturbing them",
        ("moves.trainable_false", "gain.qat_first_last_frozen", "gain.qat_first_last_slow"),
        verdicts.freezing_protects,
    ),
    "C17": Claim(
        "float16 is the better choice for GPUs, since it avoids integer conversions",
        ("size_ratio.float16", "delta_top1.float16"),
        verdicts.half_for_gpus,
    ),
    "C19": Claim(
        "An automatic gate (accuracy, conversion, latency and memory) can stand in continuous integration",
        (
            "gate.final.decision",
            "gate.int8_on_100.decision",
            "gate.cut_in_half.decision",
            "gate.damaged.decision",
            "gate.one_class_lost.decision",
            "fuzz.gate_failures",
            "gate.seconds",
        ),
        verdicts.gate_can_stand_in_ci,
    ),
    "C20": Claim(
        "'Quantization always loses accuracy' is a misconception",
        ("delta_top1.float16", "delta_top1.int8", "delta_top1.qat_int8"),
        verdicts.not_always_a_loss,
    ),
    "C22b": Claim(
        "The article's QAT code, typed in as printed, does what its text says",
        ("gain.printed_loss",),
        verdicts.printed_loss_works,
    ),
    "C22a": Claim(
        "The article's pruning code, typed in as printed, does what its text says",
        ("raises.printed_cast",),
        verdicts.printed_code_runs,
    ),
}
