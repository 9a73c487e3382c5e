"""The article's claims, each in one place: what it says, the numbers that decide it, and the rule.

A rule takes the Estimates of these numbers, in their order, and gives (verdict, because). It compares intervals, not
values: what the interval leaves open is DEPENDS. The claims stand in the order of the notebooks that decide them.
"""

from helpers.evidence.verdicts import CONFIRMED, DEPENDS, NOT_TESTABLE, REFUTED, claim

SCHEMES = ("per_channel", "per_tensor", "int4")  # of quantization, in notebook 05


@claim(
    "C01",
    "Pruning an MLP gradually from 50% to 80% costs only 1-2 points of accuracy",
    ("delta_top1.pruned", "sparsity.kernel"),
)
def polynomial_costs_little(delta, sparsity):
    because = f"{sparsity.value:.0%} sparsity costs {-100 * delta.value:.1f} points (95% interval {-100 * delta.high:.1f} to {-100 * delta.low:.1f})"
    if abs(sparsity.value - 0.8) > 0.01:
        return NOT_TESTABLE, f"{because}; the claim speaks of 80%"
    if delta.low >= -0.02:
        return CONFIRMED, f"{because}, at most the 2 points claimed"
    if delta.high < -0.02:
        return REFUTED, f"{because}, more than the 2 points claimed"
    return DEPENDS, f"{because}, too wide to decide: judge on more test images"


@claim(
    "C02",
    "Going to 80% at once can break the model; a polynomial ramp is stabler than a linear or constant schedule",
    (
        "delta_top1.one_shot",
        "gain.polynomial_over_constant",
        "gain.polynomial_over_linear",
        "gain.polynomial_over_constant_hard",
    ),
)
def ramp_is_stabler(at_once, over_constant, over_linear, hard_over_constant):
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


@claim(
    "C03",
    "Without the UpdatePruningStep callback the masks are not updated",
    ("sparsity.without_callback", "raises.without_callback"),
)
def no_callback_no_mask(sparsity, raises):
    if sparsity.value > 0:
        return REFUTED, f"without the callback the kernels still reached {sparsity.value:.0%} zeros"
    how = "fit() stops with an error that names the callback" if raises.value else "training goes on without a word"
    return CONFIRMED, f"no mask was updated; {how}"


@claim(
    "C04",
    "The pruned model converts to TFLite as it is",
    ("converts.wrapped", "agreement.wrapped", "size_ratio.wrapped", "latency_ratio.wrapped"),
)
def converts_as_is(loads, agreement, size_ratio, latency_ratio):
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


@claim(
    "C05",
    "Unstructured sparsity compresses well but brings no speed on general CPUs",
    (
        "size_ratio.pruned",
        "size.float32_gzip",
        "size.pruned_gzip",
        "latency_ratio.pruned",
        "latency_ratio.pruned_blocks",
    ),
)
def storage_not_speed(raw, dense_gzip, pruned_gzip, latency_ratio, block_ratio):
    shrinks = dense_gzip.value / pruned_gzip.value
    because = f"gzip shrinks it {shrinks:.1f} times; on disk it is {raw.value:.2f} times the dense file"
    if latency_ratio.low > 1.2:
        return REFUTED, f"{because}, and it runs faster"
    if shrinks >= 2 and latency_ratio.low > 0.8 and latency_ratio.high < 1.2:
        blocks = "; of the kinds of zeros, only whole blocks run faster" if block_ratio.low > 1.2 else ""
        return CONFIRMED, f"{because}, and its latency is that of the dense model{blocks}"
    return DEPENDS, because


@claim(
    "C21a",
    "TensorBoard curves of sparsity make debugging faster",
    ("schedule_gap.healthy", "schedule_gap.planted_bug", "delta_top1.planted_bug"),
)
def curve_shows_the_bug(healthy_gap, planted_gap, planted_delta):
    because = (
        f"the logged curve ends within {100 * healthy_gap.value:.0f} points of its target; with a wrong end_step it ends "
        f"{100 * planted_gap.value:.0f} points short, while accuracy looks fine ({100 * planted_delta.value:+.1f} points)"
    )
    if healthy_gap.value < 0.05 < planted_gap.value and planted_delta.low > -0.02:
        return CONFIRMED, f"{because}; that people debug faster was not measured"
    return DEPENDS, because


@claim(
    "C22a",
    "The article's pruning code, typed in as printed, does what its text says",
    ("raises.printed_cast",),
)
def printed_code_runs(cast_raises):
    if cast_raises.value:
        return REFUTED, "x.astype(float32), as printed, stops with a NameError; with quotes it runs"
    return CONFIRMED, "the casts run as printed"


