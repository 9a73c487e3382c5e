"""A notebook while it runs: its parameters checked, its numbers collected, its claims judged, all of it recorded.

    run = lab.begin("03_mobilenetv2_ptq_and_qat", globals())
    run.accuracy(right, "float32")             # a table, and every number in it is kept
    latency = run.note("latency_ratio", measure.latency(files, "float32", x))
    verdicts = run.conclude("C07", "C08", dataset=images)

What is noted is returned as it was given. What a notebook says of its numbers stands in its metadata, under "lab":
`key_numbers` (names), `tolerances` (see `results.record`), and `table`, pairs of a number and its row in RESULTS.md
(a list, since Jupyter sorts mappings).
"""

import dataclasses
import random
import sys
from collections.abc import Mapping
from numbers import Real

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import InputError, ResultsError
from helpers.evidence import results, stats, verdicts
from helpers.evidence.stats import Estimate
from helpers.lab import notebook, parameters

MACHINES = {  # numbers that belong to the machine, by the first part of their name
    name: None for name in ("latency_ratio", "milliseconds", "peak_memory", "seconds", "machine")
}


def begin(name, namespace):
    """The Run of a notebook; its parameters are checked and random numbers seeded before anything else happens.

    name: of the notebook. namespace: its `globals()`, in which its parameters stand. Raises InputError as
    `parameters.check` does.
    """
    path = notebook.find(name)
    used = parameters.used(path, namespace)
    runtime_env.hush()
    _seed(used)
    return Run(path.stem, used, notebook.settings(path))


