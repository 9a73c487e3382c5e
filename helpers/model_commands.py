"""The commands that make a file of a model of the user's. Each loads what it needs when it is called."""

from dataclasses import replace

import click

from helpers.base.errors import InputError
from helpers.options import for_a_purpose, opened, pairs, tables, written


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
            same = "" if row.same != row.same else f"; read as {row.task}, the same answer for {row.same:.1%}"
            click.echo(f"{row.Index}: {row.sqnr_db:.1f} dB against float32{same}.")
        click.echo(
            "Compared on the calibration samples, which cannot tell whether they are the right ones: judge it on others."
        )
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

    The narrow model of a Keras 3 file is a file of Keras 3, which keras.models.load_model opens. That of a Keras 2 file, and
    of the few that Keras 3 cannot build anew, is a flat one of Keras 2: tf_keras.models.load_model, of the package tf_keras."""
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from helpers.compress import reports

    groups, whole, totals, notes = reports.prune_file(model, output, **choices)
    shown = Table("layer", "kind", "channels before", "after", "read by")
    for row in groups.itertuples():
        shown.add_row(row.group, row.kind, str(row.width), str(row.kept), row.consumers)
    Console(markup=False, highlight=False).print(shown)
    for name, why in whole.items():
        click.echo(f"{name} stays whole: {why}.")
    for line in reports.told(totals):
        click.echo(line)
    click.echo(f"Model and table: {output}, {Path(output).with_suffix('.csv')}")
    for note in notes:
        click.echo(note)
    written(groups.set_index("group"), csv, as_json)


@click.command()
@click.argument("model", type=click.Path())
@click.option("--data", required=True, metavar="FILE.npz", help="x, or an array for each input; y: labels, if known.")
@click.option("--test", metavar="FILE.npz", help="The same, to judge once; default: the fifth that chooses.")
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
@for_a_purpose
@opened
@tables
def train(model, data, test, tasks, metric, weights, per_tensor, output, code, signature, csv, as_json, **settings):
    """Train MODEL (.tflite, .keras, .h5 or a SavedModel, float32) for its quantized or sparse .tflite; a killed run resumes.

    It needs no labels: a hundred samples, and the file teaches itself. Whatever made it, it is trained as a .tflite.
    A fifth of the data is not trained on, but chooses which weights stay: to know how good they are, give other samples as --test.
    """
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import reports
    from helpers.deploy import gate, gate_report
    from helpers.tflite.heads import Purpose

    bits = None if weights == "float" else int(weights)
    purpose = Purpose(pairs(tasks, "task"), metric)
    lesson = reports.Lesson(bits, not per_tensor, **settings)
    own, table, judged, known, files = reports.train_file(
        model,
        data,
        output,
        lesson,
        test,
        lambda steps: track(steps, "steps", transient=True),
        purpose,
        code=code,
        signature=signature,
    )
    for note in own.changes:
        click.echo(note)
    forms = {"bytes": "{:,.0f}", "sqnr_db": "{:.1f}", "ratio": "{:.2f}"}
    names = {"sqnr_db": "SQNR, dB", "same": "answers as float32", "top1": "top-1", "ratio": "times as fast"}
    left_out = ("milliseconds", "low", "high")
    columns = [name for name in table if name not in left_out and not name.startswith("delta_")]
    shown = Table("", *(names.get(name, name) for name in columns))
    for name, row in table.iterrows():
        shown.add_row(name, *(forms.get(column, "{:.1%}").format(row[column]) for column in columns))
    Console(markup=False, highlight=False).print(shown)
    for column in [name for name in table if name.startswith("delta_")]:
        for name in table.index[1:]:
            click.echo(f"{name} against float32, {column.removeprefix('delta_')}: {table[column][name]:points}")
    if files["trained"] == files.get("not trained", own.file):
        click.echo(
            "No step made it better, so its weights are as they were: train at a smaller --learning-rate than "
            f"{lesson.learning_rate:g}, such as {lesson.learning_rate / 10:g}."
        )
    samples = next(iter(judged.values()))
    if test is None:
        how = "that were not trained on but chose which weights stay: judge once on others (--test FILE.npz)."
    else:
        how = "of --test, which nothing else was done with."
    click.echo(f"{output}: {table['bytes']['trained']:,} bytes; judged on {len(samples):,} samples {how}")
    purpose = replace(purpose, informed=test is None)  # all samples have shown it, of which these are a few
    decision = gate.judge(files["trained"], own.file, judged, known, purpose=purpose, speed=False)
    click.echo(f"Task: {decision.judged}.")
    click.echo(gate_report.summary(decision))
    written(table.map(lambda value: getattr(value, "value", value)), csv, as_json)


@click.command()
@click.argument("model", type=click.Path())
@click.option("--calibration", required=True, metavar="FILE.npz", help="x, or an array for each input under its name.")
@click.option(
    "--budget",
    required=True,
    metavar="60%|BYTES|POINTS",
    help="Of the int8 file's bytes, as 60%; bytes, as 450000 or 450kB; or what may be lost against float32 for the smallest file, "
    "as 1point.",
)
@click.option(
    "--selection",
    metavar="FILE.npz",
    help="x and, if known, y: what candidates are measured on. Default: the calibration file.",
)
@click.option("--test", metavar="FILE.npz", help="The same, to judge once; default: what they were measured on.")
@click.option(
    "--per-tensor", is_flag=True, help="One scale for each kernel, everywhere. Default: whatever a layer needs."
)
@click.option(
    "--activations",
    type=click.Choice(["8", "dynamic", "float"]),
    default="8",
    show_default=True,
    help="Of all layers; dense ones in dynamic range may have blocks of weights with a scale each.",
)
@click.option(
    "--tries", type=click.IntRange(1), default=100, show_default=True, help="Files to measure, after the sweep."
)
@click.option("--rounds", type=click.IntRange(6), default=30, show_default=True, help="How often latency is measured.")
@click.option("--output", default="search", show_default=True, help="Folder for the file, the tables and the figure.")
@for_a_purpose
@opened
@tables
def search(
    model,
    calibration,
    budget,
    selection,
    test,
    per_tensor,
    activations,
    tries,
    rounds,
    tasks,
    metric,
    output,
    code,
    signature,
    csv,
    as_json,
):
    """Choose 4 bits, 8 bits or float32 for each layer of MODEL (.tflite, .keras, .h5 or a SavedModel, float32), under a budget.

    The file found does least damage of those of so many bytes, or is the smallest of those that lose so few points. It is chosen on
    --selection. Exit code 1: no file that was found loses so few; the one that loses least is written.

    Fewer bits are fewer bytes, not less time: where it was measured (x86, XNNPACK), convolutional networks with 4 bits ran at a quarter
    to seven tenths of int8's speed. The report says at which yours runs here."""
    import sys
    from pathlib import Path

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import bits_report
    from helpers.evidence import plots
    from helpers.tflite.heads import Purpose

    bits_report.check_output(model, output)
    report = bits_report.search_file(
        model,
        {"calibration": calibration, "selection": selection, "test": test},
        budget,
        bits_report.Wanted("tensor" if per_tensor else "both", activations, tries, rounds),
        lambda layers: track(layers, "layers", transient=True),
        Purpose(pairs(tasks, "task"), metric),
        code=code,
        signature=signature,
    )
    bits_report.write(report, output)
    figure = plots.front(report.tried, bits_report.title(report, Path(model).name), report.unit)
    plots.write(figure, Path(output) / "front.svg")
    shown = Table("layer", "kind", "format", "bytes", "damage")
    for row in report.layers.itertuples():
        shown.add_row(row.layer, row.kind, row.format, f"{row.bytes:,}", f"{row.damage:.2g}")
    Console(markup=False, highlight=False).print(shown)
    for line in (*report.own.changes, *bits_report.told(report, judged_on_others=test is not None)):
        click.echo(line)
    click.echo(f"File, layers, front: {output}/model.tflite, layers.csv, front.csv, front.svg")
    written(report.layers.set_index("layer"), csv, as_json)
    sys.exit(0 if report.found.reached else 1)


