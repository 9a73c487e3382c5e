"""Thousands of damaged model files for the gate: none may crash it or hang it.

It is the command that is run: it must exit with 0, 1 or 2, in one sentence, with reports that can be read, without a warning, and
leave nothing behind.

Each case is a seed: it decides the mutation, the valid file that is mutated, and every random choice, so that

    python -m tests.deploy.fuzz_gate --only 1234

repeats one. Without arguments all cases run (about 35 minutes; a killed run resumes) and their summary is written to
results/fuzz/<machine>/gate.json in the output folder. Exits with 1 if any case crashed the gate or took longer than it may.
"""

import collections
import dataclasses
import datetime
import hashlib
import json
import os
import re
import tempfile
import time
import warnings
from pathlib import Path
from xml.etree import ElementTree

import click
import flatbuffers
import numpy as np
from click.testing import CliRunner

from helpers.__main__ import main as commands
from helpers.base import repository, runtime_env
from helpers.deploy import gate
from helpers.tflite import inputs

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

SEEDS = range(2400)
SHAPE, CLASSES, SAMPLES = (12, 12, 3), 5, 256
LIMITS = gate.Limits(seconds=10, bytes=1_000_000_000)
LONGEST = 2 * LIMITS.seconds + 30  # two child processes, and a slow machine
ABSURD = (-1, -(2**31), 0, 1, 3, 255, 65_537, 2**20, 2**30, 2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Valid:
    """A file that is mutated, and what it is judged by: samples and labels as the gate takes them, and options of its command."""

    name: str
    model: bytes
    x: object
    y: object = None
    options: tuple = ()


def valid_models():
    """Files of every kind: float and integer ends, several of them, open sizes, each task, with labels and without. The labels
    are what the file answers."""
    from helpers.compress import quantize
    from helpers.tflite import litert

    with runtime_env.quiet():
        import tensorflow as tf
    layers = tf.keras.layers
    runtime_env.seed_everything(0)
    random = np.random.default_rng(0)
    pictures = random.normal(size=(SAMPLES, *SHAPE)).astype("float32")
    tables = random.normal(size=(SAMPLES, 6)).astype("float32")
    tokens = random.integers(0, 40, (SAMPLES, 10))
    both = {"picture": pictures, "table": tables}

    def features(x):
        x = layers.ReLU(6.0)(layers.Conv2D(8, 3, strides=2, padding="same")(x))
        return layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))

    def row(x):
        return layers.Dense(16, activation="relu")(layers.Flatten()(layers.MaxPool2D(2)(features(x))))

    def classes(x):
        return layers.Softmax()(layers.Dense(CLASSES)(x))

    def traced(function, **ends):
        specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in ends.items()]
        return quantize.convert(tf.function(function, input_signature=specs).get_concrete_function())

    picture, table = layers.Input(SHAPE, name="picture"), layers.Input(6, name="table")
    classifier = tf.keras.Model(picture, classes(row(picture)))
    joined = layers.Concatenate()([row(picture), layers.Dense(8, activation="relu")(table)])
    several = tf.keras.Model([picture, table], [classes(joined), layers.Dense(2)(joined)])
    values = tf.keras.Model(table, layers.Dense(2)(layers.Dense(16, activation="relu")(table)))
    places = tf.keras.Model(picture, layers.Softmax()(layers.Conv2D(3, 1)(features(picture))))
    vectors, last = (random.normal(size=size).astype("float32") for size in ((40, 8), (8, CLASSES)))
    corners, certain = (random.normal(size=(6, of)).astype("float32") for of in (20, 15))

    def detected(table):
        low, sides = tf.split(tf.sigmoid(tf.reshape(table @ corners, (-1, 5, 4))), 2, axis=2)
        scores = tf.sigmoid(tf.reshape(table @ certain, (-1, 5, 3)))
        return {"boxes": tf.concat([low, low + sides], 2), "scores": scores}

    by_token = traced(
        lambda tokens: tf.nn.softmax(tf.reduce_mean(tf.gather(vectors, tokens), 1) @ last),
        tokens=((None, None), tf.int32),
    )
    of_bytes = traced(
        lambda x: tf.nn.softmax(tf.cast(x, tf.float32) / 255 @ vectors[:6, :CLASSES]), x=((1, 6), tf.uint8)
    )
    found = [
        Valid("classifier", quantize.convert(classifier), pictures),
        Valid("classifier, int8 ends", quantize.convert(classifier, "full_int8", pictures), pictures),
        Valid("two inputs, two outputs", quantize.convert(several), both),
        Valid("two inputs, two outputs, int8 ends", quantize.convert(several, "full_int8", both), both),
        Valid("tokens, open length", by_token, tokens),
        Valid("uint8 input", of_bytes, random.integers(0, 256, (SAMPLES, 6), np.uint8)),
        Valid("regression, int8 ends", quantize.convert(values, "full_int8", tables), tables),
        Valid("segmentation, int8 ends", quantize.convert(places, "full_int8", pictures), pictures),
        Valid("detector", traced(detected, table=((1, 6), tf.float32)), tables[:64], None, FOR_BOXES),
    ]
    return [
        dataclasses.replace(each, y=_labels(litert.run(each.model, inputs.by_name(each.x), batch=litert.BATCH)))
        if each.name not in UNLABELLED
        else each
        for each in found
    ]


