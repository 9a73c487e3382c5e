"""What the lab found beside the article's claims, and what others published of the same techniques. Data only: neither is ever
counted with the claims, and our numbers are told from the recordings."""

from dataclasses import dataclass

STRUCTURED, PTQ_AND_QAT = "02_structured_pruning", "03_mobilenetv2_ptq_and_qat"
PRUNING, PER_CHANNEL = "01_mnist_mlp_pruning", "04_per_channel_quantization"
SENSITIVE, GATE = "05_sensitive_layers", "06_deployment_gate"
TRANSFORMERS, PROCESSORS = "09_transformers_and_detectors", "10_other_processors"
FEW_BITS, BY_HAND = "11_how_few_bits", "12_integers_by_hand"


@dataclass(frozen=True)
class Finding:
    """A statement of ours, the notebook that measured it, and its numbers: recorded name -> what it is."""

    statement: str
    notebook: str
    numbers: dict[str, str]


@dataclass(frozen=True)
class Published:
    """A figure that somebody else printed, and ours for the same technique.

    what: technique and network. on: their data. figure, source: what they printed, and where. notebook, number: ours. why: the
    two may differ.
    """

    what: str
    on: str
    figure: str
    source: str
    notebook: str
    number: str
    why: str


FINDINGS = (
    Finding(
        "A handful of dead channels ruins MobileNetV2 under one scale a kernel; clearing what reads them mends it without training",
        PER_CHANNEL,
        {
            "channels.dead_readers": "channels that read a dead one",
            "delta_top1.ptq_per_tensor": "as it came",
            "delta_top1.ptq_cleared_per_tensor": "cleared",
            "delta_top1.ptq_equalized_per_tensor": "cleared, equalized, biases corrected",
        },
    ),
    Finding(
        "tfmot trains a depthwise kernel with one range for all of its channels (tensorflow/model-optimization#808)",
        PER_CHANNEL,
        {
            "levels_used.min.qat_tfmot": "fewest levels of 255 that a channel uses, tfmot",
            "levels_used.min.qat_per_channel": "with a range for each channel",
        },
    ),
    Finding(
        "tfmot's QAT starts from ranges that fit nothing; calibrated, with a range for each channel, it starts near where PTQ ends",
        PTQ_AND_QAT,
        {
            "qat.step0_default": "top-1 before the first step, tfmot",
            "qat.step0_tfmot_calibrated": "calibrated",
            "qat.step0_calibrated": "calibrated, a range for each channel",
        },
    ),
    Finding(
        "The same int8 file is faster than float32 on one processor and slower on another",
        PTQ_AND_QAT,
        {"latency_ratio.int8": "times as fast"},
    ),
    Finding(
        "A model converted with its pruning wrappers on is twice as large and several times as slow",
        PRUNING,
        {
            "size_ratio.wrapped": "bytes over those after strip_pruning",
            "latency_ratio.wrapped": "times as fast as dense",
        },
    ),
    Finding(
        "Most of what a cut network seems to lose is in the statistics of its batch norms",
        STRUCTURED,
        {
            "delta_top1.mobilenetv2_pruned50_stale_norms": "half of the expansion channels gone",
            "delta_top1.mobilenetv2_pruned50_untuned": "with fresh statistics, untrained",
        },
    ),
    Finding(
        "The article's recipe for ResNet-50 leaves a small network, one that can be trained here, behind its dense self",
        STRUCTURED,
        {"delta_top1.resnet8_pruned70_int8": "ResNet-8 without 70% of its inner channels, int8"},
    ),
    Finding(
        "A sweep names the layers worth protecting; with one scale a kernel the first and the last are not among them",
        SENSITIVE,
        {
            "delta_top1.none": "one scale a kernel",
            "delta_top1.article_first_last": "first and last in float",
            "delta_top1.planned_within_0.5": "the sweep's layers in float",
        },
    ),
    Finding(
        "trainable=False does not freeze a layer that tfmot has wrapped",
        SENSITIVE,
        {"moves.trainable_false": "its kernel moved (1 is yes)"},
    ),
    Finding(
        "Ordinary QAT rubs out the zeros of a pruned model; sparsity-preserving QAT keeps them",
        GATE,
        {
            "sparsity.pruned_qat": "zeros left at a tenth of the rate",
            "sparsity.pruned_qat_full_rate": "at the full rate",
            "sparsity.pruned_pqat": "preserving",
        },
    ),
    Finding(
        "Two channels that are much larger than the others break a Transformer in int8, by the very same function; migrated into the "
        "weights, they cost nothing",
        TRANSFORMERS,
        {
            "delta_top1.vit_int8.k1": "as trained",
            "delta_top1.vit_int8.k64": "two of 64 channels 64 times as large",
            "delta_top1.vit_migrated.k64": "migrated",
        },
    ),
    Finding(
        "A detector that tells boxes in pixels beside its scores is blind in int8; with boxes in shares of the side it loses next to "
        "nothing",
        TRANSFORMERS,
        {
            "delta_map50.pixels.int8": "AP50, boxes in pixels",
            "delta_map50.unit.int8": "in shares of the side",
            "delta_map50.apart.int8": "in an output of their own",
        },
    ),
    Finding(
        "A threshold that is kept hides a part of what pruning takes from a verifier",
        TRANSFORMERS,
        {
            "delta_tar.pruned_int8_kept": "true accepts, threshold kept",
            "delta_tar.pruned_int8_anew": "set anew",
            "far.float32_kept": "false accepts before",
            "far.pruned_int8_kept": "after, threshold kept",
        },
    ),
    Finding(
        "An int8 file is the same function to the last bit on x86 and on ARM; a file in dynamic range is not, not even on two ARM "
        "processors",
        PROCESSORS,
        {
            "bit_equal.int8.cortex-a53": "int8 MobileNetV2, Cortex-A53",
            "bit_equal.int8.cortex-a76": "Cortex-A76",
            "bit_equal.dynamic.cortex-a53": "dynamic range, Cortex-A53",
            "bit_equal.dynamic.cortex-a76": "Cortex-A76",
        },
    ),
    Finding(
        "With the very bytes of 4-bit weights throughout, a search over bits and scales that measures whole files loses next to nothing",
        FEW_BITS,
        {
            "delta_top1.search_int4_uniform": "4 bits throughout",
            "delta_top1.search_int4_search": "the search, as many bytes",
            "gain.search_over_per_byte_int4": "search minus most damage per byte, bits alone",
            "gain.search_over_per_byte_ends": "the same with a tenth more bytes",
        },
    ),
    Finding(
        "At 4 bits none of the quantizer's algorithms saves MobileNetV2, and the one called MSE makes it worse",
        FEW_BITS,
        {
            "delta_top1.lowbit_min_max_4_mobilenetv2": "min-max",
            "delta_top1.lowbit_octav_4_mobilenetv2": "OCTAV",
            "delta_top1.lowbit_mse_4_mobilenetv2": "MSE",
            "delta_top1.lowbit_gptq_4_mobilenetv2": "GPTQ",
        },
    ),
    Finding(
        "An int8 network can be computed by hand, in integers, to the last bit of either of LiteRT's kernels; after a layer a step apart at most",
        BY_HAND,
        {
            "bit_equal.builtin.layer_5": "equal to the built-in kernels",
            "bit_equal.xnnpack": "rounded once instead of twice: equal to XNNPACK's",
            "bit_equal.xnnpack_as_builtin": "XNNPACK's equal to the built-in kernels'",
        },
    ),
    Finding(
        "LiteRT's GPU accelerator (2.3.0, WebGPU) ignores the stride of a quantized 1 x 1 convolution, without a word",
        PROCESSORS,
        {
            "agreement.resnet8_float32.gpu": "same answers as on the processor, ResNet-8 in float32",
            "agreement.resnet8_int8.gpu": "in int8",
            "agreement.int8.gpu": "MobileNetV2, which has no such layer, in int8",
        },
    ),
    Finding(
        "A sentence Transformer that people use (all-MiniLM-L6-v2) cannot find its sentences in int8, for three causes that can be cured; "
        "in dynamic range it can",
        TRANSFORMERS,
        {
            "delta_top1.minilm_int8": "the converter's int8",
            "delta_top1.minilm_int8_mask": "with a mask of -20",
            "delta_top1.minilm_mixed": "with its causes, and the dense layers beside them, out of int8",
            "delta_top1.minilm_dynamic": "dynamic range",
        },
    ),
)

