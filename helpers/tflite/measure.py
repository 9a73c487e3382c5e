"""Accuracy, latency and peak memory of `.tflite` models, measured so that two of them can be compared.

What is timed and how is in `runner`, which also runs in child processes and on other machines; here it is asked for
and made into numbers with intervals.
"""

import contextlib
import functools
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import company, ground_truth, runtime_env
from helpers.base.errors import InputError, RunError
from helpers.evidence import stats
from helpers.tflite import inputs, interpreting, litert, rewrite, runner, scoring

ROUNDS = 60
SAMPLES = "samples.npz"
LIMITED = ("out of time", "out of memory")  # kinds of failures that more of it may cure
TARGET_SAMPLES = 256  # that a target answers, to compare with the answers given here
LATENCY, MEMORY, INSTRUCTIONS = "latency", "memory", "instructions"  # what can be told of a model beside its answers
HERE = frozenset({LATENCY, MEMORY})
COUNTED = 5  # inferences


@contextlib.contextmanager
def stopwatch():
    """Time a block: yields a function that tells the seconds from its beginning to its end. Notebooks that run beside it stand
    still meanwhile."""
    with company.standing_still():
        start, ends = time.perf_counter(), []
        yield lambda: (ends[0] if ends else time.perf_counter()) - start
        ends.append(time.perf_counter())


def correct(model, x, y, batch=litert.BATCH, threads=runtime_env.LITERT_THREADS):
    """Which test samples a model gets right (top-1): bool (n,). x: float32 (n, ...); y: labels, as `ground_truth.labels` takes
    them, with what it raises."""
    outputs = litert.predict(model, x, batch, threads)
    return outputs.argmax(axis=-1) == ground_truth.labels(y, len(x), outputs.shape[-1])


def latency(models, baseline, x, rounds=ROUNDS, threads=1, plain=()):
    """Time one sample (batch 1) on several models, interleaved: A B C, A B C, …

    models: name -> `.tflite`; baseline: the name to compare with; x: samples, of which the first is run, (n, ...), or name of
    an input -> such an array. plain: names of models to run in
    built-in kernels, without XNNPACK. $COMPRESSION_LAB_MOST_ROUNDS bounds rounds.
    Where an interpreter's buffers happen to lie shifts its times by some percent for as long as it lives. So the
    rounds are spread over blocks, each with interpreters of its own, and it is the blocks that are repetitions.
    Returns a frame indexed by name: milliseconds (median), ratio (baseline / model, so above 1 is faster; the geometric
    mean of the blocks' medians, each round having timed both), low, high (95% t interval over the blocks' logarithms).
    Raises InputError when baseline is not among the models, or for fewer rounds than blocks.
    """
    _check(models, baseline, rounds)
    rounds = _bounded(rounds)
    samples = {name: array[:1] for name, array in inputs.by_name(x).items()}
    load = {name: functools.partial(_loaded, model, samples, name not in plain) for name, model in models.items()}
    with company.standing_still():
        found = interpreting.interleaved(load, samples, rounds, threads=threads)
    return _ratios(found, baseline)


def _loaded(model, samples, delegates, threads):
    """An interpreter for one sample, with open sizes as it has them."""
    loaded = litert.interpreter(model, threads, delegates=delegates)
    ends = loaded.get_input_details()
    for end, array in zip(ends, interpreting.fed(interpreting.declared(loaded)[0], samples), strict=True):
        if end["shape"].tolist() != list(array.shape):
            loaded.resize_tensor_input(end["index"], array.shape)
    loaded.allocate_tensors()
    return loaded


def peak_memory(model, threads=1, repeats=3):
    """Bytes that loading and running one model adds to the resident high-water mark of a fresh process.

    A child process runs the model, another runs nothing; the Estimate is the median difference, with the smallest
    and the largest one as its ends. Raises RunError when the child fails.
    """
    with staged({"model": litert.content(model)}) as (folder, names):
        return _memory(names, runner.run_all(_memory_jobs(names, threads, repeats), folder))["model"]


