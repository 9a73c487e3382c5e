"""The commands that judge a model of the user's. Each loads what it needs when it is called."""

import sys

import click

from helpers.base.errors import InputError, LabError
from helpers.options import (
    SIGNATURE,
    TARGET,
    Verdict,
    for_a_purpose,
    given,
    opened,
    pairs,
    signature,
    tables,
    told_apart,
    written,
)


@click.command(cls=Verdict)
@click.argument("candidate", metavar="CANDIDATE.tflite")
@click.option("--baseline", required=True, metavar="FILE.tflite", help="The model that it is to replace.")
@click.option(
    "--data",
    required=True,
    metavar="FILE.npz",
    help="x: samples as the models take them, or an array for each input under its name; y: labels, or y_<output> for each of "
    "several outputs; without labels the baseline's own answers count as right; slice, if any.",
)
@click.option(
    "--policy", "path", callback=given, metavar="FILE.yaml", help="Limits as keys: max_drop: 0.02; null does not ask."
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="A limit, over the policy's: "
    "max_drop (0.02 unless you say otherwise), max_class_drop, max_slice_drop (shares of the score: 0.02 is 2 points), "
    "min_agreement (share), min_sqnr (dB), max_damage, min_speedup (times), max_size, max_peak_memory (bytes); may be repeated.",
)
@for_a_purpose
@signature(" BASELINE=CANDIDATE where the two call it differently.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="BASELINE=CANDIDATE",
    help="What the candidate calls one of the baseline's outputs, where names differ; may be repeated.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FILE",
    help="Write the decision as .json, or the checks as JUnit .xml; may be repeated.",
)
@TARGET
@click.option("--seconds", type=float, default=600, show_default=True, help="Time limit of each child process.")
@click.option("--memory", type=int, default=4000, show_default=True, help="Memory limit of each child process, in MB.")
@click.option("--rounds", type=int, default=60, show_default=True, help="How often latency is measured.")
@click.option(
    "--speed/--no-speed",
    default=True,
    show_default=True,
    help="Measure latency and memory even if no limit asks for it.",
)
def gate(
    candidate,
    baseline,
    data,
    path,
    limits,
    tasks,
    metric,
    signature,
    outputs,
    reports,
    target,
    seconds,
    memory,
    rounds,
    speed,
):
    """Accept (exit code 0) or reject (1) a compressed model; 2 is undecided, 3 bad input.

    Candidates that take int8 get x in float as well: the gate quantizes it by the file's own scale.
    """
    from pathlib import Path

    from rich.console import Console

    from helpers.deploy import gate, gate_report
    from helpers.deploy.policy import Policy
    from helpers.targets import known
    from helpers.tflite import inputs
    from helpers.tflite.heads import Purpose

    read = {Path(given).resolve() for given in (candidate, baseline, data, path) if given}
    refused = []
    for report in reports:
        try:
            if Path(report).resolve() in read:
                raise InputError(f"--report={report!r} is to be read as well: name another file.")
            gate_report.clear(report)
        except LabError as error:
            refused.append(error)  # after all others are gone
    if refused:
        raise refused[0]
    policy = (Policy.read(path) if path else Policy()).limited(limits)
    if not speed and (policy.min_speedup is not None or policy.max_peak_memory is not None):
        raise InputError("--no-speed contradicts a limit of speedup or peak memory: leave one of them out.")
    x, y, slices = inputs.judged(data)
    renamed = pairs(outputs, "output")
    if isinstance(renamed, str):
        raise InputError(f"output={renamed!r} must read BASELINE=CANDIDATE.")
    decision = gate.judge(
        candidate,
        baseline,
        x,
        y,
        policy,
        slices,
        purpose=Purpose(pairs(tasks, "task"), metric, renamed or {}),
        signature=signature,
        limits=gate.Limits(seconds, memory * 1_000_000),
        rounds=rounds,
        target=known.opened(target) if target else None,
        speed=speed,
    )
    for report in reports:  # before what a terminal may not be able to show
        gate_report.write(decision, report)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the ² of R² where it is not known
    Console(markup=False, highlight=False).print(gate_report.table(decision))
    click.echo(f"Task: {decision.judged}.")
    click.echo(gate_report.summary(decision))
    sys.exit(decision.exit_code)


