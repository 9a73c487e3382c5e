"""The commands on a model of the user's. Each loads what it needs when it is called."""

import sys
import traceback

import click

from helpers.base.errors import InputError, LabError


def refusal(error, code):
    """An error as click shows it: one line, and an exit code."""
    refused = click.ClickException(str(error.args[0]) if len(error.args) == 1 else str(error))
    refused.exit_code = code
    return refused


class Verdict(click.Command):
    """A command whose exit codes 1 and 2 are verdicts: whatever keeps it from one is code 3."""

    def make_context(self, *arguments, **settings):
        try:
            return super().make_context(*arguments, **settings)
        except click.UsageError as error:
            error.exit_code = 3
            raise

    def invoke(self, context):
        try:
            return super().invoke(context)
        except Exception as error:
            if not isinstance(error, LabError):
                traceback.print_exc()
            raise refusal(error, 3) from None
        except KeyboardInterrupt:
            raise refusal(KeyboardInterrupt("interrupted: nothing was decided."), 3) from None


OPENED = (
    click.option("--code", metavar="FILE.py", help="Defines the layers that only their author's code has."),
    click.option("--signature", metavar="NAME", help="Of a SavedModel; default: serving_default, or the only one."),
)


TABLES = (
    click.option("--csv", "csv", metavar="FILE.csv", help="Write the table there as well."),
    click.option("--json", "as_json", metavar="FILE.json", help="Write the table there as well."),
)


def tables(command):
    """The options that write a command's table for machines."""
    for option in reversed(TABLES):
        command = option(command)
    return command


def written(frame, csv, as_json):
    """Write a table to the files that were named; unrounded, with the names of its rows."""
    from helpers.base import repository

    if csv:
        repository.write(csv, frame.to_csv())
    if as_json:
        repository.write(as_json, frame.to_json(orient="index", indent=1) + "\n")


def told_apart(paths):
    """The part of each path that differs: without the folders that all have in common. path -> text."""
    from pathlib import Path

    parts = {path: Path(path).parts for path in paths}
    common = 0
    while len({each[: common + 1] for each in parts.values()}) == 1 and common + 1 < min(map(len, parts.values())):
        common += 1
    return {path: str(Path(*each[common:])) for path, each in parts.items()}


def opened(command):
    """The options that say how a model file is to be read."""
    for option in reversed(OPENED):
        command = option(command)
    return command


@click.command()
@click.argument("model", type=click.Path())
@click.option(
    "--recipe", default="int8", show_default=True, help="float32, float16, dynamic, int8, full_int8 or int16x8."
)
@click.option("--calibration", metavar="FILE.npz", help="x, or an array for each input under its name; int8 needs it.")
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--output", default="model.tflite", show_default=True)
@opened
@tables
def convert(model, recipe, calibration, per_tensor, output, code, signature, csv, as_json):
    """Quantize MODEL (.keras, .h5, .tflite or a SavedModel, float32) into a .tflite, and compare the two."""
    from pathlib import Path

    from helpers.compress import reports

    if calibration is None and (csv or as_json):
        raise InputError("--csv and --json tell how the two files compare: give --calibration data.npz as well.")
    own, table = reports.convert_file(
        model, output, recipe, calibration, not per_tensor, code=code, signature=signature
    )
    for note in own.notes:
        click.echo(note)
    size, former = Path(output).stat().st_size, len(own.file)
    click.echo(f"{output}: {size:,} bytes, {size / former:.0%} of float32 ({former:,}).")
    if table is not None:
        for row in table.itertuples():
            click.echo(
                f"{row.Index}: {row.sqnr_db:.1f} dB against float32; the same largest answer for {row.same:.1%}."
            )
        click.echo(
            "Compared on the calibration samples, which cannot tell whether they are the right ones: judge it on others."
        )
        written(table, csv, as_json)


TARGET = click.option(
    "--target", metavar="ssh://[USER@]HOST[:PORT][/PYTHON]", help="Measure latency and memory on that machine."
)


