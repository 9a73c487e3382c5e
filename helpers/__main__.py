"""`compression-lab`: the lab's commands. Each loads what it needs when it is called."""

import sys
import traceback

import click

from helpers.base.errors import InputError, LabError


class Commands(click.Group):
    """Turns the lab's own errors into one line and exit code 2; any other keeps its traceback."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except Exception as error:
            if not isinstance(error, LabError):
                raise
            raise _refusal(error, 2) from None


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
            raise _refusal(error, 3) from None
        except KeyboardInterrupt:
            raise _refusal(KeyboardInterrupt("interrupted: nothing was decided."), 3) from None


def _refusal(error, code):
    refused = click.ClickException(str(error.args[0]) if len(error.args) == 1 else str(error))
    refused.exit_code = code
    return refused


@click.group(cls=Commands)
def main():
    """The TensorFlow Model Compression Lab, from the command line."""


@main.command()
def doctor():
    """Check this machine and environment; say how to cure what is wrong."""
    from rich.console import Console
    from rich.table import Table

    from helpers import doctor

    checks = doctor.checks()
    table = Table("", "check", "found", "note or cure")
    for check in checks:
        table.add_row("ok" if check.ok else "NO", check.name, check.found, check.cure)
    Console(markup=False, highlight=False).print(table)
    sys.exit(int(not all(check.ok for check in checks)))


@main.command()
@click.option("--only", multiple=True, metavar="NOTEBOOK", help="Run only this one, as 01; may be repeated.")
@click.option("--profile", default="quick", show_default=True, help="A name in notebooks/profiles/, or a YAML file.")
@click.option(
    "-p",
    "given",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter in every notebook that declares it; may be repeated.",
)
@click.option("--fresh", is_flag=True, help="Start anew even if the former tour was interrupted.")
def tour(only, profile, given, fresh):
    """Run the notebooks in order; executed copies, results and figures go to runs/."""
    from helpers.lab import tour

    sys.exit(tour.run(only, profile, dict(given), fresh))


@main.command()
@click.argument("notebook")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="NAME=VALUES",
    help="final_sparsity=0.5,0.8 or seed=0:5 (end excluded); may be repeated, all combinations are run.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask scheduler, as tcp://host:8786. Default: this machine.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes on this machine. Default: as many as the cores carry."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="TensorFlow's, for each point.")
@click.option("--output", help="Folder. Default: sweeps/NOTEBOOK in the output folder; a rerun there goes on.")
def sweep(notebook, grid, scheduler, workers, threads, output):
    """Run NOTEBOOK at every point of a grid of parameters, on the cores of this machine or a Dask cluster."""
    from helpers.lab import sweep

    sys.exit(sweep.run(notebook, grid, scheduler, workers, threads, output))


@main.command()
@click.argument("names", nargs=-1)
@click.option(
    "--profile", default="quick", show_default=True, help="For another one: run it, keep results and figures."
)
@click.option("--machine", is_flag=True, help="Keep only the results, beside those of the reference machine.")
def record(names, profile, machine):
    """Run notebooks with their defaults; save outputs, results, figures and the tables of RESULTS.md in the repository."""
    from helpers.base import repository
    from helpers.lab import readme, tour

    if profile == repository.QUICK and not machine:
        code = tour.record(names)
    else:
        code = tour.run(names, profile)
        if not code:
            click.echo(f"Kept: {', '.join(tour.keep(profile, machine))}")
    if not code:
        readme.update()
    sys.exit(code)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--record", is_flag=True, help="Run the solutions first; keep their outputs and the seconds they took.")
def exercises(names, record):
    """Make the exercises from notebooks/solutions/ (01, ...; all by default)."""
    from helpers.lab import exercises

    if record and (code := exercises.record(names)):
        sys.exit(code)
    click.echo(f"Written: {', '.join(exercises.write(names))}")


@main.command()
def site():
    """Render README and the recorded notebooks as a static site that works offline, in the output folder's site/."""
    from helpers.lab import website

    click.echo(f"Open in a browser: {website.build()}")


