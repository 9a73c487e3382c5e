"""Accept or reject a compressed model: measured against its baseline by a policy, for reasons that are told.

Neither file is loaded in this process. The candidate may be damaged or hostile: whatever it does to its child process (see
`runner`) is a reason to reject it, not a failure of the gate.
"""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np

from helpers.base import ground_truth
from helpers.base.errors import InputError, RunError
from helpers.deploy.policy import (
    FAIL,
    PASS,
    UNDECIDED,
    Check,
    Policy,
    agreement,
    at_least,
    at_most,
    counted,
    drop,
    worst_group,
)
from helpers.evidence import stats
from helpers.evidence.stats import Estimate
from helpers.tflite import inputs, measure, runner

ACCEPTED, REJECTED, UNSURE = "accepted", "rejected", "undecided"
EXIT_CODES = {ACCEPTED: 0, REJECTED: 1, UNSURE: 2}
NO_TFLITE = "it is no .tflite file (its bytes 4 to 8 should read TFL3); a Keras model must be converted to one first"
_answered = {}  # what the last baseline was asked -> its answer
SAME_ON_TARGET = 0.99  # of the answers; int8 kernels of another processor may round the last bit differently


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

    outcome: ACCEPTED (every check passed), REJECTED (one failed) or UNSURE. measured: name -> Estimate, also of what the
    policy does not ask. candidate, baseline: sha256, bytes, inputs, outputs (the last two as the file declares them).
    data: samples, sha256. machine: where latency and memory were measured, or None.
    """

    outcome: str
    checks: tuple[Check, ...]
    measured: dict[str, Estimate]
    policy: Policy
    candidate: dict
    baseline: dict
    data: dict
    machine: dict | None

    @property
    def exit_code(self):
        return EXIT_CODES[self.outcome]

    def as_dict(self):
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def judge(
    candidate, baseline, x, y, policy=None, slices=None, *, limits=None, rounds=measure.ROUNDS, target=None, speed=True
):
    """Decide on a candidate `.tflite` against its baseline; both bytes or paths, both classifiers.

    x: samples as the models take them, float32 (n, ...); y: labels, int (n,); slices: which part of the data each sample
    belongs to, str or int (n,), for the policy's max_slice_drop. target: a `remote.Target` on which latency and memory are
    measured, and some answers compared with those given here. speed: measure latency and memory even if the policy does not
    ask for them. A second or two, plus the time that the samples need, plus about ten seconds for speed.
    Judge a candidate once, on samples whose number was fixed before: `policy` says why, and what to do about undecided checks.
    Raises InputError for unusable data or baseline or a missing file, and for a baseline whose answers have nothing to do
    with the labels; and what the target raises.
    """
    policy, limits = policy or Policy(), dataclasses.asdict(limits or Limits())
    given = {"baseline": baseline, "candidate": candidate}
    blobs = {name: inputs.content(model, name) for name, model in given.items()}
    x, y, slices = _data(x, y, slices, policy)
    if rounds < runner.BLOCKS:
        raise InputError(f"rounds={rounds} must be at least {runner.BLOCKS}.")
    show = measure.TARGET_SAMPLES if target else 0
    data = {"samples": len(x), "sha256": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()}
    reference, found = _answers(blobs, x, data, show, limits)
    classes = _reference(reference, x, y)
    checks, answers = _runs(found, reference, len(x))
    measured = {"size.baseline": _bytes(len(blobs["baseline"])), "size.candidate": _bytes(len(blobs["candidate"]))}
    machine = None
    if answers is not None:
        more, numbers = _accuracy(classes, answers, y, slices, policy)
        checks, measured = [*checks, *more], measured | numbers
        if policy.max_size is not None:
            size = measured["size.candidate"]
            because = f"{size.value:,.0f} bytes, the baseline {len(blobs['baseline']):,}"
            checks.append(at_most("size", size, policy.max_size, because))
        if speed or target or policy.min_speedup is not None or policy.max_peak_memory is not None:
            more, numbers, machine = _speed(blobs, x, found, policy, limits, rounds, target)
            checks, measured = [*checks, *more], measured | numbers
    return Decision(
        _outcome(checks),
        tuple(checks),
        measured,
        policy,
        _described(blobs["candidate"], found),
        _described(blobs["baseline"], reference),
        data,
        machine,
    )


def _answers(blobs, x, data, show, limits):
    """What baseline and candidate answer to "predict", in this order. Many candidates are judged against one baseline on the
    same samples, so the baseline's last answer is kept."""
    baseline = hashlib.sha256(blobs["baseline"]).hexdigest()
    asked = (baseline, data["sha256"], x.shape, show, *sorted(limits.items()))
    with measure.staged(blobs, x) as (folder, names):
        found = {
            name: runner.run(measure.prediction(names[name], show=show, limits=limits), folder)
            if inputs.is_tflite(blob)
            else {"error": NO_TFLITE}
            for name, blob in blobs.items()
            if name == "candidate" or asked not in _answered
        }
    if "baseline" in found:
        _answered.clear()
        if "error" not in found["baseline"]:
            _answered[asked] = found["baseline"]
    return found.get("baseline") or _answered[asked], found["candidate"]


