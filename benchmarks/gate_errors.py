"""How often does the gate err? Regressions of a known size are planted for each of its checks, and as many harmless changes.

    python benchmarks/gate_errors.py        # 80 of each, on a machine that does nothing else: kept in results/gate_errors/
    python benchmarks/gate_errors.py 3      # a trial, kept in the output folder

The model is notebook 06's ResNet-8, the population its 4,000 test images. A case is a seed, which decides what is planted and on
which images the gate judges: 2,000 draws with replacement, since half of a population without would look steadier than a
sample is. What is planted is a regression, or harmless, by the population or by construction, never by the gate:

    accuracy    noise in the weights that costs 3.5 to 4.5 points, the limit being 2; noise or int8 that costs half a point
                at most, and 5 in no class
    conversion  a file cut, a kernel overwritten, another shape or type of input or output, NaN or infinity in the last layer;
                weights with a little noise, converted by another recipe, with other images to calibrate, or sparse encoded
    latency     several views of an image, or a larger one: at least 1.4 times as slow as the limit; only other weights
    memory      a much larger image: at least 1.4 times as much as the limit; only other weights

A regression is *missed* if the gate accepts it, a harmless change a *false alarm* if it rejects it. Undecided is neither, and is
counted apart. Accuracy and conversion are judged by notebook 06's policy, speed and memory by their limits. A killed run goes on.
"""

import functools
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

from helpers.base import repository, runtime_env
from helpers.deploy import gate
from helpers.evidence import results, stats
from helpers.lab import notebook
from helpers.tflite import flatbuffer, measure

CHECKS, KINDS = ("accuracy", "conversion", "latency", "memory"), ("regression", "harmless")
ENOUGH = 80  # of each kind: an interval of none in 80 ends below 5%
MODEL, DATA = "resnet8_fashion_32", "fashion8k"
MIN_SPEEDUP, MEMORY_RATIO = 0.8, 1.5  # limits: times the baseline's speed, and its memory
BEYOND = 1.4  # how many times beyond such a limit a regression lies at least
LOSS, CLASS_LOSS = {"regression": (0.035, 0.045), "harmless": (-1, 0.005)}, 0.05
JUDGED_ON, TIMED_ON = 2000, 256
SLOWER, LARGER = ("44 px", "48 px", "56 px", "2 views", "3 views"), ("128 px", "144 px", "160 px")


@dataclass(frozen=True)
class Planted:
    """A candidate: what it is, its file, by how much it is worse (points lost, or how many times beyond the limit; None where it
    is so by construction), and another baseline than the shipped model."""

    what: str
    file: bytes
    by: float | None = None
    baseline: bytes | None = None


class Workshop:
    """Where candidates are made: the model, its images, its float32 file, what the gate is asked in the cases of each check, and
    how far each slow or large design is beyond its limit, measured before anything is judged."""

    def __init__(self, speed=True):
        from helpers.compress import quantize
        from helpers.networks import bench, models

        self.models, self.quantize = models, quantize
        self.bench = bench.prepare({"dataset": DATA, "checkpoint": MODEL, "selection_share": 0.15})
        self.baseline = quantize.convert(self.bench.model)
        self.x, self.y = self.bench.x_test, self.bench.y_test
        self.right = measure.correct(self.baseline, self.x, self.y)
        self.beyond, self.limits = {}, {check: {"max_drop": 0.02, "max_class_drop": 0.1} for check in CHECKS[:2]}
        if speed:
            files = {design: quantize.convert(self.design(design)) for design in (*SLOWER, *LARGER)}
            slow = {"float32": self.baseline, **{design: files[design] for design in SLOWER}}
            ratio = measure.latency(slow, "float32", self.x[:1])["ratio"]
            most = int(MEMORY_RATIO * measure.peak_memory(self.baseline).value)
            self.limits |= {"latency": {"min_speedup": MIN_SPEEDUP}, "memory": {"max_peak_memory": most}}
            self.beyond = {design: MIN_SPEEDUP / ratio[design] for design in SLOWER}
            self.beyond |= {design: measure.peak_memory(files[design]).value / most for design in LARGER}

    def design(self, name):
        """The model behind something that makes it slow or large: "48 px" enlarges each image, "2 views" averages over it and
        its mirror image."""
        import tensorflow as tf

        number, kind = name.split()
        image = tf.keras.layers.Input(self.x.shape[1:])
        if kind == "px":
            network = self.models.resnet8(int(number), 10)
            network.set_weights(self.bench.model.get_weights())
            return tf.keras.Model(image, network(tf.keras.layers.Resizing(int(number), int(number))(image)))
        views = (image, image[:, :, ::-1], image[:, ::-1])[: int(number)]
        return tf.keras.Model(image, tf.keras.layers.Average()([self.bench.model(view) for view in views]))

    def noisy(self, random, scale=0.01, model=None):
        """A copy with noise in each kernel, so many of its standard deviations."""
        twin = self.models.copy(model or self.bench.model)
        noise = [
            random.normal(scale=scale * weights.std(), size=weights.shape) if weights.ndim > 1 else 0
            for weights in twin.get_weights()
        ]
        twin.set_weights([weights + part for weights, part in zip(twin.get_weights(), noise, strict=True)])
        return twin

    def lost(self, file):
        """Which share of the population a file loses, and which of the class that loses most."""
        lost = self.right.astype(float) - measure.correct(file, self.x, self.y)
        return float(lost.mean()), max(lost[self.y == label].mean() for label in np.unique(self.y))

    def calibration(self, random):
        return random.permutation(self.bench.calibration_part)[: random.integers(50, 300)]


