"""Does the search of bits beat its rivals on photos that it was not developed with?

`bits.search` was developed beside the test images of Fashion-MNIST. Here it is judged on the flowers: two MobileNetV2, at 224 and at
96 px, whose training shares nothing with Fashion-MNIST but the ImageNet weights that both begin from.

The rule, fixed before the run: with all settings as below, at the bytes of 4 bits throughout and at those of 4 bits with the first and
the last layer in float32, the search is better than a rival where the interval (95%, paired over the test images) of the difference
in top-1 is above zero, worse where it is below, and otherwise level. It keeps its promise at a budget if it is better than each of the
five rivals on both networks. (With the bytes of 4 bits throughout, every rival is that file, since they give each layer a scale for
each channel.) The search and its rivals see the selection images alone; test images judge, once.

    COMPRESSION_LAB_DATA=… python benchmarks/search_unseen.py --record     # nine minutes on two cores
    python benchmarks/search_unseen.py --dataset fashion8k --checkpoint resnet8_fashion_32 --tries 5    # whether it works
"""

import os
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

from helpers.base import repository
from helpers.compress import bits, bits_rivals, quantize
from helpers.evidence import results, stats
from helpers.networks import bench
from helpers.tflite import measure

CHECKPOINTS = "mobilenetv2_flowers_224", "mobilenetv2_flowers_96"
BUDGETS = "int4", "ends"
SEED = 0


def plans(trials, alone, limit, tries):
    """method -> the plan that it finds for so many bytes; the search first."""
    searched = bits.search(trials, alone, bits.Budget(bytes=limit), tries, bits_rivals.starts(trials, alone))
    return {"search": searched.plan, **bits_rivals.plans(trials, alone, limit, SEED)}


def limits(trials):
    """The bytes of BUDGETS."""
    throughout = trials.uniform(bits.INT4)
    outer = trials.layers["layer"].iloc[[0, -1]]
    return dict(
        zip(BUDGETS, map(trials.size, (throughout, throughout | dict.fromkeys(outer, bits.FLOAT))), strict=True)
    )


def judged(work, tries):
    """The numbers of one network, name -> Estimate or float."""
    started, file = time.monotonic(), quantize.convert(work.model)
    pictures, labels = work.selection(None)
    trials = bits.Trials(file, work.calibration, work.input(pictures), labels, forms=bits.formats())
    alone = bits.sweep(trials)
    exact = measure.correct(file, work.x_test, work.y_test)
    numbers = {"top1.float32": stats.proportion(exact)}
    for budget, limit in limits(trials).items():
        made = {method: trials.file(plan) for method, plan in plans(trials, alone, limit, tries).items()}
        right = {method: measure.correct(each, work.x_test, work.y_test) for method, each in made.items()}
        for method, each in right.items():
            numbers[f"size.search_{budget}_{method}"] = float(len(made[method]))
            numbers[f"delta_top1.search_{budget}_{method}"] = stats.paired_difference(exact, each)
            if method != "search":
                numbers[f"gain.search_over_{method}_{budget}"] = stats.paired_difference(each, right["search"])
    numbers["files"], numbers["seconds"] = float(trials.calls), time.monotonic() - started
    return numbers


def decided(numbers, budget):
    """rival -> "better than", "level with" or "worse than", by the rule."""
    found = {}
    for name, gain in numbers.items():
        if name.startswith("gain.search_over_") and name.endswith(f"_{budget}"):
            rival = name.removeprefix("gain.search_over_").removesuffix(f"_{budget}")
            found[rival] = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "level with"
    return found


@click.command()
@click.option("--dataset", default="flowers", show_default=True)
@click.option("--checkpoint", "names", multiple=True, default=CHECKPOINTS, show_default=True)
@click.option("--tries", default=bits.TRIES, show_default=True, help="Files that a search measures after its sweep.")
@click.option("--record", is_flag=True, help="Keep the numbers in the repository.")
def main(dataset, names, tries, record):
    """Search the bits of networks that the search was not developed with, beside its rivals at the same bytes."""
    settings = {"dataset": dataset, "selection_share": 0.1, "calibration_samples": 100, "seed": SEED}
    for name in names:
        work = bench.prepare(settings | {"checkpoint": name})
        numbers = judged(work, tries)
        print(f"\n{name}: {numbers['files']:.0f} files measured, {numbers['seconds']:.0f} s")
        for key, number in numbers.items():
            shown = f"{number:points}" if isinstance(number, stats.Estimate) and "top1.float" not in key else number
            print(f"  {key:36} {shown}")
        for budget in BUDGETS:
            found = decided(numbers, budget)
            kept = "kept" if set(found.values()) == {"better than"} else "not kept"
            print(f"  {budget}: {', '.join(f'{word} {rival}' for rival, word in found.items())}: {kept}", flush=True)
        if record:
            os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
            tolerances = {"gain": 0.06, "delta_top1": 0.06, "top1": 0.05, "size": None, "files": None, "seconds": None}
            kept = results.record(name, "search", settings | {"tries": tries}, numbers, work.images, tolerances)
            print(f"Kept: {kept}")


if __name__ == "__main__":
    main()
