"""What README and WORKSHOP.md say of `results/` is generated, so that no number there is typed by hand."""

import contextlib
import re

import pandas as pd

from helpers import claims, files, results, tour

README = files.REPOSITORY / "README.md"
WORKSHOP = files.REPOSITORY / "WORKSHOP.md"
NOT_RECORDED = "-"
VALUE = re.compile(r"<!-- value (\S+) (\S+) (\S+) (\S+) -->.*?<!-- end -->")


def render(text=None):
    """A text, README's by default, with everything generated in it made anew.

    A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; a single number between
    `<!-- value PROFILE NOTEBOOK NUMBER FORMAT -->` and `<!-- end -->` (see `value`).
    """
    text = README.read_text() if text is None else text
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin in text:
            before, rest = text.split(begin, 1)
            text = before + begin + make() + "\n" + end + rest.split(end, 1)[1]
    return VALUE.sub(
        lambda found: f"<!-- value {' '.join(found.groups())} -->{value(*found.groups())}<!-- end -->", text
    )


def update():
    """Write README and WORKSHOP.md with all that is generated in them made anew."""
    for path in (README, WORKSHOP):
        files.write(path, render(path.read_text()))


def value(profile, notebook, number, form):
    """One recorded number as text, with its interval if it has one; NOT_RECORDED if the notebook has not run.

    notebook: as "01", or "all" for the sum over those that were recorded. number: its name, or "minutes" that the recorded run took. form:
    points, kB, or as Python formats numbers (".1%"). Raises ResultsError for a number that the notebook does not have.
    """
    if notebook == "all":
        single = (value(profile, name, number, ".6f") for name in tour.overview().index)
        return format(sum(float(text) for text in single if text != NOT_RECORDED), form)
    try:
        content = results.read(files.find_notebook(notebook).stem, profile)
    except (FileNotFoundError, results.ResultsError):
        return NOT_RECORDED
    if number == "minutes":
        return format(content["provenance"]["seconds"] / 60, form)
    if number not in content["numbers"]:
        raise results.ResultsError(
            f"number={number!r} is not among the results of {notebook}: look into results/{profile}/."
        )
    return _show(content["numbers"][number], form)


def notebooks_table():
    """The notebooks in order with the question each asks and the minutes of its recorded run, as a Markdown table."""
    overview = tour.overview().reset_index()
    return _markdown(
        pd.DataFrame(
            {
                "it asks": overview["question"].to_numpy(),
                "minutes": [f"{seconds / 60:.1f}" for seconds in overview["seconds"]],
            },
            index=[f"[{name}](notebooks/{name}.ipynb)" for name in overview["notebook"]],
        )
    )


def pruning_table():
    """What notebook 01 measured, profile by profile, as a Markdown table."""
    return _table(
        "01_mnist_mlp_pruning",
        {
            "dense MLP, top-1": ("top1.float32", ".1%"),
            "80% of the weights pruned: change in top-1, in points": ("delta_top1.pruned", "points"),
            "the same at once, without training, in points": ("delta_top1.one_shot", "points"),
            "file on disk, dense": ("size.float32", "kB"),
            "file on disk, pruned": ("size.pruned", "kB"),
            "gzipped, dense": ("size.float32_gzip", "kB"),
            "gzipped, pruned": ("size.pruned_gzip", "kB"),
            "latency ratio, pruned (above 1 is faster)": ("latency_ratio.pruned", ".2f"),
            "latency ratio, pruned in blocks of 16": ("latency_ratio.pruned_blocks", ".2f"),
        },
    )


def quantization_table():
    """What notebook 03 measured, profile by profile, as a Markdown table."""
    return _table(
        "03_mobilenetv2_ptq_and_qat",
        {
            "float32 MobileNetV2 (alpha 0.35), top-1": ("top1.float32", ".1%"),
            "int8 PTQ: change in top-1, in points": ("delta_top1.int8", "points"),
            "QAT before its first step, tfmot's ranges: top-1": ("qat.step0_default", ".1%"),
            "QAT before its first step, calibrated: top-1": ("qat.step0_calibrated", ".1%"),
            "QAT int8, calibrated start: change in top-1, in points": ("delta_top1.qat_int8", "points"),
            "float32 trained on for the same steps, in points": ("delta_top1.float32_finetuned", "points"),
            "file on disk, float32": ("size.float32", "kB"),
            "file on disk, int8": ("size.int8", "kB"),
            "latency ratio, int8 (above 1 is faster)": ("latency_ratio.int8", ".2f"),
            "latency ratio, int16 activations, int8 weights": ("latency_ratio.int16x8", ".2f"),
        },
    )