def accuracy(shop, kind, random):
    """Weights with noise, as much as costs what it should; harmless also int8."""
    (low, high), seed = LOSS[kind], random.integers(2**32)
    if kind == "harmless" and random.integers(2):
        file = shop.quantize.convert(shop.bench.model, "int8", shop.calibration(random))
        if shop.lost(file)[0] <= high:
            return Planted("int8", file, shop.lost(file)[0])
    little, much = (0, 0.3) if kind == "regression" else (0, random.uniform(0.02, 0.08))
    for _ in range(30):
        scale = (little + much) / 2
        file = shop.quantize.convert(shop.noisy(np.random.default_rng(seed), scale))
        lost, in_class = shop.lost(file)
        if low <= lost <= high and (kind == "regression" or in_class <= CLASS_LOSS):
            return Planted(f"noise of {scale:.3f}", file, lost)
        little, much = (scale, much) if lost < low else (little, scale)
    raise RuntimeError(f"no noise costs {low} to {high}: seed {seed}")


def conversion(shop, kind, random):
    """A file that came out wrong, or by another recipe."""
    import tensorflow as tf

    from helpers.compress import sparsity

    model = shop.noisy(random)
    if kind == "harmless":
        recipe = random.choice(["float32", "float16", "dynamic", "int8", "sparse"])
        if recipe == "sparse":  # many zeros make another model: both files are of that one
            model = sparsity.one_shot(model, random.uniform(0.4, 0.5))
            return Planted(recipe, shop.quantize.convert(model, sparse=True), None, shop.quantize.convert(model))
        needed = shop.quantize.RECIPES[recipe].calibrated
        return Planted(recipe, shop.quantize.convert(model, recipe, shop.calibration(random) if needed else None))
    what = random.choice(["cut", "overwritten", "shape", "dtype", "not finite"])
    file = shop.quantize.convert(model)
    with flatbuffer.unpacked(file) as content:
        graph = content.subgraphs[0]
        named = [(flatbuffer.operator_name(content, each), each.inputs) for each in graph.operators]
        weights = [graph.tensors[inputs[1]] for name, inputs in named if name in flatbuffer.WEIGHT_OPERATORS]
        kernels = [flatbuffer.stored(content.buffers[tensor.buffer], file).tobytes() for tensor in weights]
    if what == "cut":
        return Planted(what, file[: int(len(file) * random.uniform(0.02, 0.98))])
    if what == "overwritten":
        kernel = random.choice(np.array(kernels, object))
        return Planted(what, file.replace(kernel, random.bytes(len(kernel))))
    if what == "not finite":
        weights = np.frombuffer(kernels[-1], "float32").copy()  # the last layer's: any other's NaN may end in a ReLU
        weights[random.integers(len(weights))] = random.choice([np.nan, np.inf, -np.inf])
        return Planted(what, file.replace(kernels[-1], weights.tobytes()))
    if what == "shape":
        size, classes, channels = [(28, 10, 3), (40, 10, 3), (32, 10, 1), (32, 9, 3), (32, 11, 3)][random.integers(5)]
        return Planted(what, shop.quantize.convert(shop.models.resnet8(size, classes, channels)))
    image = tf.keras.layers.Input(shop.x.shape[1:], dtype=random.choice(["int32", "int64", "uint8"]))
    return Planted(what, shop.quantize.convert(tf.keras.Model(image, model(tf.cast(image, "float32")))))


