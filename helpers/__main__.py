"""`python -m helpers`: the lab's commands. Each loads what it needs when it is called."""

import sys

import click


class Commands(click.Group):
    """Turns the lab's own errors into one line and exit code 2; any other keeps its traceback."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except Exception as error:
            if not (type(error).__module__.startswith("helpers.") or isinstance(error, FileNotFoundError)):
                raise
            refused = click.ClickException(str(error.args[0]) if len(error.args) == 1 else str(error))
            refused.exit_code = 2
            raise refused from None


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
    from helpers import tour

    sys.exit(tour.run(only, profile, dict(given), fresh))


@main.command()
@click.argument("names", nargs=-1)
@click.option(
    "--profile", default="quick", show_default=True, help="For another one: run it, keep results and figures."
)
def record(names, profile):
    """Run notebooks with their defaults; save outputs, results, figures and README's tables in the repository."""
    from helpers import files, readme, tour

    if profile == files.QUICK:
        code = tour.record(names)
    else:
        code = tour.run(names, profile)
        if not code:
            click.echo(f"Kept: {', '.join(tour.keep(profile))}")
    if not code:
        readme.update()
    sys.exit(code)


@main.command()
@click.argument("name")
def train(name):
    """Train the checkpoint NAME again by its recipe, e.g. mobilenetv2_fashion_96; writes it into checkpoints/."""
    from helpers import training

    card = training.train(name, click.echo)
    top1 = card["top1_test"]
    click.echo(
        f"{name}: test top-1 {top1['value']:.4f} [{top1['low']:.4f}, {top1['high']:.4f}] on {top1['images']:,} images"
    )


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.option("--calibration", required=True, metavar="FILE.npz", help="x: float32 samples as the model takes them.")
@click.option("--test", "judged", metavar="FILE.npz", help="x and, if known, y: labels. Default: the calibration file.")
@click.option("--weights", type=click.Choice(["8", "4"]), default="8", show_default=True, help="Bits of the kernels.")
@click.option("--per-tensor", is_flag=True, help="One scale for each kernel instead of one for each channel.")
@click.option("--output", default="sensitivity", show_default=True, help="Folder for the table and the figure.")
def sensitivity(model, calibration, judged, weights, per_tensor, output):
    """Which layers of MODEL (.tflite or .keras, float32) suffer from quantization; a killed run resumes."""
    from pathlib import Path

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from helpers import plots, requantize, sensitivity

    table = sensitivity.analyse_file(
        model,
        calibration,
        judged or calibration,
        requantize.Format(int(weights), 8, not per_tensor),
        Path(output) / "sensitivity.csv",
        lambda steps: track(steps, "layers", transient=True),
    )
    figure = plots.sensitivity(table, f"Damage when one layer alone has {weights}-bit weights: {Path(model).name}")
    plots.write(figure, Path(output) / "sensitivity.svg")
    shown = Table("layer", "operator", "SQNR, dB", "KL", "top-1 change", "protect as number")
    ranks = {layer: rank for rank, layer in enumerate(sensitivity.order(table)["layer"], 1)}
    for row in table[table["mode"] == sensitivity.ALONE].itertuples():
        change = f"{row.top1_change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        shown.add_row(row.layer, row.op, f"{row.sqnr_db:.1f}", f"{row.kl:.2g}", change, str(ranks[row.layer]))
    Console(markup=False, highlight=False).print(shown)
    click.echo(f"Table and figure: {output}/sensitivity.csv, {output}/sensitivity.svg")


if __name__ == "__main__":
    main(prog_name="python -m helpers")