def per_channel_table():
    """What notebook 04 measured, profile by profile, as a Markdown table."""
    return _table(
        "04_per_channel_quantization",
        {
            "float32 MobileNetV2 (alpha 0.35), top-1": ("top1.float32", ".1%"),
            "int8 PTQ per-channel: change in top-1, in points": ("delta_top1.ptq_per_channel", "points"),
            "int8 PTQ per-tensor, in points": ("delta_top1.ptq_per_tensor", "points"),
            "per-tensor, dead channels cleared": ("delta_top1.ptq_cleared_per_tensor", "points"),
            "per-tensor, cleared, equalized, biases corrected": ("delta_top1.ptq_equalized_per_tensor", "points"),
            "QAT per-channel minus tfmot's, before the first step": ("gain.start_per_channel_over_tfmot", "points"),
            "QAT per-channel minus tfmot's, after the last": ("gain.qat_per_channel_over_tfmot", "points"),
            "QAT per-channel, after the last: change in top-1": ("delta_top1.qat_per_channel", "points"),
            "4-bit weights (depthwise 8, activations float32), PTQ": ("delta_top1.int4_weights", "points"),
            "the same, PTQ of float32 trained on": ("delta_top1.int4_weights_finetuned", "points"),
            "the same, QAT": ("delta_top1.int4_weights_qat", "points"),
            "file on disk, int8": ("size.ptq_per_channel", "kB"),
            "file on disk, 4-bit weights": ("size.int4_weights", "kB"),
        },
    )


def structured_table():
    """What notebook 02 measured, profile by profile, as a Markdown table."""
    return _table(
        "02_structured_pruning",
        {
            "MobileNetV2 without half of its expansion channels, untuned: change in top-1, in points": (
                "delta_top1.mobilenetv2_pruned50_untuned",
                "points",
            ),
            "fine-tuned": ("delta_top1.mobilenetv2_pruned50_at_once", "points"),
            "fine-tuned with the dense model as teacher": ("delta_top1.mobilenetv2_pruned50", "points"),
            "the same, for 6,000 steps": ("delta_top1.mobilenetv2_pruned50_6000_steps", "points"),
            "the dense model, trained on for as many": ("delta_top1.mobilenetv2_trained_on_6000_steps", "points"),
            "in two rounds": ("delta_top1.mobilenetv2_pruned50_two_rounds", "points"),
            "without 30% of them, with the teacher": ("delta_top1.mobilenetv2_pruned30", "points"),
            "without 70%": ("delta_top1.mobilenetv2_pruned70", "points"),
            "latency ratio without half of them (above 1 is faster)": ("latency_ratio.mobilenetv2_pruned50", ".2f"),
            "with int8 on top": ("latency_ratio.mobilenetv2_pruned50_int8", ".2f"),
            "ResNet-50, float32: file on disk": ("size.resnet50_dense", "kB"),
            "70% of the inner channels gone, int8": ("size.resnet50_pruned70_int8", "kB"),
            "its latency ratio to float32 in built-in kernels": ("latency_ratio.resnet50_pruned70_int8", ".2f"),
            "to float32 in XNNPACK": ("latency_ratio.resnet50_pruned70_int8_over_xnnpack", ".2f"),
            "the same recipe on a trained ResNet-8: change in top-1": ("delta_top1.resnet8_pruned70_int8", "points"),
        },
    )