def _data(x, y, slices, policy):
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim < 2 or not x.size or x.dtype.kind not in "fiu":
        raise InputError(f"x is {x.dtype} of shape {x.shape}: it must be numbers of shape (n, ...), one sample a row.")
    x, y = inputs.float_samples(x), ground_truth.labels(y, len(x))
    if slices is not None:
        slices = np.asarray(slices)
        if slices.shape != (len(x),) or slices.dtype.kind not in "iuU":
            raise InputError(
                f"slice is {slices.dtype} of shape {slices.shape}: it must be words or integers of shape ({len(x)},)."
            )
    elif policy.max_slice_drop is not None:
        raise InputError("max_slice_drop is asked, but the data has no slice: add an array `slice`, a word a sample.")
    return x, y, slices


def _reference(answer, x, y):
    """The baseline's answers, int (n,). Raises InputError if it has none, or none that have to do with the labels."""
    problem = _failure(answer, len(y)) or answer.get("unusable")
    if problem:
        lacks_channels = problem == answer.get("unusable") and answer["inputs"][0]["shape"][1:] == [*x.shape[1:], 1]
        cure = " Give x[..., None], which adds the axis of channels." if lacks_channels else ""
        raise InputError(f"baseline cannot be judged against: {problem}.{cure}")
    if answer["not_finite"]:
        raise InputError(f"baseline answers NaN or infinity to {answer['not_finite']:,} of {len(y):,} samples.")
    y = ground_truth.labels(y, len(y), answer["outputs"][0]["shape"][1])
    found = np.array(answer["classes"])
    measure.check_informed(found, y, "baseline")
    return found


def _runs(answer, reference, n):
    """The checks that need no numbers, and the candidate's answers, int (n,), or None if one of them fails."""
    problem = _failure(answer, n)
    checks = [
        Check("loads and runs", FAIL if problem else PASS, None, None, problem or f"answered {counted(n, 'sample')}")
    ]
    if problem:
        return checks, None
    shown = "; ".join(f"{kind} {_shown(answer[kind + 's'])}" for kind in ("input", "output"))
    problem = answer.get("unusable")
    if not problem and answer["outputs"][0]["shape"] != reference["outputs"][0]["shape"]:
        problem = f"the baseline's output is {_shown(reference['outputs'])}"
    because = f"{shown}: {problem}" if problem else shown
    checks.append(Check("inputs and outputs", FAIL if problem else PASS, None, None, because))
    if problem:
        return checks, None
    wild = answer["not_finite"]
    because = f"NaN or infinity for {wild:,} of {n:,} samples" if wild else "no NaN, no infinity"
    checks.append(Check("finite outputs", FAIL if wild else PASS, None, None, because))
    return checks, None if wild else np.array(answer["classes"])


def _failure(answer, n):
    """Why an answer to "predict" is none, or None. A damaged model may have damaged the process that answered for it."""
    if "error" in answer:
        return answer["error"]
    try:
        if "unusable" not in answer:
            classes = answer["outputs"][0]["shape"][1]
            whole = all(type(it) is int and 0 <= it < classes for it in answer["classes"])
            if len(answer["classes"]) != n or not whole or type(answer["not_finite"]) is not int:
                raise ValueError
        _shown(answer["inputs"] + answer["outputs"])
    except (KeyError, IndexError, TypeError, ValueError):
        return "its process answered nonsense"
    return None