@main.command()
@click.argument("name")
def train(name):
    """Train the checkpoint NAME again by its recipe, e.g. mobilenetv2_fashion_96; writes it into checkpoints/."""
    from helpers.networks import checkpoints

    card = checkpoints.train(name, click.echo)
    top1 = card["top1_test"]
    click.echo(
        f"{name}: test top-1 {top1['value']:.4f} [{top1['low']:.4f}, {top1['high']:.4f}] on {top1['images']:,} images"
    )


TARGET = click.option(
    "--target", metavar="ssh://[USER@]HOST[:PORT][/PYTHON]", help="Measure latency and memory on that machine."
)


@main.command(cls=Verdict)
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


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL.tflite...")
@click.option("--baseline", metavar="MODEL.tflite", help="The one to compare with. Default: the first.")
@click.option("--data", metavar="FILE.npz", help="x: samples as the models take them. Default: random ones.")
@TARGET
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(6), default=60, show_default=True, help="How often latency is measured.")
def measure(models, baseline, data, target, threads, rounds):
    """Size, latency ratio and peak memory of some models."""
    from rich.console import Console
    from rich.table import Table

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
    shown = Table("model", "bytes", "gzipped", "ms", "times as fast", "peak memory", *same)
    for row in frame.itertuples():
        ratio = f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"
        agreed = [f"{row.same:.1%}"] if target else []
        memory = f"{row.memory.value / 1e6:.1f} MB"
        shown.add_row(row.Index, f"{row.size:,}", f"{row.gzip:,}", f"{row.milliseconds:.3g}", ratio, memory, *agreed)
    Console(markup=False, highlight=False).print(shown)
    click.echo(", ".join(f"{name} {value}" for name, value in machine.items()) + f"; {threads} thread(s)")


@main.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--calibration", required=True, metavar="FILE.npz", help="x: float32 samples as the model takes them.")
@click.option("--test", "judged", metavar="FILE.npz", help="x and, if known, y: labels. Default: the calibration file.")
@click.option("--weights", type=click.Choice(["8", "4"]), default="8", show_default=True, help="Bits of the kernels.")
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--output", default="sensitivity", show_default=True, help="Folder for the table and the figure.")
def sensitivity(model, calibration, judged, weights, per_tensor, output):
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


@main.command("prune-channels")
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.option("--ratio", type=float, required=True, help="Share of the channels to remove, between 0 and 1.")
@click.option("--criterion", default="l1", show_default=True, help="l1, gamma, activation or random.")
@click.option("--scope", default="layer", show_default=True, help="layer: so much of each; global: of all together.")
@click.option("--multiple", default=1, show_default=True, help="Round the widths to multiples of this, e.g. 8.")
@click.option("--only", default="*", metavar="PATTERN", help='Layers whose channels may go, e.g. "*_expand".')
@click.option("--calibration", metavar="FILE.npz", help="x: float32 samples; the criterion activation needs them.")
@click.option("--seed", default=0, show_default=True, help="Of the criterion random.")
@click.option("--output", default="narrow.keras", show_default=True, help="The narrow model; a .csv goes beside it.")
def prune_channels(model, output, **choices):
    """Remove channels of MODEL (.keras, flat functional), so that it is smaller and faster; fine-tune it afterwards."""
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from helpers.compress import reports

    groups, totals = reports.prune_file(model, output, **choices)
    shown = Table("layer", "kind", "channels before", "after", "read by")
    for row in groups.itertuples():
        shown.add_row(row.group, row.kind, str(row.width), str(row.kept), row.consumers)
    Console(markup=False, highlight=False).print(shown)
    for line in reports.told(totals):
        click.echo(line)
    click.echo(f"Model and table: {output}, {Path(output).with_suffix('.csv')}")


if __name__ == "__main__":
    main(prog_name="compression-lab")