def sensitivity_table():
    """What notebook 05 measured, profile by profile, as a Markdown table."""
    return _table(
        "05_sensitive_layers",
        {
            "place of the first convolution among 53, int8 per-channel": (
                "sensitivity.rank.first_conv.per_channel",
                ".0f",
            ),
            "of the classifier": ("sensitivity.rank.classifier.per_channel", ".0f"),
            "per-tensor int8, nothing protected: change in top-1, in points": ("delta_top1.none", "points"),
            "first and last layer in float (the article)": ("delta_top1.article_first_last", "points"),
            "the layers that the sweep names": ("delta_top1.planned_within_0.5", "points"),
            "file on disk, nothing protected": ("size.none", "kB"),
            "first and last": ("size.article_first_last", "kB"),
            "the sweep's": ("size.planned_within_0.5", "kB"),
            "QAT with frozen ends minus plain QAT, in points": ("gain.qat_first_last_frozen", "points"),
        },
    )


def combination_table():
    """What notebook 06 measured, profile by profile, as a Markdown table."""
    return _table(
        "06_deployment_gate",
        {
            "ResNet-8, int8: change in top-1, in points": ("delta_top1.int8", "points"),
            "80% pruned, int8": ("delta_top1.pruned_int8", "points"),
            "30% of the inner channels gone, int8": ("delta_top1.channels_int8", "points"),
            "zeros left by QAT at a tenth of the rate": ("sparsity.pruned_qat", ".0%"),
            "zeros left by QAT at the full rate": ("sparsity.pruned_qat_full_rate", ".0%"),
            "zeros left by sparsity-preserving QAT": ("sparsity.pruned_pqat", ".0%"),
            "gzipped, float32": ("size_gzip.float32", "kB"),
            "gzipped, int8": ("size_gzip.int8", "kB"),
            "gzipped, 80% pruned, int8": ("size_gzip.pruned_int8", "kB"),
        },
    )


def claims_table():
    """The claims decided so far, with their verdicts by profile and the reason of the last one, as a Markdown table."""
    ledger = claims.ledger()
    table = ledger.pivot(index="claim", columns="profile", values="verdict")[results.profiles()].fillna("-")
    last = ledger.groupby("claim").last()
    table.insert(0, "the article says", last["statement"])
    return _markdown(table.assign(because=last["because"]))


def _table(notebook, rows):
    found = {}
    for profile in results.profiles():
        with contextlib.suppress(results.ResultsError):  # a profile need not have every notebook
            found[profile] = results.read(notebook, profile)
    columns = {
        f"{profile}: {content['provenance']['data']['name']}": {
            label: _show(content["numbers"][name], spec) if name in content["numbers"] else NOT_RECORDED
            for label, (name, spec) in rows.items()
        }
        for profile, content in found.items()
    }
    for name, _ in rows.values():
        if not any(name in content["numbers"] for content in found.values()):
            raise results.ResultsError(f"number={name!r} is not among the results of {notebook}: look into results/.")
    return (
        f"{_markdown(pd.DataFrame(columns))}\n\nMeasured: {_machines(found)}; one thread for latency. "
        "Brackets: 95% intervals."
    )


def _machines(found):
    """The machines of some profiles' results: "quick on AMD EPYC (AVX2), 2 cores; full on …"."""
    profiles = {}
    for profile, content in found.items():
        machine = content["provenance"]["machine"]
        text = f"{machine['cpu']} ({', '.join(machine['cpu_features'])}), {machine['cores']} cores"
        profiles.setdefault(text, []).append(profile)
    return "; ".join(f"{', '.join(names)} on {text}" for text, names in profiles.items())


def _show(estimate, spec):
    if spec == "points":
        if estimate.low is None:
            return f"{100 * estimate.value:+.1f}"
        ends = (100 * end for end in (estimate.value, estimate.low, estimate.high))
        return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends)
    if spec == "kB":
        return f"{estimate.value / 1000:,.0f} kB"
    return format(estimate, spec)


def _markdown(table):
    lines = [["", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[name, *row] for name, row in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


PARTS = {
    "notebooks": notebooks_table,
    "claims": claims_table,
    "pruning": pruning_table,
    "structured": structured_table,
    "quantization": quantization_table,
    "per-channel": per_channel_table,
    "sensitivity": sensitivity_table,
    "combination": combination_table,
}
