"""Whether a target answers as this machine does: the task that the answers are for says what is the same."""

import dataclasses

import numpy as np

from helpers.deploy import outputs
from helpers.deploy.policy import FAIL, PASS, UNDECIDED, Check, at_least
from helpers.evidence import stats
from helpers.tflite import measure, runner, scoring

NAME = "answers on the target"
SAME = 0.99  # of the answers; int8 kernels of another processor may round the last bit differently
MORE = 4  # times as many samples, where a target's usual number leaves it open


def check(target, candidate, x, judged, places, limits):
    """The Check of a candidate's answers on a target, beside those that it gives here to the same samples.

    target: of `targets.known`. candidate: bytes of a `.tflite`. x: name of an input -> array (n, ...), of which the target answers as
    many as its `samples`, spread over all, since they may be in the order of classes; MORE times as many if those do not decide.
    judged: the baseline's Heads. places: of the baseline's outputs among the candidate's. limits: as `runner` takes them. Raises what the
    target raises.
    """
    total = len(next(iter(x.values())))
    for n in dict.fromkeys(min(times * target.samples, total) for times in (1, MORE)):
        spread = np.linspace(0, total - 1, n).round().astype(int)
        few = {name: array[spread] for name, array in x.items()}
        with measure.staged({"candidate": candidate}, few) as (folder, names):
            job = measure.prediction(names["candidate"], show=n, limits=limits)
            [here], [there] = (where.run_all([job], folder) for where in (runner, target))
        advice = "more samples would decide" if n < MORE * target.samples else "no more samples are compared"
        found = _compared(judged, places, here, there, n, advice)
        if found.outcome != UNDECIDED or found.measured is None:
            break
    return found


def _compared(judged, places, here, there, n, advice):
    problem = there.get("error") or there.get("unusable")
    if there.get("kind") in measure.LIMITED:
        return Check(NAME, UNDECIDED, None, None, f"{problem}; more --seconds or --memory would decide")
    if problem:
        return Check(NAME, FAIL, None, None, problem)
    try:
        pairs = measure.shown(here, there, n)
        equal, difference = measure.apart(pairs)
        both = [{name: pairs[place][side] for name, place in places.items()} for side in (0, 1)]
        same = np.min([head.task.alike(*map(head.of, both)).astype(float) for head in judged], axis=0)
        same *= np.all([scoring.finite(pairs[place][1]) for place in places.values()], axis=0)
    except (KeyError, IndexError, TypeError, ValueError):
        return Check(NAME, FAIL, None, None, outputs.NONSENSE)
    because = f"{same.sum():.4g} of {n} are those given here, {equal * n:g} to the last bit; outputs differ by {difference:.2g} at most"
    share = dataclasses.replace(stats.proportion(np.arange(n) < same.sum()), value=float(same.mean()))
    if share.value >= SAME:
        return Check(NAME, PASS, share, SAME, because)
    return at_least(NAME, share, SAME, because, advice)
