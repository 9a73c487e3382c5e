"""The tasks of a model with all that its own answers say of them: what other files of the same model are judged by."""

import functools
from dataclasses import dataclass, field

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.tflite import inputs, litert, scoring, tasks


@dataclass(frozen=True)
class Purpose:
    """What the models are for. task: a task as `tasks.choose` takes it, or name of an output -> task; by default what outputs and
    labels fit. metric: "file.py:function", a score a sample, as `tasks.metric` takes it. outputs: name of one of the baseline's
    outputs -> what the candidate calls it, where it has another name. informed: whether the baseline's answers are known to have
    to do with the labels, by more samples than these: then few are not asked to show it again.
    """

    task: str | dict | None = None
    metric: str | None = None
    outputs: dict = field(default_factory=dict)
    informed: bool = False


@dataclass(frozen=True)
class Head:
    """A task of a baseline and all that its answers say. name: of the output that it is judged by, "" for all of them.

    truth: in the task's own form. labelled: whether it came from labels, or from the baseline's own answers. answers: the
    baseline's, name of an output -> float32 (n, ...).
    """

    name: str
    task: scoring.Task
    truth: object
    labelled: bool
    answers: dict

    def of(self, answers):
        """Those answers of a model that belong to this head."""
        return {name: answers[name] for name in self.task.shapes}

    @functools.cached_property
    def scores(self):
        return self.task.scores(self.answers, self.truth)

    def __str__(self):
        by = "labels" if self.labelled else "the baseline's own answers"
        return f"{f'{self.name}: ' if self.name else ''}{self.task.name}, judged by {by}"


def heads(answers, y, purpose=None):
    """The Heads of a baseline.

    answers: name of an output -> float32 (n, ...). y: labels; of several outputs name -> labels; None where there are none.
    purpose: a Purpose. Raises InputError for what does not fit, and for a baseline whose answers have
    nothing to do with the labels.
    """
    purpose = purpose or Purpose()
    n, asked = len(next(iter(answers.values()))), purpose.task
    shapes = {name: of.shape[1:] for name, of in answers.items()}
    if purpose.metric and asked:
        raise InputError(
            f"task={asked!r} and metric={purpose.metric!r} are two answers to one question: give one of them."
        )
    if purpose.metric:
        parts = [("", tasks.metric(purpose.metric, shapes), y)]
    elif isinstance(asked, str) or len(shapes) == 1:
        asked = next(iter(asked.values()), None) if isinstance(asked, dict) else asked
        if isinstance(y, dict) and len(y) > 1:
            raise InputError(
                f"y labels {len(y)} outputs ({', '.join(y)}), the task is one: give the labels of {' and '.join(shapes)} alone, as y."
            )
        y = next(iter(y.values()), None) if isinstance(y, dict) and len(y) == 1 else y
        parts = [("", tasks.choose(shapes, answers, y, asked), y)]
    else:
        parts = [(name, *_one_of(name, answers, y, asked or {})) for name in shapes]
    found = [_settled(name, task, answers, labels, n) for name, task, labels in parts]
    for head in found:
        if head.labelled and not purpose.informed:
            check_informed(head)
    return found


def of_file(model, x, y=None, purpose=None):
    """The Heads of a float `.tflite`. x: samples, (n, ...), or name of an input -> such an array; y, purpose: as in `heads`."""
    return heads(litert.run(model, inputs.by_name(x), batch=litert.BATCH), y, purpose)


def _one_of(name, answers, y, asked):
    """Task and labels of one of several outputs."""
    if y is not None and not isinstance(y, dict):
        raise InputError(
            f"y does not say which of the outputs {', '.join(answers)} it labels: save it as y_{next(iter(answers))}, or as "
            "y_ and another output's name, or say a task that takes all of them, such as --task detection."
        )
    strange = [each for each in (*(y or {}), *asked) if each not in answers]
    if strange:
        raise InputError(f"there is no output {strange[0]!r}: the baseline has {', '.join(answers)}.")
    labels = (y or {}).get(name)
    one = {name: answers[name]}
    return tasks.choose({name: answers[name].shape[1:]}, one, labels, asked.get(name)), labels


def _settled(name, task, answers, labels, n):
    answers, label = {each: answers[each] for each in task.shapes}, f"y_{name}" if name else "y"
    truth = task.own(answers) if labels is None else task.truth(labels, n, label)
    task = task.settled(answers, truth)
    return Head(name, task, truth, labels is not None, answers)


def check_informed(head):
    """Raises InputError where a baseline's answers are no better than if they were given to any sample."""
    found, chance = head.scores, head.task.uninformed(head.answers, head.truth)
    if chance is None:
        return
    has, other = stats.score(found), stats.score(chance).value
    more = has.low - chance if isinstance(chance, float) else stats.score_difference(chance, found).low
    if has.value < 1 and more <= 0:
        raise InputError(
            f"baseline has {head.task.told} {has:.3f}, which cannot be told from the {other:.3f} of a model that does not look at "
            f"the samples: {head.task.advice(head.answers, head.truth)}"
        )