@click.command(cls=Verdict)
@click.argument("candidate", metavar="CANDIDATE.tflite")
@click.option("--baseline", required=True, metavar="FILE.tflite", help="The model that it is to replace.")
@click.option(
    "--data",
    required=True,
    metavar="FILE.npz",
    help="x: float samples as the models take them; y: labels; slice, if any.",
)
@click.option("--policy", "path", metavar="FILE.yaml", help="Limits as keys: max_drop: 0.02; null does not ask.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="A limit, over the policy's: "
    "max_drop (0.02 unless you say otherwise), max_class_drop, max_slice_drop (shares of top-1: 0.02 is 2 points), "
    "min_agreement (share), min_speedup (times), max_size, max_peak_memory (bytes); may be repeated.",
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
def gate(candidate, baseline, data, path, limits, reports, target, seconds, memory, rounds, speed):
    """Accept (exit code 0) or reject (1) a compressed model; 2 is undecided, 3 bad input.

    Both files must be classifiers with 2 outputs or more. Candidates that take int8 get x in float as well: the gate
    quantizes it by the file's own scale.
    """
    from pathlib import Path

    from rich.console import Console

    from helpers.deploy import gate, gate_report
    from helpers.deploy.policy import Policy
    from helpers.tflite import inputs
    from helpers.tflite.remote import Target

    read = {Path(given).resolve() for given in (candidate, baseline, data, path) if given}
    for report in reports:
        if Path(report).resolve() in read:
            raise InputError(f"--report={report!r} is to be read as well: name another file.")
        gate_report.clear(report)
    policy = (Policy.read(path) if path else Policy()).limited(limits)
    if not speed and (policy.min_speedup is not None or policy.max_peak_memory is not None):
        raise InputError("--no-speed contradicts a limit of speedup or peak memory: leave one of them out.")
    given = inputs.arrays(data, needed=("x", "y"))
    decision = gate.judge(
        candidate,
        baseline,
        given["x"],
        given["y"],
        policy,
        given.get("slice"),
        limits=gate.Limits(seconds, memory * 1_000_000),
        rounds=rounds,
        target=Target(target) if target else None,
        speed=speed,
    )
    Console(markup=False, highlight=False).print(gate_report.table(decision))
    click.echo(gate_report.summary(decision))
    for report in reports:
        gate_report.write(decision, report)
    sys.exit(decision.exit_code)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL.tflite...")
@click.option("--baseline", metavar="MODEL.tflite", help="The one to compare with. Default: the first.")
@click.option("--data", metavar="FILE.npz", help="x: samples as the models take them. Default: random ones.")
@TARGET
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(6), default=60, show_default=True, help="How often latency is measured.")
@tables
def measure(models, baseline, data, target, threads, rounds, csv, as_json):
    """Size, latency ratio and peak memory of some models."""
    from rich.console import Console
    from rich.table import Column, Table

    from helpers.tflite import inputs, measure
    from helpers.tflite.remote import Target

    baseline = baseline or models[0]
    frame, machine = measure.report(
        {path: path for path in (baseline, *models)},
        baseline,
        inputs.arrays(data)["x"] if data else None,
        rounds,
        threads,
        Target(target) if target else None,
    )
    same = ["same answers as here"] if target else []
    names = told_apart(frame.index)
    shown = Table(Column("model", overflow="fold"), "bytes", "gzipped", "ms", "times as fast", "peak memory", *same)
    for row in frame.itertuples():
        ratio = f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"
        agreed = [f"{row.same:.1%}"] if target else []
        memory = f"{row.memory.value / 1e6:.1f} MB"
        shown.add_row(
            names[row.Index], f"{row.size:,}", f"{row.gzip:,}", f"{row.milliseconds:.3g}", ratio, memory, *agreed
        )
    Console(markup=False, highlight=False).print(shown)
    click.echo(", ".join(f"{name} {value}" for name, value in machine.items()) + f"; {threads} thread(s)")
    memory = frame["memory"].map(lambda estimate: estimate.value)
    written(frame.assign(memory=memory), csv, as_json)


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--calibration", required=True, metavar="FILE.npz", help="x: float32 samples as the model takes them.")
@click.option("--test", "judged", metavar="FILE.npz", help="x and, if known, y: labels. Default: the calibration file.")
@click.option("--weights", type=click.Choice(["8", "4"]), default="8", show_default=True, help="Bits of the kernels.")
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--output", default="sensitivity", show_default=True, help="Folder for the table and the figure.")
@opened
@tables
def sensitivity(model, calibration, judged, weights, per_tensor, output, code, signature, csv, as_json):
    """Which layers of MODEL (.tflite, .keras, .h5 or a SavedModel, float32) suffer from quantization; a killed run resumes."""
    from pathlib import Path

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import reports, requantize, sensitivity
    from helpers.evidence import plots

    table = reports.analyse_file(
        model,
        calibration,
        judged or calibration,
        requantize.Format(int(weights), 8, not per_tensor),
        Path(output) / "sensitivity.csv",
        lambda steps: track(steps, "layers", transient=True),
        code=code,
        signature=signature,
    )
    drawn = table.assign(kind=sensitivity.kinds(table))
    figure = plots.sensitivity(drawn, f"Damage when one layer alone has {weights}-bit weights: {Path(model).name}")
    plots.write(figure, Path(output) / "sensitivity.svg")
    shown = Table("layer", "operator", "SQNR, dB", "KL", "top-1 change", "protect as number")
    ranks = {layer: rank for rank, layer in enumerate(sensitivity.order(table)["layer"], 1)}
    for row in table[table["mode"] == sensitivity.ALONE].itertuples():
        change = f"{row.top1_change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        shown.add_row(row.layer, row.op, f"{row.sqnr_db:.1f}", f"{row.kl:.2g}", change, str(ranks[row.layer]))
    Console(markup=False, highlight=False).print(shown)
    click.echo(f"Table and figure: {output}/sensitivity.csv, {output}/sensitivity.svg")
    click.echo("The notebook your_own_model makes a file with layers in float, in the order of the last column.")
    written(table, csv, as_json)


