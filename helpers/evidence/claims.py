"""The article's claims, each in one place: where it stands, what it says, the numbers that judge it, and the rule.

The article is "TensorFlow模型压缩技术：剪枝与量化实战" (TensorFlow model compression: pruning and quantization in practice), signed
张小明, dated 2026-01-13, on the news page of a web-design company. It has no stable address that we know of. The statements are
ours, the numbers in them the article's.

What the words of a rule mean stands in `verdicts`. Margins are the article's own numbers where it gives some; else the smallest
difference that somebody who ships a model would act on: half a point of accuracy, a fifth of the time. They stand in the order
of the notebooks that judge them.
"""

from helpers.evidence.verdicts import AT_LEAST, AT_MOST, Bound, Claim, Need

PRUNING, PRUNING_CODE = "how pruning works", "pruning, the code"
QUANTIZATION, PTQ, QAT, QAT_CODE = "quantization", "PTQ", "QAT", "QAT, the code"
RULES, EXAMPLE = "deployment, the rules of experience", "deployment, the example"

ACTED_ON = "the smallest difference that one would act on"
FASTER = "a fifth faster, the least that one would act on"
NEARLY_THREE = 2.5
SEEDS = 5  # trainings that a claim about training rests on
A_FEW_EPOCHS = (Need("article.epochs", 3, "the article's 'a few epochs' are at least three"),)
FIVE_POINTS = "the article's own figure"
POINTS, SHARE, RATIO = "points", ".1%", ".2f"


def _most_sensitive(scheme):
    return tuple(
        Bound(
            f"sensitivity.place.{end}.{scheme}",
            f"the {name}'s place, over the number of layers,",
            AT_MOST,
            0.1,
            "among the worst tenth: 'extremely sensitive' says no less",
            RATIO,
        )
        for end, name in (("first_conv", "first convolution"), ("classifier", "classifier"))
    )


