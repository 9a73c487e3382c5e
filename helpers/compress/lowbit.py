"""Which of litert-quantizer's algorithms helps at few bits: a float `.tflite` quantized by each of them, at 8, 4 and 2 bits.

litert-quantizer does not say what it left undone: an algorithm that has nothing for convolutions leaves them in float32, another
computes in dynamic range whatever is asked for, and a kernel of 2 bits may run and answer nonsense. So every file is opened, and run
in a process of its own, before it counts; where there is none, a sentence says why.
"""

import contextlib
import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import company
from helpers.base.errors import InputError, LabError, StructureError
from helpers.compress import affine, kernels_held, requantize
from helpers.compress.requantize import ALGORITHMS, DYNAMIC, EVERYTHING, HADAMARD, MIN_MAX, OSCAR, Format
from helpers.evidence import stats
from helpers.networks import sentences
from helpers.tflite import heads, inputs, inside, interpreting, litert, measure, rewrite, runner

DENSE = "FULLY_CONNECTED"
# In words, by a Format's activations.
COMPUTED = {None: "weights only", DYNAMIC: "dynamic", 8: "static", 16: "static, 16 bits"}
RUNS, NO_KERNEL, NO_EFFECT = "runs", "no kernel", "no effect"  # of a row
NOT_MADE, NOT_RUN, WRONG = "cannot be made", "does not run", "answers NaN"
KNOWN = {requantize.GPTQ: "hessian", OSCAR: "mu2"}  # what an algorithm must know of a tensor that a dense layer reads
LIMITS = {"seconds": 600, "bytes": 4 * 10**9}
TIMES_ITS_SIZE = 4  # bytes that a file takes as it is timed, at most: times the float file's
GAIN = ("gain", "gain_low", "gain_high")
FLOAT, INT8 = "float32", "int8"  # what files are timed beside; the second is min-max's, of 8 bits throughout
# Of a file against each of them, the ratio with its interval.
SPEED = {FLOAT: ("ratio", "ratio_low", "ratio_high"), INT8: ("ratio_int8", "ratio_int8_low", "ratio_int8_high")}
NUMBERS = (
    "seconds",
    "size",
    *(name for names in SPEED.values() for name in names),
    "share",
    "change",
    "low",
    "high",
    *GAIN,
    "sqnr_db",
    "agreement",
)
COLUMNS = ("algorithm", "bits", "activations", "block", "outcome", "refused", "at_bits", "by_algorithm", *NUMBERS)


class _Refused(StructureError):
    """Why there is no such file. outcome: in a word or two."""

    def __init__(self, outcome, sentence):
        super().__init__(sentence)
        self.outcome = outcome


def grid(algorithms=tuple(ALGORITHMS), bits=(8, 4, 2), activations=(None, DYNAMIC, 8), blocks=(32, 64)):
    """Formats to try: each algorithm with a scale for each channel, and min-max also with one for each block of so many inputs."""
    ways = [(algorithm, None) for algorithm in algorithms] + [(MIN_MAX, block) for block in blocks]
    return [
        Format(each, computed, algorithm=algorithm, block=block)
        for algorithm, block in ways
        for computed in activations
        for each in bits
    ]