@claim(
    "C07",
    "int8 takes a quarter of float32's storage",
    ("size.float32", "size.int8", "size.mlp_float32", "size.mlp_int8"),
)
def quarter_of_the_storage(large_float, large_int8, small_float, small_int8):
    ratios = [large_int8.value / large_float.value, small_int8.value / small_float.value]
    because = f"int8 takes {ratios[0]:.2f} of float32's bytes for MobileNetV2, {ratios[1]:.2f} for the MLP"
    if max(ratios) <= 0.27:
        return CONFIRMED, because
    if min(ratios) > 0.3:
        return REFUTED, because
    return DEPENDS, f"{because}: a small model with many channels spends the rest on scales and names"


@claim(
    "C08",
    "PTQ needs no training, about 100 calibration samples, and minutes",
    ("delta_top1.int8", "seconds.int8", "gain.largest_calibration"),
)
def ptq_is_cheap(delta, seconds, more_calibration):
    because = (
        f"PTQ with this calibration set costs {-100 * delta.value:.1f} points (95% interval {-100 * delta.high:.1f} to "
        f"{-100 * delta.low:.1f}) without training; the largest set is {100 * more_calibration.value:+.1f} points away"
    )
    if seconds.value > 600 or delta.high < -0.02:
        return REFUTED, because
    if delta.low >= -0.02 and abs(more_calibration.value) <= 0.01:
        return CONFIRMED, because
    return DEPENDS, because


@claim(
    "C09a",
    "PTQ can cost more than 5 points of top-1 on models with a wide dynamic range",
    ("delta_top1.int8",),
)
def ptq_can_break(delta):
    because = f"per-channel int8 PTQ costs {-100 * delta.value:.1f} points here"
    if delta.high < -0.05:
        return CONFIRMED, because
    return DEPENDS, f"{because}, since every channel has its own scale; notebook 04 shows what happens without"


@claim(
    "C09b",
    "PTQ with one scale for each kernel can cost more than 5 points of top-1 on models with a wide dynamic range",
    ("delta_top1.ptq_per_tensor", "delta_top1.ptq_per_channel"),
)
def breaks_per_tensor(per_tensor, per_channel):
    because = (
        f"with one scale for each kernel int8 PTQ costs {-100 * per_tensor.value:.1f} points, with one for each channel "
        f"{-100 * per_channel.value:.1f}"
    )
    if per_tensor.high < -0.05:
        return CONFIRMED, because
    return (REFUTED if per_tensor.low >= -0.05 else DEPENDS), because


@claim(
    "C13",
    "Per-channel quantization keeps accuracy better than per-tensor",
    ("gain.per_channel_over_per_tensor", "gain.per_channel_over_equalized"),
)
def per_channel_keeps_more(gain, after_cure):
    because = (
        f"per-channel int8 PTQ minus per-tensor: {100 * gain.value:+.1f} points (95% interval {100 * gain.low:+.1f} to "
        f"{100 * gain.high:+.1f}); once dead channels are cleared, ranges equalized and biases corrected, the lead is "
        f"{100 * after_cure.value:+.1f} ({100 * after_cure.low:+.1f} to {100 * after_cure.high:+.1f})"
    )
    if gain.low > 0:
        return CONFIRMED, because
    return (REFUTED if gain.high < 0 else DEPENDS), because


@claim(
    "C10",
    "QAT brings int8 MobileNetV2 level with float32",
    ("delta_top1.qat_int8", "gain.qat_over_float32_finetuned"),
)
def qat_is_level(to_float, to_trained_on):
    because = (
        f"QAT int8 minus float32: {100 * to_float.value:+.1f} points (95% interval {100 * to_float.low:+.1f} to "
        f"{100 * to_float.high:+.1f}); minus float32 trained on for the same steps: {100 * to_trained_on.value:+.1f}"
    )
    if min(to_float.low, to_trained_on.low) >= -0.01:
        return CONFIRMED, because
    if max(to_float.high, to_trained_on.high) < -0.01:
        return REFUTED, because
    return DEPENDS, because


@claim(
    "C11",
    "int8 MobileNetV2 runs nearly 3x faster than float32 (said of ARM CPUs)",
    ("latency_ratio.int8", "machine.arm"),
)
def three_times_on_arm(ratio, on_arm):
    if not on_arm.value:
        return NOT_TESTABLE, "this is no ARM processor; running this notebook on one decides it"
    if ratio.low >= 2.5:
        return CONFIRMED, "int8 is at least 2.5 times as fast here"
    if ratio.high < 2.5:
        return REFUTED, "int8 is less than 2.5 times as fast here"
    return DEPENDS, "the interval of the ratio holds 2.5: time more rounds"