@click.command()
@click.argument("model", type=click.Path())
@click.option(
    "--calibration", required=True, metavar="FILE.npz", help="x, or an array for each input; y: labels, if known."
)
@click.option("--test", metavar="FILE.npz", help="The same, to judge once; default: the half that chooses.")
@click.option(
    "--limit", type=float, default=0.01, show_default=True, help="By how much the score may fall; 0.01 is 1 point."
)
@click.option(
    "--without",
    multiple=True,
    metavar="STEP",
    help="Leave a step out: cleared, corrected, equalized, migrated, capped, gated, per_channel, float or trained; may be repeated.",
)
@click.option("--seed", default=0, show_default=True, help="Of the halves of the samples, and of training.")
@click.option("--output", default="rescued.tflite", show_default=True)
@for_a_purpose
@opened
@tables
def rescue(model, calibration, test, limit, without, seed, tasks, metric, output, code, signature, csv, as_json):
    """Make a working int8 .tflite with one scale for each kernel of MODEL (.tflite, .keras, .h5 or a SavedModel, float32).

    Cures are tried in the order of what they cost, until the answers are within the limit of float32's: exit code 0. If none
    brings them there, the best file is written all the same: exit code 1. It needs no labels. Half of the calibration samples set
    ranges, and the other half chooses: give some hundreds.
    """
    import sys

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers.compress import rescue_files
    from helpers.deploy import gate, gate_report
    from helpers.deploy.policy import Policy
    from helpers.tflite.heads import Purpose

    purpose = Purpose(pairs(tasks, "task"), metric)
    own, saved, judged, known = rescue_files.of_file(
        model,
        calibration,
        output,
        test,
        limit,
        purpose,
        without,
        lambda steps: track(steps, "steps", transient=True),
        seed,
        code=code,
        signature=signature,
    )
    for note in own.changes:
        click.echo(note)
    shown = Table("step", "", "change, points", "same", "damage", "kB", "one scale")
    for name, row in saved.table.iterrows():
        shown.add_row(name, *rescue_files.told(row))
    Console(markup=False, highlight=False).print(shown)
    for sentence in rescue_files.sentences(saved, limit):
        click.echo(sentence)
    samples = judged if isinstance(judged, dict) else {own.inputs[0].name: judged}
    decision = gate.judge(saved.file, own.file, samples, known, Policy(max_drop=limit), purpose=purpose, speed=False)
    how = "of --test, which nothing was chosen by" if test else "that chose: judge once on others (--test FILE.npz)"
    click.echo(f"{output}: {len(saved.file):,} bytes. The gate, on {decision.data['samples']:,} samples {how}.")
    click.echo(f"Task: {decision.judged}.")
    click.echo(gate_report.summary(decision))
    written(saved.table, csv, as_json)
    sys.exit(int(not saved.reached or (test is not None and known is not None and decision.outcome == gate.REJECTED)))


COMMANDS = (convert, train, search, rescue, prune_channels)