@contextlib.contextmanager
def staged(models, x=None):
    """A temporary folder with copies of models and samples, as jobs for `runner` need them.

    models: name -> bytes or path of a `.tflite`, which is not looked into; x: (n, ...), or name of an input -> such an array,
    stored in SAMPLES. Yields (folder, name -> file name in it). Raises InputError when a model cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="compression_lab_") as folder:
        names = {name: f"{number}.tflite" for number, name in enumerate(models)}
        for name, model in models.items():
            (Path(folder) / names[name]).write_bytes(inputs.content(model, name))
        if x is not None:
            inputs.save(Path(folder) / SAMPLES, inputs.by_name(x))
        yield folder, names


def jobs(names, baseline, x, rounds=ROUNDS, threads=1, repeats=3, limits=None, told=HERE):
    """The jobs for `runner.run_all`, or a target's, that measure staged models.

    names: name -> file; x: the samples that are staged with them; limits: as `runner` takes them; told: what is measured, of LATENCY,
    MEMORY and INSTRUCTIONS. `table` reads the answers. Raises InputError as `latency` does.
    """
    _check(names, baseline, rounds)
    found = []
    timing = {
        "task": "time",
        "models": names,
        "samples": SAMPLES,
        "rounds": rounds,
        "blocks": interpreting.BLOCKS,
        "threads": threads,
    }
    if LATENCY in told:
        found.append(timing)
    if MEMORY in told:
        found += _memory_jobs(names, threads, repeats, x)
    if INSTRUCTIONS in told:
        found.append({"task": "count", "models": names, "samples": SAMPLES, "times": COUNTED})
    return [{**job, "limits": limits} if limits else job for job in found]


def table(names, baseline, answers, told=HERE):
    """The answers to `jobs`, of the same models and what is told of them, as a frame indexed by name.

    Columns, each where it was measured: those of `latency`; memory, Estimates in bytes; instructions, of one inference (median), and
    instruction_ratio (baseline / model, so above 1 is fewer). Raises RunError for a job that failed.
    """
    frame, answers = pd.DataFrame(index=pd.Index(list(names), name="model")), list(answers)
    if LATENCY in told:
        blocks = _answered(answers.pop(0), "the process that times the models")["blocks"]
        frame = frame.join(_ratios(blocks, baseline))
    if INSTRUCTIONS in told:
        counted = _answered(answers.pop(), "the process that counts instructions")["instructions"]
        frame["instructions"] = [float(np.median(counted[name])) for name in names]
        frame["instruction_ratio"] = frame.loc[baseline, "instructions"] / frame["instructions"]
    if MEMORY in told:
        frame["memory"] = pd.Series(_memory(names, answers))
    return frame


def _answered(answer, what, model=None):
    if "error" in answer:
        limited = answer.get("kind") in LIMITED
        raise RunError(f"{what} failed: {answer['error']}", model, limited)
    return answer


def prediction(file, threads=runtime_env.LITERT_THREADS, show=0, limits=None, write=None):
    """The job for `runner` that answers the staged samples, with the outputs of the first `show` of them, and all of them in
    files whose names begin with `write`, if any."""
    job = {
        "task": "predict",
        "model": file,
        "samples": SAMPLES,
        "batch": litert.BATCH,
        "threads": threads,
        "show": show,
        "write": write,
    }
    return {**job, "limits": limits} if limits else job


def report(models, baseline, x=None, rounds=ROUNDS, threads=1, target=None, signature=None):
    """Size, latency and peak memory of several models, here or on a target (`targets.known`), which may tell of other things:
    (frame, machine).

    models, baseline: as in `latency`. x: samples, (n, ...), or name of an input -> such an array; without them random ones of
    the baseline's input shapes, which cost the same time. The frame is that of `table` with the columns size and gzip (bytes)
    and, with a target, for its first answers: same, the share that are `like` those given here; bit_equal, the share whose outputs
    are the same to the last bit; difference, the largest of outputs.
    machine: system, cpu, cores and versions, where it was measured. signature: which one is run of files of several; their sizes are
    those of the whole files.
    Raises InputError as `latency` does, RunError, and what the target raises.
    """
    sizes = {name: litert.size(model) for name, model in models.items()}
    models = {name: _alone(model, signature, name) for name, model in models.items()}
    x = random_samples(models[baseline]) if x is None else inputs.by_name(x)
    told, number = (target.measures, target.samples) if target else (HERE, TARGET_SAMPLES)
    x = {name: array[:number] for name, array in x.items()}
    rounds = _bounded(rounds)
    with staged(models, x) as (folder, names):
        answering = [prediction(file, show=number) for file in names.values()] if target else []
        here = runner.run_all(answering, folder)
        asked = [{"task": "machine"}, *jobs(names, baseline, x, rounds, threads, told=told), *answering]
        with contextlib.nullcontext() if target else company.standing_still():
            machine, *answers = (target or runner).run_all(asked, folder)
    there = [answers.pop() for _ in answering][::-1]
    frame = table(names, baseline, answers, told)
    frame["size"], frame["gzip"] = [size.raw for size in sizes.values()], [size.gzip for size in sizes.values()]
    if target:
        both = list(zip(here, there, strict=True))
        rows = [compared(*pair) if all("first" in each for each in pair) else [np.nan] * 3 for pair in both]
        frame[["same", "bit_equal", "difference"]] = rows
    return frame, machine


def _alone(model, signature, name):
    """The file of one signature; as it was given where it has no other, so that whatever is wrong with it names its path."""
    alone = rewrite.one_signature(model, signature, name)
    return model if alone == inputs.content(model, name) else alone


def random_samples(model, number=16):
    """Samples of a file's inputs, drawn at random: name -> array (number, ...); open sizes are 1. Raises InputError for a file
    that cannot be loaded."""
    ends = interpreting.declared(litert.interpreter(model))[0]
    return dict(zip([each["name"] for each in ends], interpreting.drawn(ends, number), strict=True))


def like(one, other):
    """Which samples of two answers, (n, ...) each, are alike: bool (n,), whatever they are for. In a row the largest number must be
    at the same place, where the first has several at any of them; a single number must be nearly the same; and where there are more axes, each
    channel (of the last one) by itself, so that boxes hide no scores. What is not finite is like nothing."""
    return _like(one, other) & scoring.finite(other)


def _like(one, other):
    n = len(one)
    one, other = (each.reshape(n, -1) if each[:1].size in (1, each.shape[-1]) else each for each in (one, other))
    if one.ndim > 2:
        channels = [each.reshape(n, -1, each.shape[-1]) for each in (one, other)]
        pairs = zip(*(np.moveaxis(each, -1, 0) for each in channels), strict=True)
        return np.all([scoring.noise(*pair) <= scoring.ALIKE for pair in pairs], axis=0)
    if one.shape[1] == 1:
        return np.abs(one - other)[:, 0] <= max(0.01 * np.ptp(one), 1e-5 * np.abs(one).max())
    rows, (its, others) = np.arange(n), (each.argmax(axis=1) for each in (one, other))
    return one[rows, its] == one[rows, others]


def compared(here, there, number=None):
    """Two answers to "predict" compared, of those outputs that both `show`: the share of samples that are `like`, the share that are
    equal to the last bit, the largest difference. number: of samples that both must have shown.

    Raises KeyError, TypeError or ValueError for what is no such answer.
    """
    both = shown(here, there, number)
    return float(np.mean([like(*pair).mean() for pair in both])), *apart(both)


def apart(pairs):
    """Of the outputs that two answers show, as `shown` gives them: the share of samples that are equal to the last bit, and the
    largest difference."""
    equal = np.all([(one == other).reshape(len(one), -1).all(axis=1) for one, other in pairs], axis=0)
    return float(equal.mean()), float(max(np.abs(one - other).max() for one, other in pairs))


def shown(here, there, number=None):
    """The outputs that two answers to "predict" both show, pairs of float (number, ...). Raises KeyError, TypeError or ValueError as
    `compared` does."""
    pairs = []
    for pair in zip(here["first"], there["first"], strict=True):
        one, other = (np.asarray(of, float) for of in pair)
        if one.shape != other.shape or not one.ndim or len(one) != (number or len(one)) or not len(one):
            raise ValueError(f"{one.shape} and {other.shape} cannot be compared")
        pairs.append((one, other))
    return pairs


def _bounded(rounds):
    return min(rounds, int(os.environ.get(runtime_env.MOST_ROUNDS_VARIABLE) or rounds))


def _check(models, baseline, rounds):
    if baseline not in models:
        raise InputError(f"baseline={baseline!r} is not one of {', '.join(models)}.")
    if rounds < interpreting.BLOCKS:
        raise InputError(
            f"rounds={rounds} must be at least {interpreting.BLOCKS}, one for each block of fresh interpreters."
        )


def _ratios(blocks, baseline):
    blocks = [pd.DataFrame(turns) for turns in blocks]
    times = pd.concat(blocks)
    rows = []
    for name in times:
        estimate = stats.geometric_mean([(block[baseline] / block[name]).median() for block in blocks])
        rows.append(
            {
                "model": name,
                "milliseconds": 1000 * times[name].median(),
                "ratio": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    return pd.DataFrame(rows).set_index("model")


def _memory_jobs(names, threads, repeats, x=None):
    """Each model by itself, then none, and again. x: samples, whose sizes open ones take."""
    shapes = {} if x is None else {name: ((1, *of.shape[1:]), of.dtype.name) for name, of in inputs.by_name(x).items()}
    return [
        {"task": "memory", "model": file, "threads": threads, "shapes": shapes}
        for _ in range(repeats)
        for file in (*names.values(), None)
    ]


def _memory(names, answers):
    found = {name: [] for name in (*names, None)}
    for number, answer in enumerate(answers):
        name = list(found)[number % len(found)]
        of = name or "empty"
        found[name].append(_answered(answer, f"the child process that runs the {of}", of)["bytes"])
    without = found.pop(None)
    differences = {name: np.subtract(each, without) for name, each in found.items()}
    return {
        name: stats.Estimate(float(np.median(each)), float(min(each)), float(max(each)), "bytes")
        for name, each in differences.items()
    }
