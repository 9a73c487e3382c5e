"""How much faster a `.tflite` is judged in batches than by the one-sample loop of the official tutorials.

Both give the same predictions, bit for bit. The two take turns, so that a machine that slows down slows both.
"""

import sys
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

from helpers.base import runtime_env
from helpers.compress import quantize
from helpers.evidence import stats
from helpers.networks import data, models
from helpers.tflite import litert

PROMISED = 3  # times


def one_by_one(model, x):
    """The loop of TensorFlow's tutorials: set one sample, invoke, read; one thread."""
    runner = litert.interpreter(model)
    source, target = runner.get_input_details()[0]["index"], runner.get_output_details()[0]["index"]
    outputs = []
    for sample in x:
        runner.set_tensor(source, np.expand_dims(sample, axis=0))
        runner.invoke()
        outputs.append(runner.get_tensor(target)[0])
    return np.array(outputs)


def seconds(function, *arguments):
    """How long one call takes, in seconds."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=25, show_default=True, help="How often the two take turns; at least 6.")
def main(rounds):
    """Compare batches of 64 on two threads with the one-sample loop, on the MLP of notebook 01 (784-256-128-10)."""
    x = data.unit_rows(data.load("mnist5k").x_train)
    runtime_env.seed_everything(0)
    network = models.mlp()
    table = Table("model", "one by one, images/s", "in batches, images/s", "times as fast [95% interval]")
    slow = []
    for recipe in ("float32", "int8"):
        model = quantize.convert(network, recipe, x[:100])
        np.testing.assert_array_equal(litert.predict(model, x), one_by_one(model, x))
        turns = [(seconds(one_by_one, model, x), seconds(litert.predict, model, x)) for _ in range(rounds)]
        single, batched = np.array(turns).T
        ratio = stats.median(single / batched)
        table.add_row(
            recipe, f"{len(x) / np.median(single):,.0f}", f"{len(x) / np.median(batched):,.0f}", f"{ratio:.1f}"
        )
        if ratio.low < PROMISED:
            slow.append(recipe)
    console = Console(highlight=False)
    console.print(f"{runtime_env.cpu()['name']}; {len(x):,} images, median of {rounds} turns, identical predictions")
    console.print(table)
    if slow:
        print(f"{' and '.join(slow)} fall short of the {PROMISED} times that are promised: are two cores free?")


if __name__ == "__main__":
    main()