def bench(
    model,
    calibration,
    samples,
    right=None,
    forms=None,
    limits=LIMITS,
    progress=iter,
    rounds=0,
    timed=None,
    groups=None,
    purpose=None,
):
    """Quantize a float `.tflite` by each of some Formats, and judge the files: a frame, a row for each.

    calibration: samples as `requantize.calibrate` takes them. samples: what is judged on, (n, ...) or name of an input -> such an
    array. right: answers, float32 (n, ...) or, of several outputs, name -> such an array -> which are right, bool (n,), or a
    score of each, float (n,); None where there are no labels. forms: `grid()` by default. limits: of the process that runs a
    file, as `runner` takes them. progress: wraps the list of forms, as tqdm does. rounds: how often all files that run are timed in turn
    with the float one and with INT8, 0 for not at all. timed: which of the forms are, all by default; an algorithm that changes
    nothing but integers changes no time. groups: int (n,), samples that share a number count as one: the mean of their
    scores. purpose: a `heads.Purpose`, by default what the outputs fit.

    An algorithm is asked of those operators that it has something for; others get min-max at the same bits, or at the fewest that
    they have kernels for (`requantize.FEWEST_BITS`). Columns: algorithm, bits, activations (COMPUTED), block (0: none); outcome, RUNS,
    or why there is no number in two words, and refused, in a sentence; at_bits, how many kernels of each kind have that many bits
    and compute as asked; by_algorithm, how many of them differ from min-max's; share, of the weights that are at_bits; seconds, to
    gather what it needs and to quantize; size (bytes); ratio, how many times as fast as float32, with ratio_low and ratio_high, and
    ratio_int8, as INT8, likewise; change of the score against float32, with low and high (95%); gain of the score, likewise, over
    min-max with a scale for each channel at the same bits and activations, where that ran before; sqnr_db, the worst output's;
    agreement, the share of samples that are answered as by float32 (NaN where that is not defined).
    Raises InputError for an unusable file or a quantized one, and for samples that do not fit.
    """
    source, samples = _Source(model, calibration), inputs.by_name(samples)
    why = interpreting.unusable(*interpreting.declared(interpreting.opened(source.model, 1)), samples)
    if why:
        raise InputError(f"samples do not fit the model: {why}.")
    exact = litert.run(source.model, samples, batch=litert.BATCH)
    [head, *others] = heads.heads(exact, None, purpose)
    wanted = None if right is None else _scores(right, exact, groups)
    rows, scores, running = [], {}, {}
    with measure.staged({}, samples) as (folder, _):
        for form in progress(grid() if forms is None else list(forms)):
            row = {**dict.fromkeys(COLUMNS, ""), **dict.fromkeys(NUMBERS, np.nan), **_named(form), "outcome": RUNS}
            try:
                file, seconds = source.file(form)
                row |= source.opened(form, file) | {"seconds": seconds, "size": len(file)}
                answers = _answers(file, folder, exact, limits)
                if timed is None or form in timed:
                    running[str(len(rows))] = file
                row["sqnr_db"] = min(affine.sqnr(exact[name], answers[name]) for name in exact)
                same = None if others else head.task.same(head.answers, head.of(answers))
                row["agreement"] = np.nan if same is None else float(np.mean(same))
                if right is not None:
                    scores[form] = _scores(right, answers, groups)
                    row |= _difference(("change", "low", "high"), wanted, scores[form])
                    if source.plain(form) in scores and source.plain(form) != form:
                        row |= _difference(GAIN, scores[source.plain(form)], scores[form])
            except _Refused as refused:
                row |= {"outcome": refused.outcome, "refused": str(refused)}
            rows.append(row)
    if rounds:
        for number, found in _speed(source, running, samples, rounds, limits).items():
            rows[int(number)] |= found
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["score"] = None if right is None else stats.score(wanted).value
    return table


def quantized(model, form, calibration):
    """The file of one Format, as `bench` makes it: bytes. Raises StructureError, which says why, where there is none."""
    source = _Source(model, calibration)
    file, _ = source.file(form)
    source.opened(form, file)
    return file