CLAIMS = {
    "C01": Claim(
        PRUNING,
        "An MLP pruned gradually from 50% to 80% and fine-tuned loses only 1 to 2 points of accuracy",
        {
            "": (
                Bound(
                    "delta_top1.pruned",
                    "80% pruned minus dense",
                    AT_LEAST,
                    -0.02,
                    "the article's larger figure",
                    POINTS,
                    SEEDS,
                ),
            )
        },
        needs=(Need("sparsity.kernel", 0.79, "the claim speaks of 80% zeros, and this run made fewer"),),
    ),
    "C02a": Claim(
        PRUNING,
        "80% at once may break the model",
        {
            "": (
                Bound(
                    "delta_top1.one_shot",
                    "80% at once, without training, minus dense",
                    AT_MOST,
                    -0.05,
                    "what the article calls a serious loss where it speaks of PTQ",
                    POINTS,
                    SEEDS,
                ),
            )
        },
        can=True,
    ),
    "C02b": Claim(
        PRUNING_CODE,
        "A polynomial ramp is stabler than a linear one, above all in deep networks",
        {
            where: (
                Bound(
                    f"spread_ratio.linear_over_polynomial{end}",
                    "standard deviation of top-1 over the seeds, linear ramp over polynomial,",
                    AT_LEAST,
                    1.0,
                    "stabler means that results differ less",
                    RATIO,
                    SEEDS,
                ),
            )
            for where, end in (("two hidden layers", ""), ("eight hidden layers", "_deep"))
        },
        beside=(
            ("gain.polynomial_over_linear", "in accuracy the polynomial ramp gains", POINTS),
            ("gain.polynomial_over_linear_deep", "with eight layers", POINTS),
        ),
    ),
    "C03": Claim(
        PRUNING_CODE,
        "Without the callback UpdatePruningStep the masks are not updated",
        {
            "": (
                Bound(
                    "sparsity.without_callback", "zeros without it", AT_MOST, 0.0, "no mask is updated: no zeros", SHARE
                ),
            )
        },
        beside=(
            ("raises.without_callback", "training stops with an error that names the callback (1 is yes):", ".0f"),
        ),
    ),
    "C04": Claim(
        PRUNING_CODE,
        "The pruned model converts to TFLite directly",
        {
            "as a file that answers alike": (
                Bound("converts.wrapped", "it converts (1 is yes):", AT_LEAST, 1, "it must convert", ".0f"),
                Bound("agreement.wrapped", "the same answers", AT_LEAST, 0.99, "but for rounding", SHARE),
            ),
            "as a compressed model": (
                Bound(
                    "size_ratio.wrapped",
                    "bytes of the file, over those after strip_pruning,",
                    AT_MOST,
                    1.1,
                    "a tenth for names and masks",
                    RATIO,
                ),
            ),
        },
    ),
    "C05a": Claim(
        PRUNING_CODE,
        "Unstructured pruning compresses well",
        {
            where: (
                Bound(
                    number, "bytes over the dense model's", AT_MOST, 0.5, "four fifths are zeros: half is little", RATIO
                ),
            )
            for where, number in (
                ("the file as it is", "size_ratio.pruned"),
                ("packed with gzip", "size_ratio.pruned_gzip"),
                ("sparse encoded", "size_ratio.pruned_sparse_encoded"),
            )
        },
    ),
    "C22a": Claim(
        PRUNING_CODE,
        "The printed pruning code does what the text says",
        {"": (Bound("raises.printed_cast", "it stops with an error (1 is yes):", AT_MOST, 0, "it has to run", ".0f"),)},
    ),
    "C05b": Claim(
        PRUNING_CODE,
        "Unstructured pruning brings no speed on general hardware",
        {
            where: (Bound(number, "times as fast as dense", AT_MOST, 1.2, f"no gain: less than {FASTER}", RATIO),)
            for where, number in (
                ("dense layers", "latency_ratio.mlp_unstructured_90"),
                ("1x1 convolutions in XNNPACK's sparse kernels", "latency_ratio.pointwise_sparse"),
            )
        },
    ),
    "C06": Claim(
        PRUNING_CODE,
        "Structured (channel) pruning brings speed on general CPUs",
        {
            where: (Bound(number, "times as fast as dense", AT_LEAST, 1.2, FASTER, RATIO),)
            for where, number in (
                ("an MLP without half of its neurons", "latency_ratio.mlp_l1_50"),
                ("MobileNetV2 without half of its expansion channels", "latency_ratio.mobilenetv2_pruned50"),
            )
        },
    ),
    "C18": Claim(
        EXAMPLE,
        "ResNet-50, 98 MB and 300 ms, becomes 9.2 MB and 86 ms by 70% channel pruning, int8 and XNNPACK",
        {
            where: (
                Bound(
                    "size.resnet50_pruned70_int8",
                    "the file has",
                    AT_MOST,
                    9_660_000,
                    "the article's 9.2 MB and 5% for names and rounding",
                    "kB",
                ),
                Bound(number, "times as fast", AT_LEAST, 3.5, "the article's 300 over 86 ms", RATIO),
            )
            for where, number in (
                ("against float32 in the built-in kernels", "latency_ratio.resnet50_pruned70_int8"),
                ("against float32 in XNNPACK", "latency_ratio.resnet50_pruned70_int8_over_xnnpack"),
            )
        },
    ),
    "C07": Claim(
        QUANTIZATION,
        "int8 takes a quarter of float32's storage",
        {
            where: (
                Bound(
                    number, "bytes over float32's", AT_MOST, 0.275, "a quarter, and a tenth of it for the rest", ".3f"
                ),
            )
            for where, number in (("MobileNetV2", "size_ratio.int8"), ("the MLP", "size_ratio.mlp_int8"))
        },
    ),
    "C08": Claim(
        PTQ,
        "PTQ needs no training, a little calibration data (100 samples), and minutes",
        {
            "": (
                Bound(
                    "delta_top1.int8",
                    "int8 minus float32",
                    AT_LEAST,
                    -0.02,
                    "the 2 points that the article's own gate allows",
                    POINTS,
                ),
                Bound(
                    "gain.largest_calibration",
                    "gained by the largest calibration sets",
                    AT_MOST,
                    0.01,
                    "half of these 2 points: more samples would have been needed",
                    POINTS,
                ),
                Bound("seconds.int8", "seconds to convert", AT_MOST, 600, "'minutes': ten at most", ".3g"),
            )
        },
    ),
    # "Can lose" is judged under each condition by itself: one freak would confirm it of all.
    "C09a": Claim(
        PTQ,
        "On Transformers, whose dynamic range is wide, PTQ can lose more than 5 points",
        {
            where: (Bound(f"delta_top1.vit_{number}", told, AT_MOST, -0.05, FIVE_POINTS, POINTS),)
            for where, number, told in (
                ("full int8, a small ViT as trained", "int8.k1", "int8 minus float32"),
                ("full int8, two channels 64 times as large", "int8.k64", "int8 minus float32"),
                ("dynamic range, as trained", "dynamic.k1", "dynamic range minus float32"),
                ("dynamic range, two channels 64 times as large", "dynamic.k64", "dynamic range minus float32"),
            )
        },
    ),
    "C09b": Claim(
        PTQ,
        "On detectors such as YOLO, whose non-linearity is strong, PTQ can lose more than 5 points",
        {
            where: (Bound(f"delta_map50.{number}", told, AT_MOST, -0.05, FIVE_POINTS, POINTS),)
            for where, number, told in (
                ("full int8, boxes in pixels beside scores in one output", "pixels.int8", "int8 minus float32"),
                ("full int8, boxes from 0 to 1 beside scores in one output", "unit.int8", "int8 minus float32"),
                ("full int8, boxes and scores apart", "apart.int8", "int8 minus float32"),
                ("dynamic range, boxes in pixels", "pixels.dynamic", "dynamic range minus float32"),
            )
        },
    ),
    "C10": Claim(
        QAT,
        "QAT brings int8 MobileNetV2 almost level with float32",
        {
            "": (
                Bound(
                    "delta_top1.qat_article",
                    "the article's QAT, int8, minus float32",
                    AT_LEAST,
                    -0.01,
                    "'almost level': half of the 2 points that the article's gate allows",
                    POINTS,
                    SEEDS,
                    A_FEW_EPOCHS,
                ),
            )
        },
        beside=(("delta_top1.qat_int8", "from our calibrated start", POINTS),),
    ),
    "C11": Claim(
        QAT,
        "int8 MobileNetV2 runs nearly three times as fast as float32 on ARM CPUs",
        {
            "": (
                Bound(
                    "latency_ratio.mobilenetv2.int8",
                    "times as fast",
                    AT_LEAST,
                    NEARLY_THREE,
                    "'nearly three' is more than two and a half",
                    RATIO,
                    needs=(Need("machine.arm", 1, "this is no ARM processor; this notebook run on one decides it"),),
                ),
            )
        },
        hints=tuple(
            Bound(
                f"instruction_ratio.mobilenetv2.{processor}",
                f"times fewer instructions on a {told}",
                AT_LEAST,
                NEARLY_THREE,
                "as fast as the claim says if time went by instructions",
                RATIO,
            )
            for processor, told in (
                ("cortex-a76", "Cortex-A76, which multiplies int8 by a dot product,"),
                ("cortex-a53", "Cortex-A53, which does not,"),
            )
        ),
    ),
    "C12": Claim(
        QAT,
        "A few epochs at a tenth of the original rate recover 98% of the original accuracy",
        {
            "": (
                Bound(
                    "recovered.article",
                    "the article's QAT, share of float32's accuracy",
                    AT_LEAST,
                    0.98,
                    "the article's figure",
                    SHARE,
                    SEEDS,
                    A_FEW_EPOCHS,
                ),
            )
        },
        beside=(("recovered.rate_0.1", "from our calibrated start", SHARE),),
    ),
    "C17": Claim(
        RULES,
        "On GPUs float16 is worth trying, since it avoids the conversions of integers",
        {
            "": (
                Bound(
                    "latency_ratio.gpu_float16",
                    "float16's speed over int8's on LiteRT's accelerator",
                    AT_LEAST,
                    1.0,
                    "it must not be slower than what it is to replace",
                    RATIO,
                    needs=(Need("machine.gpu", 1, "this machine has no GPU; this notebook run on one decides it"),),
                ),
            )
        },
        beside=(
            ("size_ratio.mobilenetv2.float16", "float16's bytes over float32's", RATIO),
            ("delta_top1.float16", "its change in top-1", POINTS),
            (
                "steps_off.int8.gpu",
                "int8's largest difference from the processor's outputs, in steps of the output,",
                ".1f",
            ),
        ),
        hints=(
            Bound(
                "agreement.float16.gpu",
                "the same answers as float16's on the processor",
                AT_LEAST,
                0.99,
                "what the accelerator computes must be worth having",
                SHARE,
            ),
        ),
    ),
    "C20": Claim(
        QAT,
        "That quantization always loses accuracy is a misconception",
        {
            where: (Bound(number, "int8 minus float32", AT_LEAST, -0.005, f"half a point: {ACTED_ON}", POINTS),)
            for where, number in (
                ("MobileNetV2 by PTQ", "delta_top1.int8"),
                ("MobileNetV2 by QAT", "delta_top1.qat_int8"),
                ("ResNet-8 by PTQ", "delta_top1.resnet8_int8"),
            )
        },
        can=True,
    ),
    "C22b": Claim(
        QAT_CODE,
        "The printed QAT code does what the text says",
        {
            "": (
                Bound(
                    "gain.printed_loss",
                    "the printed loss minus the same with from_logits=True",
                    AT_LEAST,
                    -0.01,
                    "twice what one would act on",
                    POINTS,
                ),
            )
        },
    ),
    "C13": Claim(
        QAT,
        "Per-channel quantization keeps sensitive features better than per-layer",
        {
            "": (
                Bound(
                    "gain.per_channel_over_per_tensor",
                    "int8 per-channel minus per-tensor",
                    AT_LEAST,
                    0.005,
                    f"half a point: {ACTED_ON}",
                    POINTS,
                ),
            )
        },
        beside=(("gain.per_channel_over_equalized", "minus per-tensor, cleared, equalized and corrected", POINTS),),
    ),
    "C24a": Claim(
        QAT,
        "PTQ can make a model fail entirely",
        {
            where: (
                Bound(
                    number, "PTQ minus float32", AT_MOST, -0.5, "entirely: half of all images are lost at least", POINTS
                ),
            )
            for where, number in (
                ("int8 with one scale a kernel", "delta_top1.ptq_per_tensor"),
                ("4-bit weights", "delta_top1.int4_weights"),
            )
        },
        can=True,
    ),
    "C24b": Claim(
        QAT,
        "QAT learns to live with low precision",
        {
            "4-bit weights": (
                Bound(
                    "gain.qat_over_finetuned_int4",
                    "QAT minus PTQ of a model trained on for as long",
                    AT_LEAST,
                    0.005,
                    f"half a point: {ACTED_ON}",
                    POINTS,
                    SEEDS,
                ),
            )
        },
        beside=(("delta_top1.int4_weights_qat", "QAT minus float32", POINTS),),
    ),
    "C14": Claim(
        RULES,
        "The first convolution and the last classifier are extremely sensitive to quantization",
        {
            told: _most_sensitive(scheme)
            for scheme, told in (
                ("per_channel", "int8 per-channel"),
                ("per_tensor", "int8 per-tensor"),
                ("int4", "4-bit weights"),
            )
        },
    ),
    "C15": Claim(
        RULES,
        "Keep the first layer's weights in float32, with int8 activations",
        {
            where: (
                Bound(
                    f"gain.first_float_{scheme}",
                    "first layer in float minus none",
                    AT_LEAST,
                    0.0,
                    "it must gain",
                    POINTS,
                ),
            )
            for scheme, where in (
                ("per_channel", "int8 per-channel"),
                ("per_tensor", "int8 per-tensor"),
                ("int4", "4-bit weights"),
            )
        },
    ),
    "C16": Claim(
        RULES,
        "Freeze the first and last layers in QAT, or slow them, so that they are not disturbed",
        {
            where: (
                Bound(
                    f"gain.qat_first_last_{number}",
                    f"{told} minus plain QAT",
                    AT_LEAST,
                    0.005,
                    f"half a point: {ACTED_ON}",
                    POINTS,
                    SEEDS,
                    (
                        Need(
                            f"loss.{plain}", 0.01, "since plain QAT loses less than a point: there is too little to win"
                        ),
                    ),
                ),
            )
            for where, number, told, plain in (
                ("at a tenth of the rate, frozen", "frozen", "frozen ends", "qat_none"),
                ("at a tenth of the rate, slowed", "slow", "ends at a tenth of that", "qat_none"),
                ("at the full rate, frozen", "frozen_full_rate", "frozen ends", "qat_none_full_rate"),
            )
        },
    ),
    "C21": Claim(
        RULES,
        "Logging sparsity and quantization error to TensorBoard makes debugging much faster",
        beside=(
            ("delta_top1.none", "a planted fault, int8 with one scale a kernel, costs", POINTS),
            ("delta_top1.named_by_log", "with the layer that the log names in float", POINTS),
        ),
        test_by="people who debug with the log and without",
    ),
    "C23": Claim(
        RULES,
        "Mixed precision (some layers in float32) suits layers that are sensitive at the input or output",
        {
            where: (
                Bound(
                    f"gain.mixed_{number}",
                    "mixed minus 4-bit weights throughout",
                    AT_LEAST,
                    0.005,
                    f"half a point: {ACTED_ON}",
                    POINTS,
                ),
            )
            for where, number in (
                ("first and last layer in float32", "ends"),
                ("as many bytes for the layers that the sweep names", "planned"),
            )
        },
    ),
    "C19": Claim(
        RULES,
        "A pipeline in CI can check accuracy (within 2 points), conversion, and latency and memory on the target",
        {
            f"the check of {check}": tuple(
                Bound(
                    f"gate_error.{kind}.{check}",
                    told,
                    AT_MOST,
                    0.05,
                    "one error in twenty, as of a test at 95%",
                    SHARE,
                )
                for kind, told in (
                    ("missed", "planted regressions accepted"),
                    ("false_alarm", "harmless changes rejected"),
                )
            )
            for check in ("accuracy", "conversion", "latency", "memory")
        },
    ),
}
