"""Whether a candidate answers as well as its baseline: by the labels or, where nobody knows any, by the baseline's own answers."""

from helpers.base.errors import InputError
from helpers.deploy import policy as limits
from helpers.evidence import stats
from helpers.tflite import scoring


def compared(head, candidate, slices, policy):
    """Checks and measured numbers of a candidate's answers (name of an output -> float32 (n, ...)) against a Head."""
    task, before = head.task, head.scores
    answers = head.of(candidate)
    after = task.scores(answers, head.truth)
    same, groups = task.same(head.answers, answers), task.groups(head.truth)
    _check_asked(task, same, groups, slices, policy, len(before))
    of, suffix = task.measure, f".{head.name}" if head.name else ""
    what = f" of {head.name}" if head.name else ""
    measured = {
        f"{of}{suffix}.baseline": stats.score(before),
        f"{of}{suffix}.candidate": stats.score(after),
        f"delta_{of}{suffix}": stats.score_difference(before, after),
    }
    if same is not None:
        measured[f"agreement{suffix}"] = stats.score(same)
    asked = policy.max_drop, policy.min_agreement, policy.max_class_drop, policy.max_slice_drop
    checks = [] if all(limit is None for limit in asked) else _telling(head, what)
    if policy.max_drop is not None:
        checks.append(limits.drop(before, after, policy.max_drop, f"{task.told} drop{what}"))
    if policy.min_agreement is not None:
        checks.append(limits.agreement(same, policy.min_agreement, f"agreement{what}"))
    if policy.max_class_drop is not None:
        checks.append(limits.worst_group("class", before, after, groups, policy.max_class_drop, what))
    if policy.max_slice_drop is not None:
        checks.append(limits.worst_group("slice", before, after, slices, policy.max_slice_drop, what))
    if not head.labelled or policy.min_sqnr is not None or policy.max_damage is not None:
        ratio = stats.score(scoring.sqnr(head.answers, answers))
        damage = stats.score(task.damage(head.answers, answers).astype(float))
        measured |= {f"sqnr{suffix}": ratio, f"damage{suffix}": damage}
        if policy.min_sqnr is not None:
            because = f"{ratio:.1f} dB against the baseline's outputs"
            asked = limits.at_least(f"SQNR{what}", ratio, policy.min_sqnr, because, "more samples would decide")
            checks.append(limits.sampled(asked))
        if policy.max_damage is not None:
            because = f"{damage:.3g} of {task.name}'s damage"
            asked = limits.at_most(f"damage{what}", damage, policy.max_damage, because, "more samples would decide")
            checks.append(limits.sampled(asked))
    return checks, measured


def _telling(head, what):
    """The check that the samples can tell a file that looks at them from one that does not, where they cannot."""
    n = len(next(iter(head.answers.values())))
    other = scoring.others(n)
    same = head.task.same(head.answers, {name: of[other] for name, of in head.answers.items()})
    if same is None or n == 1 or same.min() < 1:
        return []
    because = (
        f"the baseline gives one answer to all {n:,} samples, as would a file that looks at none of them: give samples with other "
        "answers too"
    )
    return [limits.Check(f"samples{what} tell", limits.UNDECIDED, None, None, because)]


def _check_asked(task, same, groups, slices, policy, units):
    """Raises InputError where a policy asks what a task does not have."""
    if policy.min_agreement is not None and same is None:
        raise InputError(
            f"min_agreement is asked, but the numbers of a {task.name} are never quite the same: ask min_sqnr (dB) instead."
        )
    if policy.max_class_drop is not None and groups is None:
        raise InputError(
            f"max_class_drop is asked, but a sample of a {task.name} belongs to no class: ask max_slice_drop, with an array `slice`."
        )
    if slices is not None and len(slices) != units:
        what = "pairs" if task.measure == "right" else "samples"
        raise InputError(f"slice has {len(slices)} words for {units} {what}: give one for each.")