# A column of what `measure` reports -> its heading, and what stands in a row.
_MEASURED = {
    "size": ("bytes", lambda row: f"{row.size:,}"),
    "gzip": ("gzipped", lambda row: f"{row.gzip:,}"),
    "milliseconds": ("ms", lambda row: f"{row.milliseconds:.3g}"),
    "ratio": ("times as fast", lambda row: f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"),
    "memory": ("peak memory", lambda row: f"{row.memory.value / 1e6:.1f} MB"),
    "instructions": ("million instructions", lambda row: f"{row.instructions / 1e6:.3g}"),
    "instruction_ratio": ("times fewer", lambda row: f"{row.instruction_ratio:.2f}"),
    "same": ("same answers", lambda row: f"{row.same:.1%}"),
    "bit_equal": ("bit-equal", lambda row: f"{row.bit_equal:.1%}"),
    "difference": ("differs by", lambda row: f"{row.difference:.2g}"),
}


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL.tflite...")
@click.option("--baseline", metavar="MODEL.tflite", help="The one to compare with. Default: the first.")
@click.option("--data", metavar="FILE.npz", help="x, or an array for each input under its name. Default: random ones.")
@SIGNATURE
@TARGET
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(6), default=60, show_default=True, help="How often latency is measured.")
@tables
def measure(models, baseline, data, signature, target, threads, rounds, csv, as_json):
    """Size, latency ratio and peak memory of some models; on an emulated processor instructions instead, and whether it answers the
    same."""
    from rich.console import Console
    from rich.table import Column, Table

    from helpers.targets import known
    from helpers.tflite import inputs, measure

    baseline = baseline or models[0]
    frame, machine = measure.report(
        {path: path for path in (baseline, *models)},
        baseline,
        inputs.judged(data)[0] if data else None,
        rounds,
        threads,
        known.opened(target) if target else None,
        signature,
    )
    names = told_apart(frame.index)
    columns = [column for column in _MEASURED if column in frame]
    shown = Table(Column("model", overflow="fold"), *(_MEASURED[column][0] for column in columns))
    for row in frame.itertuples():
        shown.add_row(names[row.Index], *(_MEASURED[column][1](row) for column in columns))
    Console(markup=False, highlight=False).print(shown)
    click.echo(", ".join(f"{name} {value}" for name, value in machine.items()) + f"; {threads} thread(s)")
    if "memory" in frame:
        frame["memory"] = frame["memory"].map(lambda estimate: estimate.value)
    written(frame, csv, as_json)


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--calibration", required=True, metavar="FILE.npz", help="x, or an array for each input under its name.")
@click.option(
    "--test",
    "judged",
    metavar="FILE.npz",
    help="The same and, if known, y: labels, or y_<output> for each of several outputs. Default: the calibration file.",
)
@for_a_purpose
@click.option("--every", is_flag=True, help="Also operators without weights (ADD, SOFTMAX, …), with their tensors.")
@click.option("--weights", type=click.Choice(["8", "4"]), default="8", show_default=True, help="Bits of the kernels.")
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--output", default="sensitivity", show_default=True, help="Folder for the table and the figure.")
@opened
@tables
def sensitivity(
    model,
    calibration,
    judged,
    tasks,
    metric,
    every,
    weights,
    per_tensor,
    output,
    code,
    signature,
    csv,
    as_json,
):
    """Which layers of MODEL (.tflite, .keras, .h5 or a SavedModel, float32) suffer from quantization; a killed run resumes."""
    from pathlib import Path

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import requantize, sensitivity, sensitivity_files
    from helpers.evidence import plots
    from helpers.tflite.heads import Purpose

    _, table = sensitivity_files.of_file(
        model,
        calibration,
        judged or calibration,
        requantize.Format(int(weights), 8, not per_tensor),
        Path(output) / "sensitivity.csv",
        lambda steps: track(steps, "layers", transient=True),
        every,
        Purpose(pairs(tasks, "task"), metric),
        code=code,
        signature=signature,
    )
    drawn = table.assign(kind=sensitivity.kinds(table))
    figure = plots.sensitivity(
        drawn, f"Damage when one layer alone has {weights}-bit weights: {Path(model).name}", table.attrs["unit"]
    )
    plots.write(figure, Path(output) / "sensitivity.svg")
    shown = Table("layer", "operator", "SQNR, dB", "damage", "change", "protect as number")
    ranks = {layer: rank for rank, layer in enumerate(sensitivity.order(table)["layer"], 1)}
    for row in table[table["mode"] == sensitivity.ALONE].itertuples():
        change = f"{row.change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        shown.add_row(row.layer, row.op, f"{row.sqnr_db:.1f}", f"{row.damage:.2g}", change, str(ranks[row.layer]))
    Console(markup=False, highlight=False).print(shown)
    click.echo(f"Task: {table.attrs['judged']}. Damage: {table.attrs['unit']}.")
    for sentence in table.attrs["causes"]:
        click.echo(f"Likely cause of what all together lose: {sentence}.")
    click.echo(f"Table and figure: {output}/sensitivity.csv, {output}/sensitivity.svg")
    click.echo("The notebook your_own_model makes a file with layers in float, in the order of the last column.")
    written(table, csv, as_json)


COMMANDS = (gate, measure, sensitivity)