@claim(
    "C12",
    "A few QAT epochs at a tenth of the original learning rate recover at least 98% of the original accuracy",
    ("recovered.rate_0.1", "recovered.rate_1", "recovered.rate_0.01"),
)
def recovers(recovered, full_rate, hundredth):
    because = (
        f"from calibrated ranges, a tenth of the rate ends at {recovered.value:.1%} of float32's accuracy, the full rate at "
        f"{full_rate.value:.1%}, a hundredth at {hundredth.value:.1%}"
    )
    if recovered.low >= 0.98:
        return CONFIRMED, because
    return (REFUTED if recovered.high < 0.98 else DEPENDS), because


@claim(
    "C17",
    "float16 is the better choice for GPUs, since it avoids integer conversions",
    ("size_ratio.float16", "delta_top1.float16"),
)
def half_for_gpus(size_ratio, delta):
    return NOT_TESTABLE, (
        f"no GPU here; float16 halves the file ({size_ratio.value:.2f}) at {100 * delta.value:+.1f} points; a GPU delegate "
        "timing it against int8 decides it"
    )


@claim(
    "C20",
    "'Quantization always loses accuracy' is a misconception",
    ("delta_top1.float16", "delta_top1.int8", "delta_top1.qat_int8"),
)
def not_always_a_loss(half, eight, trained):
    named = {"float16": half, "int8": eight, "QAT int8": trained}
    because = ", ".join(f"{name} {100 * delta.value:+.1f}" for name, delta in named.items()) + " points"
    best = max(named, key=lambda name: named[name].low)
    if named[best].low >= -0.005:
        return CONFIRMED, f"{because}; whatever {best} loses is less than half a point"
    if max(delta.high for delta in named.values()) < 0:
        return REFUTED, because
    return DEPENDS, f"{because}; the intervals are too wide to exclude a loss"


@claim(
    "C22b",
    "The article's QAT code, typed in as printed, does what its text says",
    ("gain.printed_loss",),
)
def printed_loss_works(lost):
    because = f"the printed loss costs {-100 * lost.value:.1f} points against the same training with from_logits=True"
    if lost.high < -0.01:
        return REFUTED, f"{because}: it takes logits for probabilities"
    return (CONFIRMED if lost.low > -0.01 else DEPENDS), because


@claim(
    "C06",
    "Structured (channel) pruning does bring speed on general CPUs",
    (
        "latency_ratio.mlp_l1_50",
        "latency_ratio.mlp_unstructured_50",
        "latency_ratio.mobilenetv2_pruned50",
        "macs.mobilenetv2_pruned50",
        "macs.mobilenetv2_dense",
    ),
)
def channels_bring_speed(mlp, mlp_zeros, halved, macs, dense_macs):
    because = (
        f"with half of its expansion channels ({macs.value / dense_macs.value:.0%} of the multiply-accumulates) MobileNetV2 runs "
        f"{halved.value:.2f} times as fast (95% interval {halved.low:.2f} to {halved.high:.2f}); the MLP with half of its neurons "
        f"{mlp.value:.2f} times, with as many parameters but single weights removed {mlp_zeros.value:.2f} times"
    )
    if min(mlp.low, halved.low) > 1.2 and mlp_zeros.high < 1.2:
        return CONFIRMED, because
    return (REFUTED if max(mlp.high, halved.high) < 1.2 else DEPENDS), because


@claim(
    "C18",
    "ResNet-50 goes from 98 MB to 9.2 MB and gets 3.5x faster by 70% channel pruning, int8 and XNNPACK",
    (
        "size.resnet50_dense",
        "size.resnet50_pruned70_int8",
        "latency_ratio.resnet50_pruned70_int8",
        "latency_ratio.resnet50_pruned70_int8_over_xnnpack",
        "delta_top1.resnet8_pruned70_int8",
    ),
)
def resnet50_as_claimed(dense, small, on_builtin, on_xnnpack, accuracy):
    megabytes = [size.value / 1e6 for size in (dense, small)]
    faster = [
        f"{ratio.value:.1f} times as fast as float32 in {kernels} ({ratio.low:.1f} to {ratio.high:.1f})"
        for ratio, kernels in ((on_builtin, "built-in kernels"), (on_xnnpack, "XNNPACK"))
    ]
    because = (
        f"{megabytes[0]:.0f} MB ({megabytes[0] / 1.048576:.0f} MiB) become {megabytes[1]:.1f} MB; one thread, "
        f"{' and '.join(faster)}; its accuracy cannot be measured here, and the same recipe "
        f"costs a trained ResNet-8 {-100 * accuracy.value:.1f} points ({-100 * accuracy.high:.1f} to {-100 * accuracy.low:.1f})"
    )
    size_holds, fast = megabytes[1] <= 9.2 * 1.05, min(on_builtin.low, on_xnnpack.low) >= 3.5
    if size_holds and fast and accuracy.low >= -0.02:
        return CONFIRMED, because
    if not size_holds or max(on_builtin.high, on_xnnpack.high) < 3.5:
        return REFUTED, because
    return DEPENDS, because