class _Source:
    """A float file and what quantizers need to know of it, gathered once, with the seconds that it took."""

    def __init__(self, model, calibration):
        self.model, _ = rewrite.with_plain_weights(rewrite.with_signature(model))
        self.kernels, self._calibration, self._taken, self._files = (
            kernels_held.by_output(self.model),
            calibration,
            {},
            {},
        )
        if not self.kernels:
            raise InputError("model has no convolution or dense layer: there is nothing to quantize.")
        if any(each.bits < 32 for each in self.kernels.values()):
            raise InputError("model is quantized already: give the float32 .tflite that it was made from.")

    def file(self, form):
        """The bytes of a file, and the seconds to gather what it needs and to quantize."""
        there = [kind for kind in self.kinds if requantize.exists(form, kind)]
        if not there:
            told = f"{form.weights}-bit weights ({COMPUTED[form.activations]}) by {_way(form)}"
            raise _Refused(NO_KERNEL, f"litert-quantizer has no {told} for {_list(self.kinds)}.")
        if not set(there) & set(self._asked(form)):
            raise _Refused(NO_KERNEL, f"kernels of {form.weights} bits for {_list(there)} run, and answer nonsense.")
        return self._made(form)

    @functools.cached_property
    def kinds(self):
        return sorted({kernel.op for kernel in self.kernels.values()})

    @staticmethod
    def plain(form):
        """Min-max with a scale for each channel, otherwise as a format says."""
        return replace(form, algorithm=MIN_MAX, block=None)

    def _asked(self, form):
        """The kinds of operators of which a format may be asked."""
        return [kind for kind in self.kinds if requantize.available(form, kind) == form]

    def _made(self, form):
        if form not in self._files:
            self._files[form] = self._make(form)
        return self._files[form]

    def _make(self, form):
        plain = self.plain(form)
        formats = {EVERYTHING: plain}
        formats |= {kind: form for kind in self._asked(form) if requantize.exists(form, kind)}
        if form.block:
            odd = [name for name, each in self.kernels.items() if each.op == DENSE and each.shape[-1] % form.block]
            formats |= dict.fromkeys(odd, plain)
        model, known, seconds = self.model, {}, 0.0
        if form.algorithm == HADAMARD:
            model, seconds = self._once("single", self._single)
        gather = {form.algorithm: lambda: requantize.known_to(form.algorithm, self.model, self._calibration)}
        if form.activations in (8, 16):
            gather["ranges"] = lambda: requantize.calibrate(self.model, self._calibration)
        for what, how in gather.items():
            found, taken = self._once(what, how)
            for name, seen in found.items():
                known[name] = {**known.get(name, {}), **(seen or {})}
            seconds += taken
        dense = [each.reads for each in self.kernels.values() if each.op == DENSE]
        unknown = [read for read in dense if KNOWN.get(form.algorithm, "min") not in known.get(read, {})]
        if unknown and form.algorithm in KNOWN:  # litert-quantizer would do without, and not tell
            raise _Refused(NOT_MADE, f"nothing is known of what {len(unknown)} dense layers read.")
        try:
            with measure.stopwatch() as quantizing:
                made = requantize.apply(model, formats, known)
        except LabError:
            raise
        except Exception as error:  # whatever the algorithms of litert-quantizer fail by
            raise _Refused(NOT_MADE, _why(form, error)) from error
        return made, seconds + quantizing()

    def _single(self):
        return inside.for_one_sample(self.model, self._calibration)

    def _once(self, what, how):
        """What a function finds, and the seconds that it took, the first time."""
        if what not in self._taken:
            with measure.stopwatch() as seconds:
                found = how()
            self._taken[what] = found, seconds()
        return self._taken[what]

    def opened(self, form, file):
        """What a file holds of a format, by the names of columns. Raises _Refused where it is not what was asked for."""
        made, whole = kernels_held.by_output(file), sum(np.prod(each.shape) for each in self.kernels.values())
        made = {name: made[name] for name in self.kernels if name in made}
        broken = [name for name, each in made.items() if not each.whole]
        if broken:
            raise _Refused(NOT_MADE, f"litert-quantizer left {len(broken)} kernels in float32 and calls them integers.")
        there = [name for name, each in made.items() if each.bits == form.weights]
        right = [name for name in there if made[name].activations == form.activations]
        changed = right
        if form != self.plain(form):
            plain = kernels_held.by_output(self._made(self.plain(form))[0])
            differ = [name for name in there if made[name].content != plain[name].content]
            changed = [name for name in differ if name in right]
            if not differ:
                raise _Refused(NO_EFFECT, f"{_way(form)} changed no kernel: the file is min-max's.")
            if not changed:
                computed = COMPUTED[made[differ[0]].activations]
                raise _Refused(
                    NO_KERNEL,
                    f"{_way(form)} makes {_list({made[name].op for name in differ})} {computed}, whatever is asked for.",
                )
        if not right:
            raise _Refused(NO_KERNEL, f"no kernel of the file has {form.weights} bits and computes as asked.")
        share = sum(np.prod(self.kernels[name].shape) for name in right) / whole
        return {"at_bits": self._counted(right), "by_algorithm": self._counted(changed), "share": float(share)}

    def _counted(self, names):
        every = [each.op for each in self.kernels.values()]
        some = [self.kernels[name].op for name in names]
        return ", ".join(f"{kind} {some.count(kind)} of {every.count(kind)}" for kind in self.kinds)