def _accuracy(reference, answers, y, slices, policy):
    right, still_right = reference == y, answers == y
    measured = {
        "top1.baseline": stats.proportion(right),
        "top1.candidate": stats.proportion(still_right),
        "delta_top1": stats.paired_difference(right, still_right),
        "agreement": stats.proportion(reference == answers),
    }
    checks = []
    if policy.max_drop is not None:
        checks.append(drop(right, still_right, policy.max_drop))
    if policy.min_agreement is not None:
        checks.append(agreement(reference, answers, policy.min_agreement))
    if policy.max_class_drop is not None:
        checks.append(worst_group("class", right, still_right, y, policy.max_class_drop))
    if policy.max_slice_drop is not None:
        checks.append(worst_group("slice", right, still_right, slices, policy.max_slice_drop))
    return checks, measured


def _speed(blobs, x, here, policy, limits, rounds, target):
    """Latency and memory, here or on the target: checks, numbers and the machine. here: the candidate's answer to "predict"."""
    n = min(len(x), measure.TARGET_SAMPLES)
    with measure.staged(blobs, x[:n]) as (folder, names):
        predictions = [measure.prediction(names["candidate"], show=n, limits=limits)] if target else []
        asked = [{"task": "machine"}, *predictions, *measure.jobs(names, "baseline", rounds, limits=limits)]
        machine, *answers = (target or runner).run_all(asked, folder)
    checks = []
    if target:
        there, *answers = answers
        checks.append(_same_answers(here, there, n))
        machine["target"] = target.url
    try:
        table = measure.table(names, "baseline", answers)
    except RunError as error:
        return [*checks, Check("speed and memory", FAIL, None, None, str(error))], {}, machine
    found = table.loc["candidate"]
    ratio = Estimate(found["ratio"], found["low"], found["high"])
    memory, former = found["memory"], table.loc["baseline", "memory"]
    times = table["milliseconds"]
    if policy.min_speedup is not None:
        because = f"{ratio:.2f} times the baseline's speed: {times['candidate']:.3g} ms, the baseline {times['baseline']:.3g} ms"
        advice = "more rounds or a quieter machine would decide"
        checks.append(at_least("speedup", ratio, policy.min_speedup, because, advice))
    if policy.max_peak_memory is not None:
        because = f"{memory.value / 1e6:.1f} MB, the baseline {former.value / 1e6:.1f} MB"
        advice = "its repetitions lie on both sides of the limit"
        checks.append(at_most("peak memory", memory, policy.max_peak_memory, because, advice))
    measured = {
        "latency_ratio": ratio,
        "milliseconds.baseline": Estimate(float(times["baseline"]), unit="ms"),
        "milliseconds.candidate": Estimate(float(times["candidate"]), unit="ms"),
        "peak_memory.baseline": former,
        "peak_memory.candidate": memory,
    }
    return checks, measured, machine


def _same_answers(here, there, n):
    name = "answers on the target"
    problem = _failure(there, n) or there.get("unusable")
    if problem:
        return Check(name, FAIL, None, None, problem)
    same = np.array(here["classes"][:n]) == np.array(there["classes"])
    difference = np.abs(np.subtract(here["first"][:n], there["first"])).max()
    because = f"{same.sum()} of {n} are those given here; outputs differ by {difference:.2g} at most"
    share = Estimate(float(same.mean()), unit="share")
    return Check(name, PASS if share.value >= SAME_ON_TARGET else FAIL, share, SAME_ON_TARGET, because)


def _outcome(checks):
    outcomes = {check.outcome for check in checks}
    return REJECTED if FAIL in outcomes else UNSURE if UNDECIDED in outcomes else ACCEPTED


def _described(blob, answer):
    return {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "bytes": len(blob),
        "inputs": answer.get("inputs"),
        "outputs": answer.get("outputs"),
    }


def _shown(tensors):
    return ", ".join(f"{tensor['dtype']} {tuple(tensor['shape'])}" for tensor in tensors) or "none"


def _bytes(number):
    return Estimate(float(number), unit="bytes")