FOR_BOXES = ("--task", "detection", "--limit", "max_drop=0.05")
UNLABELLED = ("two inputs, two outputs, int8 ends", "uint8 input", "detector")


def _labels(answers):
    """Labels that answers, by names of outputs, get right: classes where they are probabilities, numbers elsewhere."""
    found = {
        name: of.argmax(axis=-1) if np.allclose(of.sum(axis=-1), 1, atol=0.05) else of for name, of in answers.items()
    }
    return found if len(found) > 1 else next(iter(found.values()))


# --- mutations: bytes, generator, another valid file -> bytes


def bit_flips(blob, random, _):
    blob = bytearray(blob)
    for place in random.integers(8, len(blob), _few(random)):
        blob[place] ^= 1 << random.integers(8)
    return bytes(blob)


def scrambled_words(blob, random, _):
    """Aligned words, which are the flatbuffer's offsets, lengths and enumerations, become absurd numbers."""
    words = np.frombuffer(blob[: len(blob) // 4 * 4], "<i4").copy()
    small = np.flatnonzero(np.abs(words.astype("int64")) < 2**16)  # seldom weights
    for place in random.choice(small[2:], _few(random)):
        near = words[place : place + 1] + np.array([4, -4], "<i4")  # as an array, since that wraps around quietly
        words[place] = random.choice([*ABSURD, *near])
    return words.tobytes() + blob[len(blob) // 4 * 4 :]


def truncation(blob, random, _):
    return blob[: random.integers(len(blob))]


def splice(blob, random, other):
    """A piece of this or the other file, written or inserted anywhere."""
    source = (blob, other)[random.integers(2)]
    start, length = random.integers(len(source)), random.integers(1, 512)
    place, instead = random.integers(8, len(blob)), random.integers(2)
    piece = source[start : start + length]
    return blob[:place] + piece + blob[place + instead * len(piece) :]


def swapped_buffers(blob, random, other):
    """Constants change places, take the other file's, lose their end, or go missing."""
    model, donor = _parsed(blob), _parsed(other)
    full = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    for _ in range(_few(random)):
        one, two = random.choice(full, 2)
        kind = random.integers(4)
        if kind == 0:
            one.data, two.data = two.data, one.data
        elif kind == 1:
            one.data = donor.buffers[random.integers(len(donor.buffers))].data
        elif kind == 2 and one.data is not None:
            one.data = one.data[: random.integers(len(one.data) + 1)]
        else:
            tensor = random.choice(model.subgraphs[0].tensors)
            tensor.buffer = int(random.choice([0, len(model.buffers), 2**31, random.integers(len(model.buffers))]))
    return _packed(model)


def absurd_shapes(blob, random, _):
    """Tensors get other sizes, ranks or types; the constants stay."""
    model = _parsed(blob)
    for tensor in random.choice(model.subgraphs[0].tensors, _few(random)):
        shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
        kind = random.integers(5)
        if kind == 0 and shape:
            shape[random.integers(len(shape))] = int(random.choice(ABSURD))
        elif kind == 1:
            shape += [int(random.choice(ABSURD))] * int(random.integers(1, 9))
        elif kind == 2:
            shape = shape[: random.integers(len(shape) + 1)]
        elif kind == 3:
            tensor.type = int(random.integers(0, 20))
        else:
            shape = shape[::-1]
        tensor.shape = np.array(shape, "int32")
        if random.integers(2):
            tensor.shapeSignature = None
    return _packed(model)


def rewired(blob, random, _):
    """Operators read and write other tensors, also none at all, or become other operators."""
    model = _parsed(blob)
    graph = model.subgraphs[0]
    for operator in random.choice(graph.operators, _few(random)):
        kind = random.integers(5)
        ends = np.array(operator.inputs if kind < 2 else operator.outputs, "int32")
        other = int(
            random.choice([-1, -2, len(graph.tensors), 2**31 - 1, *random.integers(len(graph.tensors), size=4)])
        )
        if kind == 4:
            code = model.operatorCodes[operator.opcodeIndex % len(model.operatorCodes)]
            code.builtinCode = code.deprecatedBuiltinCode = int(random.integers(0, 127))
            code.version = int(random.integers(1, 6))
        elif kind == 3:
            operator.opcodeIndex = int(
                random.choice([0, len(model.operatorCodes) - 1, len(model.operatorCodes), 2**31])
            )
        elif kind in (0, 2) and len(ends):
            ends[random.integers(len(ends))] = other
        else:
            ends = ends[:-1] if random.integers(2) else np.append(ends, other).astype("int32")
        if kind < 2:
            operator.inputs = ends
        elif kind == 2:
            operator.outputs = ends
    if random.integers(8) == 0:
        graph.outputs = np.array([random.integers(len(graph.tensors))] * int(random.integers(0, 4)), "int32")
    return _packed(model)


def absurd_numbers(blob, random, _):
    """Scales, zero points, strides, paddings and weights that are NaN, infinite, negative or huge."""
    model = _parsed(blob)
    graph = model.subgraphs[0]
    wild = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e38, 1e-38], "float32")
    for _ in range(_few(random)):
        kind = random.integers(3)
        if kind == 0:
            options = random.choice(graph.operators).builtinOptions
            names = [name for name, value in vars(options or object).items() if type(value) is int and name[0] != "_"]
            if names:
                setattr(options, str(random.choice(names)), int(random.choice([0, 1, -1, 100, 127])))
        elif kind == 1:
            tensor = random.choice(graph.tensors)
            tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
            former = tensor.quantization.scale
            channels = 1 if former is None else len(former)
            tensor.quantization.scale = random.choice(wild, channels)
            if random.integers(2):
                tensor.quantization.zeroPoint = random.choice([0, 1, -129, 2**31, -(2**62)], channels)
            if random.integers(4) == 0:
                tensor.quantization.quantizedDimension = int(random.choice([0, 1, 7, -1]))
        else:
            full = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data) >= 4]
            buffer = random.choice(full)
            data = np.array(buffer.data, "uint8")
            place = 4 * int(random.integers(len(data) // 4))
            data[place : place + 4] = np.frombuffer(random.choice(wild).tobytes(), "uint8")
            buffer.data = data
    return _packed(model)


def other_ends(blob, random, _):
    """Inputs and outputs in another order, another number of times, of other names, sizes, types and scales."""
    model = _parsed(blob)
    graph = model.subgraphs[0]
    for _ in range(_few(random)):
        side = ("inputs", "outputs")[random.integers(2)]
        ends = list(getattr(graph, side))
        kind = random.integers(8)
        if kind == 0:
            ends = ends[::-1]
        elif kind == 1:
            ends.insert(random.integers(len(ends) + 1), int(random.integers(-1, len(graph.tensors))))
        elif kind == 2 and ends:
            ends.pop(random.integers(len(ends)))
        elif kind == 3 and ends:
            ends[random.integers(len(ends))] = int(random.integers(len(graph.tensors)))
        elif kind == 4 and model.signatureDefs:
            entries = getattr(model.signatureDefs[0], side)
            entry = random.choice(entries)
            entry.name = (b"", b"\xff\x1b[31m\n", entries[0].name, b"x" * 5000)[random.integers(4)]
        elif kind == 5 and model.signatureDefs:
            signature = _parsed(blob).signatureDefs[0]
            signature.signatureKey = (b"other", model.signatureDefs[0].signatureKey)[random.integers(2)]
            signature.subgraphIndex = int(random.choice([0, 1, 2**31]))
            model.signatureDefs = [signature, *model.signatureDefs][random.integers(2) :]
        else:
            tensor = graph.tensors[ends[random.integers(len(ends))]] if ends else graph.tensors[0]
            tensor.shapeSignature = None if kind == 6 else np.full(len(tensor.shape), -1, "int32")
            tensor.type = int(random.integers(0, 20))
        setattr(graph, side, np.array(ends, "int32"))
    return _packed(model)


MUTATIONS = (
    bit_flips,
    scrambled_words,
    truncation,
    splice,
    swapped_buffers,
    absurd_shapes,
    rewired,
    absurd_numbers,
    other_ends,
)


def mutated(seed, models):
    """The name of a case's mutation, the number of its valid file, and the damaged file."""
    mutation, number = MUTATIONS[seed % len(MUTATIONS)], seed // len(MUTATIONS) % len(models)
    random = np.random.default_rng(seed)
    other = models[(number + 1) % len(models)]
    return mutation.__name__, number, mutation(models[number].model, random, other.model)


def _few(random):
    """How much is damaged: mostly one thing, so that the file is not refused at first sight."""
    return int(random.choice([1, 1, 1, 2, 8]))


def _parsed(blob):
    return schema.ModelT.InitFromPackedBuf(blob, 0)


def _packed(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# --- cases


class Cases:
    """The gate's command, given one damaged file after another in a folder of their own; a context manager."""

    def __enter__(self):
        self.models = valid_models()
        self.made = tempfile.TemporaryDirectory()
        self.folder, self.former = Path(self.made.name), tempfile.tempdir
        (self.folder / "tmp").mkdir()
        tempfile.tempdir = str(self.folder / "tmp")  # where nothing may be left behind
        for number, valid in enumerate(self.models):
            (self.folder / f"{number}.tflite").write_bytes(valid.model)
            labels = (
                {"y": valid.y} if not isinstance(valid.y, dict) else {f"y_{name}": of for name, of in valid.y.items()}
            )
            labels = {} if valid.y is None else labels
            inputs.save(self.folder / f"{number}.npz", inputs.by_name(valid.x) | labels)
        self.whole = set(self.folder.iterdir())
        return self

    def __exit__(self, *_):
        tempfile.tempdir = self.former
        self.made.cleanup()

    def run(self, seed):
        """What became of one case: seed, mutation, file, outcome, seconds, because. Outcome is "gate failed" if it did."""
        mutation, number, blob = mutated(seed, self.models)
        start = time.monotonic()
        outcome, because = self.judged(blob, number)
        return {
            "seed": seed,
            "mutation": mutation,
            "file": self.models[number].name,
            "outcome": outcome,
            "seconds": round(time.monotonic() - start, 2),
            "because": because,
        }

    def judged(self, blob, number):
        """Outcome and reason for a candidate against one of the valid files."""
        candidate, reports = self.folder / "candidate", [self.folder / "report.json", self.folder / "report.xml"]
        candidate.write_bytes(blob)
        files = {"--baseline": self.folder / f"{number}.tflite", "--data": self.folder / f"{number}.npz"}
        limits = {"--seconds": LIMITS.seconds, "--memory": LIMITS.bytes // 1_000_000}
        given = [*files.items(), *limits.items(), *(("--report", report) for report in reports)]
        words = [
            "gate",
            candidate,
            *(word for pair in given for word in pair),
            "--no-speed",
            *self.models[number].options,
        ]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = CliRunner().invoke(commands, list(map(str, words)))
        candidate.unlink()
        told = result.output.strip().splitlines() or [""]
        wrong = [str(each.message) for each in warned]
        if result.exit_code not in gate.EXIT_CODES.values() or "Traceback" in result.output:
            return "gate failed", f"exit code {result.exit_code}: {told[-1]}"
        try:
            ElementTree.parse(reports[1])
            decision = json.loads(reports[0].read_text())
            for report in reports:
                report.unlink()
        except (OSError, ValueError, ElementTree.ParseError) as error:
            return "gate failed", f"its report: {type(error).__name__}: {error}"
        decided = decision["outcome"]
        if gate.EXIT_CODES[decided] != result.exit_code or not told[-1].startswith(f"{decided}: "):
            wrong.append(f"exit code {result.exit_code} and {told[-1]!r} for {decided}")
        wrong += [
            f"{check['because']!r} is no line" for check in decision["checks"] if not check["because"].isprintable()
        ]
        wrong += [
            f"{path} was left behind"
            for path in {*self.folder.iterdir(), *(self.folder / "tmp").iterdir()} - self.whole
        ]
        return ("gate failed", wrong[0]) if wrong else _told(decision)


def _told(decision):
    failed = [check for check in decision["checks"] if check["outcome"] != "pass"]
    if not failed:
        return "accepted", ""
    name, because = failed[0]["name"], failed[0]["because"]
    if name != "loads and runs":
        return f"{decision['outcome']}: {name.partition(' of ')[0]}", because
    signal = re.search(r"crashed the interpreter \((\w+)\)", because)
    if signal:
        return f"rejected: {signal.group(1)}", because
    for words in ("was stopped after", "processor time", "too much memory", "nonsense", "instead of a line"):
        if words in because:
            return f"rejected: {words}", because
    return "rejected: refused to load or run", because


def _summary(cases, models):
    """In the form of the other results, so that `results.read("gate", "fuzz")` reads it."""
    outcomes = {
        "mutation": collections.defaultdict(collections.Counter),
        "file": collections.defaultdict(collections.Counter),
    }
    for case in cases:
        for kind, counted in outcomes.items():
            counted[case[kind]][case["outcome"]] += 1
    seconds, whole = [case["seconds"] for case in cases], {valid.model for valid in models}
    numbers = {
        "cases": (len(cases), "", 0),
        "cases.changed": (sum(mutated(case["seed"], models)[2] not in whole for case in cases), "", 0),
        "gate_failed": (sum(case["outcome"] == "gate failed" for case in cases), "", 0),
        "gate_hung": (sum(case["seconds"] > LONGEST for case in cases), "", 0),
        "seconds.total": (round(sum(seconds)), "s", None),
        "seconds.longest": (max(seconds), "s", None),
    }
    return {
        "notebook": "gate",
        "profile": "fuzz",
        "reference": repository.output_root() == repository.REPOSITORY,
        "parameters": {"seeds": [SEEDS.start, SEEDS.stop - 1], **dataclasses.asdict(LIMITS)},
        "provenance": {
            "recorded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "models": [hashlib.sha256(valid.model).hexdigest() for valid in models],
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
        },
        "numbers": {
            name: {"value": value, "low": None, "high": None, "unit": unit, "tolerance": tolerance}
            for name, (value, unit, tolerance) in numbers.items()
        },
        "outcomes": dict(collections.Counter(case["outcome"] for case in cases).most_common()),
        **{
            f"by_{kind}": {name: dict(counts.most_common()) for name, counts in counted.items()}
            for kind, counted in outcomes.items()
        },
        "verdicts": {},
    }


@click.command()
@click.option("--only", type=int, multiple=True, metavar="SEED", help="Run this case and print it; may be repeated.")
def main(only):
    """Give every damaged file to the gate, or those of some seeds."""
    with Cases() as each:
        if only:
            for seed in only:
                click.echo(json.dumps(each.run(seed)))
            return
        key = hashlib.sha256(b"".join(valid.model for valid in each.models)).hexdigest()[:12]
        finished = repository.REPOSITORY / "runs" / f"fuzz_gate_{key}.jsonl"
        finished.parent.mkdir(exist_ok=True)
        lines = finished.read_text().splitlines() if finished.exists() else []
        cases = {case["seed"]: case for case in map(json.loads, lines)}
        with finished.open("a") as log:
            for seed in SEEDS:
                if seed not in cases:
                    cases[seed] = each.run(seed)
                    log.write(json.dumps(cases[seed]) + "\n")
                    log.flush()
                if seed % 100 == 99:
                    counts = collections.Counter(case["outcome"] for case in cases.values())
                    click.echo(f"{seed + 1} of {len(SEEDS)}: {dict(counts.most_common())}")
        summary = _summary([cases[seed] for seed in SEEDS], each.models)
    path = repository.output_root() / "results" / "fuzz" / runtime_env.machine_name() / "gate.json"
    repository.write(path, json.dumps(summary, indent=1) + "\n")
    click.echo(json.dumps(summary["outcomes"]))
    raise SystemExit(int(any(summary["numbers"][name]["value"] for name in ("gate_failed", "gate_hung"))))


if __name__ == "__main__":
    os.nice(5)
    main()
