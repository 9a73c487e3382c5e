"""`compression-lab`: the lab's commands. Each loads what it needs when it is called; those on a model stand in
model_commands and judging_commands."""

import sys

import click

from helpers import judging_commands, model_commands
from helpers.base import extras, repository
from helpers.base.errors import InputError, LabError
from helpers.options import refusal

JOBS = click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Notebooks that run at the same time."
)


class Commands(click.Group):
    """Turns the lab's own errors into one line and exit code 2; any other keeps its traceback."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except Exception as error:
            told = extras.explained(error, f"compression-lab {context.invoked_subcommand}")
            if not isinstance(told, LabError):
                raise
            raise refusal(told, 2) from None


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


@main.group()
def target():
    """Other processors to measure on: which there are, and making one."""


@target.command("list")
def list_targets():
    """Which targets are ready, and what each tells."""
    from rich.console import Console
    from rich.table import Table

    from helpers.targets import known

    table = Table("target", "ready", "tells, or lacks")
    for name, ready, told in known.listed():
        table.add_row(name, "yes" if ready else "no", told)
    Console(markup=False, highlight=False).print(table)


@target.command()
@click.argument("kind", type=click.Choice(["arm64", "gpu"]))
def prepare(kind):
    """Make the ARM root for qemu://, or an adapter in software for gpu, in the user's cache; an interrupted one goes on."""
    from helpers.targets import known

    known.PREPARED[kind](click.echo)


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
@JOBS
def tour(only, profile, given, fresh, jobs):
    """Run the notebooks in order; executed copies, results and figures go to runs/."""
    from helpers.lab import tour

    sys.exit(tour.run(only, profile, dict(given), fresh, jobs))


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
@JOBS
def record(names, profile, machine, jobs):
    """Run notebooks with their defaults; save outputs, results, figures and the tables of RESULTS.md in the repository."""
    repository.needed_for("compression-lab record")
    from pathlib import Path

    from helpers.lab import readme, tour

    if Path(profile).suffix:
        raise InputError(
            f"profile={profile!r} is private, and its results are no record: put it in notebooks/profiles/."
        )
    if profile == repository.QUICK and not machine:
        if jobs > 1:
            raise InputError(
                "--jobs is for another --profile, or --machine: outputs that stand in notebooks are made one at a time."
            )
        code = tour.record(names)
    else:
        code = tour.run(names, profile, jobs=jobs)
        if not code:
            click.echo(f"Kept: {', '.join(tour.keep(profile, names, machine))}")
    if not code:
        readme.update()
    sys.exit(code)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--record", is_flag=True, help="Run the solutions first; keep their outputs and the seconds they took.")
def exercises(names, record):
    """Make the exercises from notebooks/solutions/ (01, ...; all by default)."""
    repository.needed_for("compression-lab exercises")
    from helpers.lab import exercises

    if record and (code := exercises.record(names)):
        sys.exit(code)
    click.echo(f"Written: {', '.join(exercises.write(names))}")


@main.command()
@click.option("--key", "with_key", is_flag=True, help="The right answers too.")
@click.option(
    "--gain",
    metavar="ANSWERS.CSV",
    help="What a room learned: a row a person, its letters in the columns before and after.",
)
def quiz(with_key, gain):
    """Print the ten questions of a workshop; or judge the answers that people gave before and after it."""
    from helpers.lab import quiz

    if gain:
        before, after, gained = quiz.gain(gain)
        click.echo(
            f"right before {before:.1%}, after {after:.1%}, gained {gained:points} (95% interval, paired by person)"
        )
        return
    click.echo(quiz.sheet())
    if with_key:
        click.echo(f"\nKey: {quiz.key()}")


@main.command()
def site():
    """Write README, the recorded notebooks, the guides and a reference as a site that works offline, in the output folder's site/."""
    repository.needed_for("compression-lab site")
    from helpers.lab import website

    click.echo(f"Open in a browser: {website.build(main, click.echo)}")


@main.command()
@click.argument("name")
def checkpoint(name):
    """Train the repository's checkpoint NAME again by its recipe, e.g. mobilenetv2_fashion_96; writes it into checkpoints/."""
    repository.needed_for("compression-lab checkpoint")
    from helpers.networks import checkpoints

    card = checkpoints.train(name, click.echo)
    for measure, reached in card.items():
        if measure.endswith("_test"):
            value, low, high, *_ = reached.values()
            on = next(f"{number:,} {what}" for what, number in reached.items() if what not in ("value", "low", "high"))
            click.echo(f"{name}: {measure} {value:.4f} [{low:.4f}, {high:.4f}] on {on}")


for command in (*model_commands.COMMANDS, *judging_commands.COMMANDS):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="compression-lab")
