"""Thousands of damaged model files for the gate: none may crash it or hang it.

Each case is a seed: it decides the mutation, the valid file that is mutated, and every random choice, so that

    python -m tests.deploy.fuzz_gate --only 1234

repeats one. Without arguments all cases run (about 40 minutes; a killed run resumes) and their summary is written to
results/fuzz/<machine>/gate.json in the output folder. Exits with 1 if any case crashed the gate or took longer than it may.
"""

import collections
import dataclasses
import datetime
import hashlib
import json
import os
import re
import time

import click
import flatbuffers
import numpy as np

from helpers.base import repository, runtime_env
from helpers.deploy import gate

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

SEEDS = range(2400)
SHAPE, CLASSES, SAMPLES = (12, 12, 3), 5, 256
LIMITS = gate.Limits(seconds=10, bytes=1_000_000_000)
LONGEST = 2 * LIMITS.seconds + 30  # two child processes, and a slow machine
ABSURD = (-1, -(2**31), 0, 1, 3, 255, 65_537, 2**20, 2**30, 2**31 - 1)


def valid_models():
    """The files that are mutated, float32 and int8 throughout: a convolution, a depthwise one, a pooling, two dense layers."""
    from helpers.compress import quantize

    with runtime_env.quiet():
        import tensorflow as tf
    layers = tf.keras.layers
    runtime_env.seed_everything(0)
    x = inputs = layers.Input(SHAPE)
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Dense(16, activation="relu")(layers.Flatten()(layers.MaxPool2D(2)(x)))
    model = tf.keras.Model(inputs, layers.Softmax()(layers.Dense(CLASSES)(x)))
    return [quantize.convert(model), quantize.convert(model, "full_int8", samples())]


def samples():
    return np.random.default_rng(0).normal(size=(SAMPLES, *SHAPE)).astype("float32")


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


MUTATIONS = (
    bit_flips,
    scrambled_words,
    truncation,
    splice,
    swapped_buffers,
    absurd_shapes,
    rewired,
    absurd_numbers,
)


def mutated(seed, models):
    """The name of a case's mutation, the number of its valid file, and the damaged file."""
    mutation, number = MUTATIONS[seed % len(MUTATIONS)], seed // len(MUTATIONS) % len(models)
    random = np.random.default_rng(seed)
    return mutation.__name__, number, mutation(models[number], random, models[1 - number])


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


def run(seed, models, labels):
    """What became of one case: seed, mutation, outcome, seconds, because. Outcome is "gate failed" if it did."""
    mutation, number, blob = mutated(seed, models)
    start = time.monotonic()
    try:
        decision = gate.judge(blob, models[number], samples(), labels[number], limits=LIMITS, speed=False)
        json.dumps(decision.as_dict())
        outcome, because = _told(decision)
    except Exception as error:
        outcome, because = "gate failed", f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - start, 2)
    return {"seed": seed, "mutation": mutation, "outcome": outcome, "seconds": seconds, "because": because}


def labels_of(models):
    """Labels that the valid files get right: a list of int (SAMPLES,)."""
    from helpers.tflite import litert

    return [litert.predict(model, samples()).argmax(axis=-1) for model in models]


def _told(decision):
    failed = [check for check in decision.checks if check.outcome != "pass"]
    if not failed:
        return "accepted", ""
    name, because = failed[0].name, failed[0].because
    if name != "loads and runs":
        return f"{decision.outcome}: {name}", because
    signal = re.search(r"crashed the interpreter \((\w+)\)", because)
    if signal:
        return f"rejected: {signal.group(1)}", because
    for words in ("was stopped after", "processor time", "too much memory", "nonsense", "instead of a line"):
        if words in because:
            return f"rejected: {words}", because
    return "rejected: refused to load or run", because


def _summary(cases, models):
    """In the form of the other results, so that `results.read("gate", "fuzz")` reads it."""
    outcomes = collections.defaultdict(collections.Counter)
    for case in cases:
        outcomes[case["mutation"]][case["outcome"]] += 1
    seconds = [case["seconds"] for case in cases]
    numbers = {
        "cases": (len(cases), "", 0),
        "cases.changed": (sum(mutated(case["seed"], models)[2] not in models for case in cases), "", 0),
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
            "models": [hashlib.sha256(model).hexdigest() for model in models],
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
        },
        "numbers": {
            name: {"value": value, "low": None, "high": None, "unit": unit, "tolerance": tolerance}
            for name, (value, unit, tolerance) in numbers.items()
        },
        "outcomes": dict(collections.Counter(case["outcome"] for case in cases).most_common()),
        "by_mutation": {name: dict(counts.most_common()) for name, counts in outcomes.items()},
        "verdicts": {},
    }


@click.command()
@click.option("--only", type=int, multiple=True, metavar="SEED", help="Run this case and print it; may be repeated.")
def main(only):
    """Give every damaged file to the gate, or those of some seeds."""
    models = valid_models()
    labels = labels_of(models)
    if only:
        for seed in only:
            click.echo(json.dumps(run(seed, models, labels)))
        return
    key = hashlib.sha256(b"".join(models)).hexdigest()[:12]
    finished = repository.REPOSITORY / "runs" / f"fuzz_gate_{key}.jsonl"
    finished.parent.mkdir(exist_ok=True)
    lines = finished.read_text().splitlines() if finished.exists() else []
    cases = {case["seed"]: case for case in map(json.loads, lines)}
    with finished.open("a") as log:
        for seed in SEEDS:
            if seed not in cases:
                cases[seed] = run(seed, models, labels)
                log.write(json.dumps(cases[seed]) + "\n")
                log.flush()
            if seed % 100 == 99:
                counts = collections.Counter(case["outcome"] for case in cases.values())
                click.echo(f"{seed + 1} of {len(SEEDS)}: {dict(counts.most_common())}")
    summary = _summary([cases[seed] for seed in SEEDS], models)
    path = repository.output_root() / "results" / "fuzz" / runtime_env.machine_name() / "gate.json"
    repository.write(path, json.dumps(summary, indent=1) + "\n")
    click.echo(json.dumps(summary["outcomes"]))
    raise SystemExit(int(any(summary["numbers"][name]["value"] for name in ("gate_failed", "gate_hung"))))


if __name__ == "__main__":
    os.nice(5)
    main()