class Run:
    """What a notebook has measured so far. parameters: name -> value. numbers: name -> Estimate or float."""

    def __init__(self, name, used, settings):
        self.name, self.parameters, self.numbers = name, used, {}
        self._settings = settings

    def note(self, name, value):
        """Keep what was measured, and return it as it is.

        value: a number or an Estimate; a mapping or Series, each entry of which is kept as `<name>.<key>`; or a frame with
        the columns low and high beside value or ratio, each row of which is kept as `<name>.<index>`.
        Raises InputError for anything else, or a name that is taken by another number.
        """
        for full, number in _numbers(name, value):
            former = self.numbers.setdefault(full, number)
            if former is not number and former != number:
                raise InputError(f"number {full!r} was noted before, as {former}: give this one a name of its own.")
        return value

    def recorded(self):
        """The numbers on record of a run with these parameters: name -> Estimate; none where there is none."""
        try:
            return results.read(self.name, parameters.profile_of(self.name, self.parameters))["numbers"]
        except ResultsError:
            return {}

    def accuracy(self, right, baseline=None, draws=False, **columns):
        """Which answers of each model are right -> its top-1 and, paired, the difference to the baseline's: frame by model.

        right: model -> bool (n,), or (seeds, n) for several trainings; or for several draws of what was not trained on, if draws
        says so. A model that was judged on the first few examples is
        compared on those. baseline: the name of one of them, or its answers; without it there is no second column.
        columns: more of the table, title -> values in the order of the models. Keeps `top1.<model>`, `delta_top1.<model>`.
        """
        rows = {}
        for name, judged in right.items():
            judged = np.asarray(judged)
            rows[name] = {"top-1": f"{self.note(f'top1.{name}', _of(stats.proportion(judged), draws)):.3f}"}
            if baseline is not None:
                against = np.asarray(right[baseline] if isinstance(baseline, str) else baseline)
                against = np.broadcast_to(against[..., : judged.shape[-1]], judged.shape)
                told = f"minus {baseline if isinstance(baseline, str) else 'baseline'}"
                difference = _of(stats.paired_difference(against, judged), draws)
                rows[name][told] = f"{self.note(f'delta_top1.{name}', difference):.3f}"
        frame = pd.DataFrame.from_dict(rows, orient="index")
        return frame.assign(**{title.replace("_", " "): list(values) for title, values in columns.items()})

    def scores(self, measure, scores, baseline=None, digits=3):
        """What each model scores, by any measure that is the better the larger -> a frame by model: the score and, paired, the
        difference to the baseline's.

        scores: model -> float (n,), a score a sample, or an `OfSet`. baseline: the name of one of them; without it there is no second
        column. digits: behind the point. Keeps `<measure>.<model>` and `delta_<measure>.<model>`.
        """
        rows = {}
        for name, of in scores.items():
            rows[name] = {measure: f"{self.note(f'{measure}.{name}', stats.score(of)):.{digits}f}"}
            if baseline is not None:
                change = stats.score_difference(scores[baseline], of) if name != baseline else None
                rows[name][f"{measure} minus {baseline}"] = f"{change:.{digits}f}" if change else ""
                if change:
                    self.note(f"delta_{measure}.{name}", change)
        return pd.DataFrame.from_dict(rows, orient="index")

    def gain(self, name, before, after, draws=False):
        """The accuracy of `after` minus that of `before` on the same examples, kept as `gain.<name>`: Estimate.

        before, after: which answers are right, bool (n,) or (seeds, n); one row stands for all seeds of the other.
        draws: whether the rows are draws, as in `accuracy`.
        """
        before, after = np.broadcast_arrays(before, after)
        return self.note(f"gain.{name}", _of(stats.paired_difference(before, after), draws))

    def costs(self, report, baseline=None):
        """Keep what files cost, and return it as it is: `size.<model>`, `latency_ratio.<model>`, `peak_memory.<model>`.

        report: a frame as `measure.report` gives it. baseline: the name of one of them, to keep `size_ratio.<model>` as well.
        """
        self.note("latency_ratio", report)
        self.note("size", report["size"])
        self.note("peak_memory", report["memory"])
        if baseline is not None:
            self.note("size_ratio", report["size"] / report["size"][baseline])
        return report

    def conclude(self, *names, dataset=None):
        """The verdicts on some claims (as `verdicts.judge` gives them), after all that was noted has been recorded.

        dataset: what it was measured on. Raises InputError for a missing number, or one that is not finite.
        """
        found = verdicts.judge(self.numbers, *names)
        results.record(
            self.name,
            parameters.profile_of(self.name, self.parameters),
            self.parameters,
            self.numbers,
            dataset,
            {**MACHINES, **self._settings.get("tolerances", {})},
            found["verdict"].to_dict(),
            dict(self._settings.get("table", ())),
            {name: verdicts.catalogue()[name].hash for name in names},
        )
        return found


def _of(estimate, draws):
    """An Estimate over several rows: of trainings, as it says, or of draws, of which it does not count any."""
    return dataclasses.replace(estimate, trainings=None) if draws else estimate


def _numbers(name, value):
    """(full name, number) of everything that a noted value holds."""
    if isinstance(value, (Estimate, Real, np.bool_)):
        yield name, value if isinstance(value, Estimate) else float(value)
    elif isinstance(value, (Mapping, pd.Series)):
        for key, each in value.items():
            yield from _numbers(f"{name}.{key}", each)
    elif isinstance(value, pd.DataFrame) and {"low", "high"} <= set(value) and {"value", "ratio"} & set(value):
        column = "value" if "value" in value else "ratio"
        for key, row in value.iterrows():
            unit = "ratio" if column == "ratio" else row.get("unit", "")
            yield f"{name}.{key}", Estimate(float(row[column]), float(row["low"]), float(row["high"]), unit)
    else:
        raise InputError(
            f"{name} is noted as {type(value).__name__}: it must be a number, a mapping or Series of numbers, or a frame "
            "with value (or ratio), low and high."
        )


def _seed(used):
    """Seed Python and NumPy, and TensorFlow where it is loaded, from the parameter seed or the first of seeds."""
    seed = used.get("seed", (used.get("seeds") or [0])[0])
    random.seed(seed)
    np.random.seed(seed)  # the global one: what Keras' initializers and layers that are not ours may draw from
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)