def _answers(file, folder, exact, limits):
    """What a file answers to the staged samples, by the names that the float file's outputs have."""
    (Path(folder) / "candidate.tflite").write_bytes(file)
    answer = runner.run(measure.prediction("candidate.tflite", limits=limits, write="answer"), folder)
    problem = answer.get("error") or answer.get("unusable")
    if problem:
        told = re.split(r"(?<=delegate)|\n", problem.removeprefix("RuntimeError: "))[0]
        raise _Refused(NOT_RUN, f"the interpreter does not run it: {told[:200]}.")
    found = {name: np.load(Path(folder) / f"answer{place}.npy") for place, name in enumerate(exact)}
    wrong = np.any([~np.isfinite(each.reshape(len(each), -1)).all(axis=1) for each in found.values()], axis=0)
    if wrong.any():
        raise _Refused(WRONG, f"it runs, and answers NaN or infinity to {wrong.sum()} of {len(wrong)} samples.")
    return found


def _speed(source, files, samples, rounds, limits):
    """How many times as fast as FLOAT and as INT8 some files are, in a process that runs all in turn (or as many as its memory holds): key ->
    the columns of SPEED, or why there is none."""
    most = max(1, limits["bytes"] // (TIMES_ITS_SIZE * len(source.model)) - 2)
    if len(files) > most:
        parts = [dict(list(files.items())[start : start + most]) for start in range(0, len(files), most)]
        return {key: row for part in parts for key, row in _speed(source, part, samples, rounds, limits).items()}
    timed = {}
    with contextlib.suppress(_Refused):
        timed[INT8] = source.file(Format())[0]
    answer = _times({FLOAT: source.model, **timed, **files}, samples, rounds, limits)
    if "error" not in answer:
        return {key: _ratios(answer, key) for key in files}
    found = {}
    for key, file in files.items():  # whichever it is that stops the others
        answer = _times({FLOAT: source.model, key: file}, samples, rounds, limits)
        why = f"timed beside the float file, it stops: {answer.get('error')}."
        found[key] = {"outcome": NOT_RUN, "refused": why} if "error" in answer else _ratios(answer, key)
    return found


def _times(files, samples, rounds, limits):
    """What `runner` tells of the times of some files."""
    with measure.staged(files, {name: array[:1] for name, array in samples.items()}) as (folder, names):
        [job] = measure.jobs(names, FLOAT, samples, rounds, limits=limits, told={measure.LATENCY})
        with company.standing_still():
            answer = runner.run(job, folder)
    return answer | {"names": names}


def _ratios(answer, key):
    found = {}
    for baseline in SPEED.keys() & answer["names"].keys():
        row = measure.table(answer["names"], baseline, [answer], {measure.LATENCY}).loc[key]
        found |= dict(zip(SPEED[baseline], map(float, row[["ratio", "low", "high"]]), strict=True))
    return found


def _scores(right, answers, groups):
    found = np.asarray(right(next(iter(answers.values())) if len(answers) == 1 else answers))
    n = len(next(iter(answers.values())))
    if found.shape != (n,):
        raise InputError(f"right returned {found.dtype} of shape {found.shape}: it must say of each of {n} samples.")
    return found if groups is None else sentences.by_group(found, groups)


def _difference(columns, one, other):
    found = stats.score_difference(one, other)
    return dict(zip(columns, (found.value, found.low, found.high), strict=True))


def _named(form):
    return {
        "algorithm": form.algorithm,
        "bits": form.weights,
        "activations": COMPUTED[form.activations],
        "block": form.block or 0,
    }


def _way(form):
    return form.algorithm + (f" in blocks of {form.block}" if form.block else "")


def _list(kinds):
    return ", ".join(sorted(kinds))


def _why(form, error):
    """What stopped litert-quantizer, in plain words where they are known."""
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if form.algorithm == "mse" and (form.block or form.weights == 2):
        return "mse has a factor for 8 and for 4 bits, and no blocks."
    return f"litert-quantizer fails: {told.rstrip('.')}."
