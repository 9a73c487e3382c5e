"""Accept or reject a compressed model: measured against its baseline by a policy, for reasons that are told.

Neither file is loaded in this process. The candidate may be damaged or hostile: whatever it does to its child process (see
`runner`) is a reason to reject it, not a failure of the gate.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base.errors import InputError, RunError
from helpers.deploy import answers, on_target, outputs
from helpers.deploy.policy import FAIL, PASS, UNDECIDED, Check, Policy, at_least, at_most, counted
from helpers.deploy.policy import drop as drop  # the check by itself, for who compares answers of their own
from helpers.evidence.stats import Estimate
from helpers.tflite import causes, heads, inputs, interpreting, measure, runner

ACCEPTED, REJECTED, UNSURE = "accepted", "rejected", "undecided"
EXIT_CODES = {ACCEPTED: 0, REJECTED: 1, UNSURE: 2}
NO_TFLITE = "it is no .tflite file (its bytes 4 to 8 should read TFL3); a Keras model must be converted to one first"
_answered = {}  # what the last baseline was asked -> its answer
MOST_CAUSES = 5


@dataclass(frozen=True)
class Limits:
    """What a child process may use: seconds (of the clock, and of each thread's processor time) and bytes of memory that a
    model may add. Raises InputError for less than a second or a megabyte.
    """

    seconds: float = 600
    bytes: int = 4_000_000_000

    def __post_init__(self):
        if not (self.seconds >= 1 and self.bytes >= 1_000_000):
            raise InputError(f"seconds={self.seconds!r} must be 1 or more, and bytes={self.bytes!r} a million or more.")


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and all that it knows.

    outcome: ACCEPTED (every check passed), REJECTED (one failed) or UNSURE. judged: which task, and by what. measured: name ->
    Estimate, also of what the policy does not ask. candidate, baseline: sha256, bytes, inputs, outputs (the last two as the
    file declares them), and signature, where it is one of several. data: samples, sha256. machine: where latency and memory were
    measured, or None. causes: what in the candidate's scales explains a loss, in sentences (`causes.find`).
    """

    outcome: str
    judged: str
    checks: tuple[Check, ...]
    measured: dict[str, Estimate]
    policy: Policy
    candidate: dict
    baseline: dict
    data: dict
    machine: dict | None
    causes: tuple[str, ...] = ()

    @property
    def exit_code(self):
        return EXIT_CODES[self.outcome]

    def as_dict(self):
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def judge(
    candidate,
    baseline,
    x,
    y=None,
    policy=None,
    slices=None,
    *,
    purpose=None,
    signature=None,
    limits=None,
    rounds=measure.ROUNDS,
    target=None,
    speed=True,
):
    """Decide on a candidate `.tflite` against its baseline; both bytes or paths.

    x: samples as the models take them, (n, ...), or name of an input -> such an array. y: labels, as the task takes them; of
    several outputs name -> labels; without any the baseline's own answers count as right, which bounds what can be lost
    (a drop of accuracy is no larger than the share of changed answers). slices: which part of the data each sample belongs to,
    str or int (n,), for the policy's max_slice_drop. purpose: a `heads.Purpose`. signature: which one is judged of a file of several,
    as if there were no other, or "baseline's=candidate's" where they call it differently; size and hash are those of the whole file.
    target: a machine (`targets.known`) on which latency and memory are measured, or what it tells instead, and some answers compared
    with those given here. speed: measure latency and memory even if the policy does not ask for them. A second or two, plus the time
    that the samples need, plus about ten seconds for speed.
    Judge a candidate once, on samples whose number was fixed before: `policy` says why, and what to do about undecided checks. Samples
    to all of which the baseline gives one answer decide nothing.
    Raises InputError for unusable data or baseline or a missing file, for a task that does not fit, and for a baseline whose
    answers have nothing to do with the labels; and what the target raises.
    """
    policy, limits, purpose = policy or Policy(), dataclasses.asdict(limits or Limits()), purpose or heads.Purpose()
    given = {"baseline": baseline, "candidate": candidate}
    blobs = {name: inputs.content(model, name) for name, model in given.items()}
    x, slices = _data(x, slices, policy)
    if target:
        _answerable(policy, target)
    if rounds < interpreting.BLOCKS:
        raise InputError(f"rounds={rounds} must be at least {interpreting.BLOCKS}.")
    n = len(next(iter(x.values())))
    data = {"samples": n, "sha256": _fingerprint(x, y)}
    files, refused = _of_signature(blobs, signature, limits)
    reference, found = _answers(files, refused, x, data, limits)
    judged = heads.heads(_reference(reference, x, n), y, purpose)
    checks, theirs = _runs(found, reference, n, purpose.outputs)
    measured = {"size.baseline": _bytes(len(blobs["baseline"])), "size.candidate": _bytes(len(blobs["candidate"]))}
    machine, told = None, ()
    if theirs is not None:
        for head in judged:
            more, numbers = answers.compared(head, theirs, slices, policy)
            checks, measured = [*checks, *more], measured | numbers
        if _outcome(checks) != ACCEPTED:
            told = _causes(files, x, limits)
        if policy.max_size is not None:
            size = measured["size.candidate"]
            because = f"{size.value:,.0f} bytes, the baseline {len(blobs['baseline']):,}"
            checks.append(at_most("size", size, policy.max_size, because))
        if target:
            wanted, names = ([of["name"] for of in answer["outputs"]] for answer in (reference, found))
            order = outputs.called(wanted, names, purpose.outputs)
            places = {name: names.index(order[name]) for name in wanted}
            checks.append(on_target.check(target, files["candidate"], x, judged, places, limits))
        if speed or target or policy.min_speedup is not None or policy.max_peak_memory is not None:
            more, numbers, machine = _speed(files, x, policy, limits, rounds, target, speed)
            checks, measured = [*checks, *more], measured | numbers
    return Decision(
        _outcome(checks),
        "; ".join(map(str, judged)),
        tuple(checks),
        measured,
        policy,
        _described("candidate", blobs, files, signature, found),
        _described("baseline", blobs, files, signature, reference),
        data,
        machine,
        told,
    )


def _causes(files, x, limits):
    """In a process of its own, which read both files and may have been damaged by one."""
    few = {name: array[: causes.SAMPLES] for name, array in x.items()}
    with measure.staged(files, few) as (folder, names):
        job = {**causes.JOB, "model": names["candidate"], "baseline": names["baseline"], "samples": measure.SAMPLES}
        told = runner.run({**job, "limits": limits}, folder).get("causes")
    sentences = told[:MOST_CAUSES] if isinstance(told, list) else []
    return tuple(interpreting.printable(each, 500) for each in sentences if isinstance(each, str))


def _fingerprint(x, y):
    digest = hashlib.sha256()
    labels = {} if y is None else y if isinstance(y, dict) else {"y": y}
    for name, array in (*x.items(), *labels.items()):
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _of_signature(blobs, signature, limits):
    """The files of one signature, made by processes of their own (all as they are if none is named); and, as answers, why some
    cannot be made."""
    files, refused = dict(blobs), {name: {"error": NO_TFLITE} for name in blobs if not inputs.is_tflite(blobs[name])}
    if signature is None:
        return files, refused
    called = _called(signature)
    with measure.staged(blobs) as (folder, names):
        for name in [name for name in blobs if name not in refused]:
            made = Path(folder) / f"{name}.alone"
            job = {
                "task": "alone",
                "model": names[name],
                "signature": called[name],
                "write": made.name,
                "limits": limits,
            }
            answer = runner.run(job, folder)
            problem = answer.get("error") or answer.get("unusable")
            if problem:
                other = (
                    f"; if it has another name in the {name}, say --signature BASELINE=CANDIDATE, its name in either"
                )
                cure = other if len(set(called.values())) == 1 and "no signature" in problem else ""
                refused[name] = {"error": interpreting.printable(str(problem), 1000) + cure}
            elif made.is_file():
                files[name] = made.read_bytes()
    return files, refused


def _called(signature):
    """What either file calls a signature: "name", or "baseline's=candidate's"."""
    former, _, other = signature.partition("=")
    return {"baseline": former, "candidate": other or former}


def _answers(files, refused, x, data, limits):
    """What baseline and candidate answer to "predict", in this order, each with its outputs: a list of arrays (n, ...). Many
    candidates are judged against one baseline on the same samples, so the baseline's last answer is kept. refused: answers that are
    known without asking, by the name of the file."""
    baseline = hashlib.sha256(files["baseline"]).hexdigest()
    asked = (baseline, data["sha256"], *sorted(limits.items()))
    with measure.staged(files, x) as (folder, names):
        found = {
            name: refused.get(name)
            or outputs.read(
                runner.run(measure.prediction(file, limits=limits, write=name), folder), folder, name, data["samples"]
            )
            for name, file in names.items()
            if name == "candidate" or name in refused or asked not in _answered
        }
    if "baseline" in found:
        _answered.clear()
        if "error" not in found["baseline"]:
            _answered[asked] = found["baseline"]
    return found.get("baseline") or _answered[asked], found["candidate"]


def _data(x, slices, policy):
    samples = x if isinstance(x, dict) else {"x": x}
    found = {}
    for name, array in samples.items():
        array = np.asarray(array)
        if array.ndim < 2 or not array.size or array.dtype.kind not in "fiu":
            raise InputError(
                f"{name} is {array.dtype} of shape {array.shape}: it must be numbers of shape (n, ...), one sample a row."
            )
        found[name] = inputs.float_samples(array, name=name) if array.dtype.kind == "f" else np.ascontiguousarray(array)
    numbers = {name: len(array) for name, array in found.items()}
    if len(set(numbers.values())) > 1:
        raise InputError(f"the inputs have different numbers of samples ({numbers}): give as many of each.")
    if slices is not None:
        slices = np.asarray(slices)
        if slices.ndim != 1 or slices.dtype.kind not in "iuU":
            raise InputError(
                f"slice is {slices.dtype} of shape {slices.shape}: it must be words or integers of shape "
                f"({next(iter(numbers.values()))},)."
            )
    elif policy.max_slice_drop is not None:
        raise InputError("max_slice_drop is asked, but the data has no slice: add an array `slice`, a word a sample.")
    return found, slices


def _reference(answer, x, n):
    """The baseline's outputs, name -> float32 (n, ...). Raises InputError if it has none, or some that are not finite."""
    problem = answer.get("error") or answer.get("unusable")
    if problem:
        shapes = [of.shape[1:] for of in x.values()]
        lacks_channels = problem == answer.get("unusable") and [tuple(of["shape"][1:]) for of in answer["inputs"]] == [
            (*shape, 1) for shape in shapes
        ]
        cure = " Give x[..., None], which adds the axis of channels." if lacks_channels else ""
        raise InputError(f"baseline cannot be judged against: {problem}.{cure}")
    if answer["not_finite"]:
        raise InputError(f"baseline answers NaN or infinity to {answer['not_finite']:,} of {n:,} samples.")
    return dict(zip([of["name"] for of in answer["outputs"]], answer["arrays"], strict=True))


def _runs(answer, reference, n, renamed):
    """The checks that need no numbers, and the candidate's outputs by the baseline's names, or None if one of them fails."""
    problem = answer.get("error")
    checks = [
        Check("loads and runs", FAIL if problem else PASS, None, None, problem or f"answered {counted(n, 'sample')}")
    ]
    if problem:
        return checks, None
    shown = "; ".join(f"{kind} {outputs.shown(answer[kind + 's'])}" for kind in ("input", "output"))
    problem = answer.get("unusable")
    if not problem:
        theirs, problem = outputs.matched(answer, reference, renamed)
    because = f"{shown}: {problem}" if problem else shown
    checks.append(Check("inputs and outputs", FAIL if problem else PASS, None, None, because))
    if problem:
        return checks, None
    wild = answer["not_finite"]
    because = f"NaN or infinity for {wild:,} of {n:,} samples" if wild else "no NaN, no infinity"
    checks.append(Check("finite outputs", FAIL if wild else PASS, None, None, because))
    return checks, None if wild else theirs


def _speed(blobs, x, policy, limits, rounds, target, speed):
    """Latency and memory, here or on the target: checks, numbers and the machine. speed: whether to measure what no limit asks for."""
    limited = policy.min_speedup is not None or policy.max_peak_memory is not None
    told = (target.measures if target else measure.HERE) if speed or limited else frozenset()
    first = {name: array[:1] for name, array in x.items()}
    with measure.staged(blobs, first) as (folder, names):
        asked = [{"task": "machine"}, *measure.jobs(names, "baseline", first, rounds, limits=limits, told=told)]
        machine, *answers = (target or runner).run_all(asked, folder)
    if target:
        machine["target"] = target.url
    try:
        table = measure.table(names, "baseline", answers, told)
    except (RunError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        because, outcome = str(error) if isinstance(error, RunError) else outputs.NONSENSE, FAIL
        if isinstance(error, RunError) and error.model != "candidate" and (error.model or error.limited):
            # It may be the baseline's fault, or that of limits which are too narrow for both together.
            cure = "fewer --rounds, or more --seconds or --memory, would decide"
            outcome, because = UNDECIDED, f"{because}; {cure}{'' if limited else '; --no-speed does not ask'}"
        return [Check("speed and memory", outcome, None, None, because)], {}, machine
    checks, measured = _told(table, policy, told)
    return checks, measured, machine


def _told(table, policy, told):
    """Checks and numbers, of what was measured."""
    found, former = table.loc["candidate"], table.loc["baseline"]
    checks, measured = [], {}
    if measure.LATENCY in told:
        ratio = Estimate(found["ratio"], found["low"], found["high"])
        times = former["milliseconds"], found["milliseconds"]
        if policy.min_speedup is not None:
            because = f"{ratio:.2f} times the baseline's speed: {times[1]:.3g} ms, the baseline {times[0]:.3g} ms"
            advice = "more rounds or a quieter machine would decide"
            checks.append(at_least("speedup", ratio, policy.min_speedup, because, advice))
        measured |= {
            "latency_ratio": ratio,
            "milliseconds.baseline": Estimate(float(times[0]), unit="ms"),
            "milliseconds.candidate": Estimate(float(times[1]), unit="ms"),
        }
    if measure.MEMORY in told:
        memory = former["memory"], found["memory"]
        if policy.max_peak_memory is not None:
            because = f"{memory[1].value / 1e6:.1f} MB, the baseline {memory[0].value / 1e6:.1f} MB"
            advice = "its repetitions lie on both sides of the limit"
            checks.append(at_most("peak memory", memory[1], policy.max_peak_memory, because, advice))
        measured |= {"peak_memory.baseline": memory[0], "peak_memory.candidate": memory[1]}
    if measure.INSTRUCTIONS in told:
        measured |= {
            "instructions.baseline": Estimate(float(former["instructions"]), unit="instructions"),
            "instructions.candidate": Estimate(float(found["instructions"]), unit="instructions"),
            "instruction_ratio": Estimate(float(found["instruction_ratio"])),
        }
    return checks, measured


def _answerable(policy, target):
    """Raises InputError for a limit on what a target does not tell."""
    limits = {
        "min_speedup": (policy.min_speedup, measure.LATENCY),
        "max_peak_memory": (policy.max_peak_memory, measure.MEMORY),
    }
    for name, (limit, needs) in limits.items():
        if limit is not None and needs not in target.measures:
            raise InputError(
                f"{name}={limit} cannot be judged on {target.url}, which tells no {needs}: leave the limit out, or name a machine over "
                "ssh."
            )


def _outcome(checks):
    outcomes = {check.outcome for check in checks}
    return REJECTED if FAIL in outcomes else UNSURE if UNDECIDED in outcomes else ACCEPTED


def _described(name, blobs, files, signature, answer):
    return {
        "sha256": hashlib.sha256(blobs[name]).hexdigest(),
        "bytes": len(blobs[name]),
        **({} if files[name] == blobs[name] else {"signature": _called(signature)[name]}),
        "inputs": answer.get("inputs"),
        "outputs": answer.get("outputs"),
    }


def _bytes(number):
    return Estimate(float(number), unit="bytes")