@claim(
    "C14",
    "The first convolution and the last classifier are the layers most sensitive to quantization",
    (
        "sensitivity.layers",
        *(f"sensitivity.rank.{end}.{scheme}" for end in ("first_conv", "classifier") for scheme in SCHEMES),
    ),
)
def ends_are_most_sensitive(*ranks):
    layers, firsts, lasts = ranks[0].value, ranks[1:4], ranks[4:]

    def places(estimates):
        return ", ".join(f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]" for estimate in estimates)

    because = (
        f"of {layers:.0f} layers by damage when quantized alone, per-channel, per-tensor and with 4-bit weights, the first "
        f"convolution is number {places(firsts)}, the classifier number {places(lasts)}"
    )
    top = layers / 10  # "most sensitive": among the worst tenth
    if all(estimate.high <= top for estimate in (*firsts, *lasts)):
        return CONFIRMED, because
    if all(estimate.low > top for estimate in lasts) or all(estimate.low > top for estimate in firsts):
        return REFUTED, f"{because}; other layers are the most sensitive"
    return DEPENDS, because


@claim(
    "C15",
    "Keeping the first layer's weights in float, with int8 activations around it, protects accuracy",
    (*(f"gain.first_float_{scheme}" for scheme in SCHEMES), "gain.qat_first_last_float"),
)
def first_in_float_protects(per_channel, per_tensor, four_bits, trained):
    gains = {
        "per-channel": per_channel,
        "per-tensor": per_tensor,
        "with 4-bit weights": four_bits,
        "in QAT (the last layer's too)": trained,
    }
    because = "the first layer's weights in float are worth " + ", ".join(
        f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}] {where}"
        for where, gain in gains.items()
    )
    if all(gain.low > 0 for gain in gains.values()):
        return CONFIRMED, because
    if all(gain.low <= 0 for gain in gains.values()):
        return REFUTED, because
    return DEPENDS, because


@claim(
    "C16",
    "Freezing the first and last layers during QAT avoids disturbing them",
    ("moves.trainable_false", "gain.qat_first_last_frozen", "gain.qat_first_last_slow"),
)
def freezing_protects(moved, frozen, slow):
    because = (
        f"frozen ends against none in QAT: {100 * frozen.value:+.1f} points (95% interval {100 * frozen.low:+.1f} to "
        f"{100 * frozen.high:+.1f}), a tenth of the learning rate {100 * slow.value:+.1f} ({100 * slow.low:+.1f} to "
        f"{100 * slow.high:+.1f})"
    )
    if moved.value:
        because += "; trainable=False, which most would write, does not freeze tfmot's wrapped layers at all"
    if frozen.low > 0:
        return CONFIRMED, because
    if frozen.high < 0.01:
        return REFUTED, f"{because}; a gain of one point is excluded"
    return DEPENDS, because


@claim(
    "C21b",
    "TensorBoard curves of quantization error make debugging faster",
    ("delta_top1.none", "delta_top1.named_by_log"),
)
def error_curve_shows_the_layer(broken, mended):
    because = (
        f"per-tensor int8 costs {-100 * broken.value:.0f} points; the logged curve falls at one layer, and with that layer in "
        f"float it costs {-100 * mended.value:.1f}"
    )
    if broken.high < -0.05 and mended.low > broken.value / 10:
        return CONFIRMED, f"{because}; that people debug faster was not measured"
    return DEPENDS, because


@claim(
    "C19",
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
)
def gate_can_stand_in_ci(accepted, few, cut, damaged, class_lost, failures, seconds):
    because = (
        f"in {seconds.value:.0f} s the gate accepts a good int8 file with latency and memory measured; with 100 images it "
        f"{'asks for more' if few.value == 2 else 'decides nevertheless'}; of 3 planted faults it rejects "
        f"{sum(fault.value == 1 for fault in (cut, damaged, class_lost))}, and mutated files made it fail {failures.value:.0f} times"
    )
    faults = all(fault.value == 1 for fault in (cut, damaged, class_lost))
    if accepted.value == 0 and faults and not failures.value and seconds.value < 120:
        return CONFIRMED, because
    return (REFUTED if failures.value or not faults else DEPENDS), because
