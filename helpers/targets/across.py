"""The same files on several targets, side by side; where a target is not ready, what was recorded stands in its place, and says so."""

import numpy as np
import pandas as pd

from helpers.base.errors import RunError
from helpers.targets import accelerator, emulated, known
from helpers.tflite import inputs, measure, runner

HERE, AS_RECORDED, NOTHING = "measured here", "as recorded", "not prepared here"
ANSWERS = ("agreement", "bit_equal", "difference")


def url(name):
    """A target's short name, as in the names of numbers, as a url: "cortex-a76", "gpu"."""
    return name if name.startswith(accelerator.URL) or ":" in name else emulated.SCHEME + name


def status(names):
    """Which of some targets are ready: a frame indexed by name with what each is, or lacks."""
    told = []
    for name in names:
        try:
            known.opened(url(name))
        except RunError as error:
            told.append(f"{NOTHING}: {str(error).split(': ', 1)[-1]}")
        else:
            told.append(accelerator.told() if name.startswith(accelerator.URL) else "emulated")
    return pd.DataFrame({"target": told}, index=pd.Index(names, name=""))


def answers(files, x, names, recorded=None):
    """What some files answer on targets, against what they answer here: a frame, a row for each target and file.

    files: label -> `.tflite`. x: samples, (n, ...), or name of an input -> such an array. names: of targets. recorded: name of a number
    -> Estimate, from which a target that is not ready takes `agreement.<label>.<target>`, `bit_equal.…` and `difference.…`.
    Columns: target, file, agreement (share of samples answered alike, see `measure.like`), bit_equal (share whose outputs are the same to
    the last bit), difference (the largest of outputs), source (HERE, AS_RECORDED or NOTHING, then NaN). Raises what the targets raise.
    """
    with measure.staged(files, x) as (folder, staged):
        number = len(next(iter(inputs.by_name(x).values())))
        jobs = [measure.prediction(file, show=number) for file in staged.values()]
        here = runner.run_all(jobs, folder)

        def measured(target):
            there = [_given(*pair, target.url) for pair in zip(files, target.run_all(jobs, folder), strict=True)]
            rows = [measure.compared(*pair) for pair in zip(here, there, strict=True)]
            return dict(zip(files, rows, strict=True))

        return _frame(files, names, ANSWERS, measured, recorded)


def instructions(files, names, baseline=None, times=measure.COUNTED, recorded=None):
    """Instructions of one inference of some files on emulated targets: a frame, a row for each target and file.

    files: label -> `.tflite`. names: of targets. baseline: label -> the label that it is compared with. times: inferences that are
    counted. recorded: as in `answers`: `instructions.<label>.<target>`. Columns: target, file, instructions, instruction_ratio (those of
    the baseline / of this file), source. Raises RunError for a target that is there and counts none.
    """
    found = []
    for label, file in files.items():  # of other inputs each, so each by itself
        x = measure.random_samples(file, 1)
        with measure.staged({label: file}, x) as (folder, staged):
            [job] = measure.jobs(staged, label, x, told={measure.INSTRUCTIONS})
            job["times"] = times

            def measured(target, job=job, folder=folder, staged=staged, label=label):
                if measure.INSTRUCTIONS not in target.measures:
                    raise RunError(f"{target.url} counts no instructions: `compression-lab target list` says why.")
                counted = measure.table(staged, label, target.run_all([job], folder), {measure.INSTRUCTIONS})
                return {label: (counted.loc[label, "instructions"],)}

            found.append(_frame([label], names, ("instructions",), measured, recorded))
    frame = pd.concat(found, ignore_index=True).sort_values("target", kind="stable", ignore_index=True)
    by = frame.set_index(["target", "file"])["instructions"]
    of = baseline or {}
    frame.insert(
        3,
        "instruction_ratio",
        [by.get((row.target, of.get(row.file)), float("nan")) / row.instructions for row in frame.itertuples()],
    )
    return frame


def noted(run, frame):
    """Keep in a `lab` run what was measured here, as `<column>.<file>.<target>`, and return the frame."""
    here = frame[frame["source"] == HERE]
    for column in frame.columns.drop(["target", "file", "source"]):
        kept = here[column].set_axis(here["file"] + "." + here["target"]).dropna()
        run.note(column, kept)
    return frame


def _given(label, answer, name):
    if "first" not in answer:
        raise RunError(f"{label} gave no answer on {name}: {answer.get('error') or answer.get('unusable')}.")
    return answer


def _frame(labels, names, columns, measured, recorded):
    rows = []
    for name in names:
        target = known.ready(url(name))
        found = measured(target) if target else {}
        for label in labels:
            numbers = [(recorded or {}).get(f"{column}.{label}.{name}") for column in columns]
            if target:
                row, source = found[label], HERE
            elif all(numbers):
                row, source = [number.value for number in numbers], AS_RECORDED
            else:
                row, source = [float("nan")] * len(columns), NOTHING
            rows.append([name, label, *row, source])
    return pd.DataFrame(rows, columns=["target", "file", *columns, "source"])


def outputs(file, x, name):
    """The first output of a file on a target, float (n, ...); None where the target is not ready. x: as in `answers`."""
    target = known.ready(url(name))
    if target is None:
        return None
    with measure.staged({"file": file}, x) as (folder, staged):
        number = len(next(iter(inputs.by_name(x).values())))
        [answer] = target.run_all([measure.prediction(staged["file"], show=number)], folder)
    return np.array(_given("the file", answer, name)["first"][0])


def real_gpu():
    """Whether the accelerator has a GPU here, and no software alone."""
    return known.ready(accelerator.URL) is not None and not accelerator.in_software()


def latency_on_gpu(files, baseline, x, rounds=measure.ROUNDS):
    """Latency of files on the GPU, as `measure.latency` has it."""
    return measure.report(files, baseline, x, rounds, target=known.opened(accelerator.URL))[0]