@click.command("prune-channels")
@click.argument("model", type=click.Path(exists=True))
@click.option("--ratio", type=float, required=True, help="Share of the channels to remove, between 0 and 1.")
@click.option("--criterion", default="l1", show_default=True, help="l1, gamma, activation or random.")
@click.option("--scope", default="layer", show_default=True, help="layer: so much of each; global: of all together.")
@click.option("--multiple", default=1, show_default=True, help="Round the widths to multiples of this, e.g. 8.")
@click.option("--only", default="*", metavar="PATTERN", help='Layers whose channels may go, e.g. "*_expand".')
@click.option("--calibration", metavar="FILE.npz", help="x: float32 samples; the criterion activation needs them.")
@click.option("--seed", default=0, show_default=True, help="Of the criterion random.")
@click.option("--output", default="narrow.keras", show_default=True, help="The narrow model; a .csv goes beside it.")
@opened
@tables
def prune_channels(model, output, csv, as_json, **choices):
    """Remove channels of MODEL (.keras, .h5 or a SavedModel of Keras 2), so that it is smaller and faster; fine-tune it then.

    The narrow model is a file of Keras 2: tf_keras.models.load_model opens it, which needs the package tf_keras."""
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from helpers.compress import reports

    groups, whole, totals = reports.prune_file(model, output, **choices)
    shown = Table("layer", "kind", "channels before", "after", "read by")
    for row in groups.itertuples():
        shown.add_row(row.group, row.kind, str(row.width), str(row.kept), row.consumers)
    Console(markup=False, highlight=False).print(shown)
    for name, why in whole.items():
        click.echo(f"{name} stays whole: {why}.")
    for line in reports.told(totals):
        click.echo(line)
    click.echo(f"Model and table: {output}, {Path(output).with_suffix('.csv')}")
    click.echo("The model is a file of Keras 2: fine-tune it with the package tf_keras (tf_keras.models.load_model).")
    written(groups.set_index("group"), csv, as_json)


@click.command()
@click.argument("model", type=click.Path())
@click.option("--data", required=True, metavar="FILE.npz", help="x, or an array for each input; y: labels, if known.")
@click.option("--test", metavar="FILE.npz", help="The same, to judge on. Default: a fifth of the data, not trained on.")
@click.option(
    "--weights", type=click.Choice(["8", "4", "float"]), default="8", show_default=True, help="Bits of the kernels."
)
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--sparsity", metavar="SHARE|N:M", help="Zeros to train for as well, such as 0.5 or 2:4.")
@click.option("--teacher", default="self", show_default=True, help="self: the float file's own answers; or labels.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True)
@click.option("--learning-rate", type=float, default=3e-4, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", default="trained.tflite", show_default=True)
@opened
@tables
def train(model, data, test, weights, per_tensor, output, code, signature, csv, as_json, **settings):
    """Train MODEL (.tflite, .keras, .h5 or a SavedModel, float32) for its quantized or sparse .tflite; a killed run resumes.

    It needs no labels: a hundred samples, and the file teaches itself. Whatever made it, it is trained as a .tflite."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import reports
    from helpers.deploy import gate, gate_report

    bits = None if weights == "float" else int(weights)
    lesson = reports.Lesson(bits, not per_tensor, **settings)
    own, table, judged, known, files = reports.train_file(
        model,
        data,
        output,
        lesson,
        test,
        lambda steps: track(steps, "steps", transient=True),
        code=code,
        signature=signature,
    )
    for note in own.notes:
        click.echo(note)
    forms = {"bytes": "{:,.0f}", "sqnr_db": "{:.1f}", "same": "{:.1%}", "top1": "{:.1%}", "ratio": "{:.2f}"}
    names = {"sqnr_db": "SQNR, dB", "same": "answers as float32", "top1": "top-1", "ratio": "times as fast"}
    columns = [name for name in forms if name in table]
    shown = Table("", *(names.get(name, name) for name in columns))
    for name, row in table.iterrows():
        shown.add_row(name, *(forms[column].format(row[column]) for column in columns))
    Console(markup=False, highlight=False).print(shown)
    if "difference" in table:
        for name in ("not trained", "trained"):
            click.echo(f"{name} against float32: {table['difference'][name]:points}")
    samples = next(iter(judged.values()))
    click.echo(
        f"{output}: {table['bytes']['trained']:,} bytes; judged on {len(samples):,} samples that were not trained on."
    )
    if known is not None and own.is_classifier():
        try:
            click.echo(gate_report.summary(gate.judge(files["trained"], own.file, samples, known, speed=False)))
        except InputError as error:
            click.echo(f"The gate did not judge: {error}")
    else:
        click.echo("Without labels the gate has nothing to judge by: add y to the samples that it is judged on.")
    written(table.map(lambda value: getattr(value, "value", value)), csv, as_json)


COMMANDS = (convert, train, gate, measure, sensitivity, prune_channels)