IMAGENET = "Theirs is ImageNet, a thousand classes; ours ten kinds of clothes, which leave more room."
KRISHNAMOORTHI = "Krishnamoorthi 2018 (arXiv 1806.08342)"
TENSORFLOW = "TensorFlow, model optimization (table of the hosted models)"
PUBLISHED = (
    Published(
        "MobileNetV2, int8 PTQ, a scale a channel, symmetric",
        "ImageNet",
        "71.9% -> 69.8%: -2.1 points",
        KRISHNAMOORTHI,
        PER_CHANNEL,
        "delta_top1.ptq_per_channel",
        IMAGENET,
    ),
    Published(
        "MobileNetV2, int8 PTQ, one scale a layer, asymmetric",
        "ImageNet",
        "71.9% -> 0.1%: -71.8 points",
        KRISHNAMOORTHI,
        PER_CHANNEL,
        "delta_top1.ptq_per_tensor",
        "The same collapse; ours comes from dead channels of the ImageNet weights, theirs was not traced.",
    ),
    Published(
        "MobileNetV2 0.35, int8 PTQ, a scale a channel",
        "flowers, 224 px",
        "93.6% -> 92.8%: -0.8 points",
        "ST model zoo, image_classification/mobilenetv2",
        PTQ_AND_QAT,
        "delta_top1.int8",
        "The same network; in the profile full_flowers the same photos, held out otherwise and trained otherwise.",
    ),
    Published(
        "MobileNetV2, QAT, int8",
        "ImageNet",
        "70.8% -> 70.0%: -0.8 points",
        "tfmot, quantization-aware training",
        PTQ_AND_QAT,
        "delta_top1.qat_int8",
        "Ours starts from calibrated ranges and trains a few steps, theirs from tfmot's and for long.",
    ),
    Published(
        "MobileNetV2, equalized without data, int8, one scale a layer",
        "ImageNet",
        "71.7% -> 71.1%: -0.6 points",
        "AIMET, README (after Nagel et al. 2019)",
        PER_CHANNEL,
        "delta_top1.ptq_equalized_per_tensor",
        "Ours clears dead channels first, keeps ReLU6 and corrects biases by images.",
    ),
    Published(
        "ResNet-8, int8 PTQ",
        "CIFAR-10",
        "87.0% -> 85.6%: -1.4 points",
        "ST model zoo, image_classification/resnetv1",
        GATE,
        "delta_top1.int8",
        "Photos in colour against clothes in grey; ours was calibrated on a hundred images.",
    ),
    Published(
        "MobileNetV2, int8 against float32, one big core of a Pixel 2",
        "ImageNet",
        "89 -> 54 ms: 1.65 times as fast",
        TENSORFLOW,
        PTQ_AND_QAT,
        "latency_ratio.int8",
        "A phone's processor of 2017 against x86; width 1.0 at 224 px against 0.35 at 96 px.",
    ),
    Published(
        "MobileNetV2, half of the weights zero (magnitude)",
        "ImageNet",
        "71.8% -> 69.6%: -2.1 points",
        "tfmot, pruning",
        PRUNING,
        "delta_top1.pruned",
        "Ours is an MLP at 80%: a network with so many spare weights that zeros cost it little.",
    ),
    Published(
        "int8 Transformers, min-max",
        "ImageNet, ViT-B",
        "84.5% -> 23.6%",
        "FQ-ViT, Lin et al. 2022 (arXiv 2111.13824)",
        TRANSFORMERS,
        "delta_top1.vit_int8.k64",
        "outliers that grew in training, in a network of 86 million parameters; ours were planted",
    ),
    Published(
        "int8 detectors, boxes and scores in one output",
        "COCO, YOLOv8s",
        "mAP 45.0 -> 38.2",
        "ultralytics/ultralytics#9473",
        TRANSFORMERS,
        "delta_map50.unit.int8",
        "another network and measure; with boxes in pixels its users report no score but 0 and 1.13 (#1683), or no detections (#21628), as ours",
    ),
)