def latency(shop, kind, random, designs=SLOWER):
    """A slow or large design that was measured to be one, or the model itself; with other weights."""
    if kind == "harmless":
        return Planted("other weights", shop.quantize.convert(shop.noisy(random, 0.2)))
    fit = [design for design in designs if shop.beyond[design] >= BEYOND]
    if not fit:
        raise SystemExit("No design is as slow or large as it should be: is this machine busy?")
    design = random.choice(fit)
    model = shop.noisy(random, model=shop.design(design))
    return Planted(design, shop.quantize.convert(model), float(shop.beyond[design]))


MAKERS = {"accuracy": accuracy, "conversion": conversion, "latency": latency}
MAKERS["memory"] = functools.partial(latency, designs=LARGER)


def run(shop, check, kind, seed):
    """One case as a dict: what was planted, what the gate said of it, and why."""
    random, started = np.random.default_rng([seed, CHECKS.index(check), KINDS.index(kind)]), time.monotonic()
    planted = MAKERS[check](shop, kind, random)
    timed = check in ("latency", "memory")
    images = random.integers(len(shop.x), size=TIMED_ON if timed else JUDGED_ON)
    policy = gate.Policy(**{"max_drop": None} | shop.limits[check])
    given = planted.file, planted.baseline or shop.baseline, shop.x[images], shop.y[images], policy
    decision = gate.judge(*given, speed=timed)
    because = next((each.because for each in decision.checks if each.outcome != "pass"), "")
    told = {"check": check, "kind": kind, "seed": seed, "what": str(planted.what), "outcome": decision.outcome}
    return {**told, "because": because, "by": planted.by, "seconds": round(time.monotonic() - started, 1)}


def numbers(cases):
    """What is recorded: the share of errors of each check, of what stayed undecided, and how bad the mildest regression was."""
    found = {}
    for check in CHECKS:
        of = {kind: [case for case in cases if (case["check"], case["kind"]) == (check, kind)] for kind in KINDS}
        missed = np.array([case["outcome"] == gate.ACCEPTED for case in of["regression"]])
        alarm = np.array([case["outcome"] == gate.REJECTED for case in of["harmless"]])
        undecided = np.array([case["outcome"] == gate.UNSURE for kind in KINDS for case in of[kind]])
        for name, which in {"missed": missed, "false_alarm": alarm, "undecided": undecided}.items():
            found[f"gate_error.{name}.{check}"] = stats.proportion(which)
        by = [case["by"] for case in of["regression"] if case["by"] is not None]
        found |= {f"gate_error.mildest.{check}": min(by)} if by else {}
    return {**found, "gate_error.cases": len(cases)}


@click.command()
@click.argument("n", default=ENOUGH, type=click.IntRange(1))
def main(n):
    """Judge N planted regressions of each kind and N harmless changes, 80 by default, and record the gate's errors."""
    shop = Workshop()
    source = Path(__file__).read_bytes() + shop.baseline + notebook.helpers_hash().encode()
    key = f"{runtime_env.machine_name()}_{hashlib.sha256(source).hexdigest()[:12]}"
    log = repository.REPOSITORY / "runs" / f"gate_errors_{key}.jsonl"
    log.parent.mkdir(exist_ok=True)
    # Where a run was killed in the midst of a line, that line is judged again.
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    cases = [json.loads(line) for line in lines if line.endswith("\n")]
    cases = {(case["check"], case["kind"], case["seed"]): case for case in cases}
    wanted = [(check, kind, seed) for check in CHECKS for seed in range(n) for kind in KINDS]
    repository.write(log, "".join(json.dumps(case) + "\n" for case in cases.values()))
    with log.open("a") as file:
        for number, case in enumerate(wanted, 1):
            if case not in cases:
                cases[case] = run(shop, *case)
                file.write(json.dumps(cases[case]) + "\n")
                file.flush()
                told = "{check}, {kind} {seed}: {what}: {outcome} {because}".format(**cases[case])
                click.echo(f"{number} of {len(wanted)}: {told}")
    cases = [cases[case] for case in wanted]
    if n >= ENOUGH:  # what a claim rests on
        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
    found, parameters = numbers(cases), {"cases": n, **shop.limits}
    path = results.record("gate", "gate_errors", parameters, found, shop.bench.images, {"gate_error": None})
    for name, number in found.items():
        click.echo(f"{name}: {number:.1%}" if isinstance(number, stats.Estimate) else f"{name}: {number:.3g}")
    click.echo(f"Kept: {path}")


if __name__ == "__main__":
    main()
