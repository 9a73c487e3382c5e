"""What the child process of a model answered: read as if it lied, and its outputs matched with those of the baseline."""

import operator
import shlex
from pathlib import Path

import numpy as np

from helpers.base.errors import InputError
from helpers.deploy.policy import counted
from helpers.tflite import interpreting

NONSENSE = "its process answered nonsense"


def read(answer, folder, name, n):
    """What of an answer to "predict" is used, with the arrays that were written for it and the number of samples that were answered
    NaN or infinity, or an error instead. A damaged model may have damaged the process that answered for it, so nothing that it
    says is taken for granted."""
    if "error" in answer:
        return {"error": interpreting.printable(str(answer["error"])) or NONSENSE}
    try:
        ends = {kind: [_plain(end) for end in answer[kind]] for kind in ("inputs", "outputs")}
        if "unusable" in answer:
            return {**ends, "unusable": interpreting.printable(answer["unusable"], 1000) or NONSENSE}
        arrays = [_written(Path(folder) / f"{name}{place}.npy", n) for place in range(len(ends["outputs"]))]
        if len({end["name"] for end in ends["outputs"]}) != len(arrays):
            raise ValueError
    except (KeyError, IndexError, TypeError, ValueError, OSError, EOFError, MemoryError, OverflowError):
        return {"error": NONSENSE}
    wild = np.zeros(n, bool)
    for of in arrays:
        wild |= ~np.isfinite(of.reshape(n, -1)).all(axis=1)
    return {**ends, "arrays": arrays, "not_finite": int(wild.sum())}


def _plain(end):
    """An input or output as `interpreting.declared` tells it. Raises KeyError, TypeError or ValueError for anything else."""
    kinds = {"name": str, "shape": list, "open": list, "dtype": str, "scale": (float, type(None)), "zero_point": int}
    if not all(isinstance(end[key], kind) for key, kind in kinds.items()):
        raise TypeError
    texts = {key: interpreting.printable(end[key]) for key in ("name", "dtype")}
    whole = {key: [operator.index(each) for each in end[key]] for key in ("shape", "open")}
    return {key: texts.get(key, whole.get(key, end[key])) for key in kinds}


def _written(path, n):
    """An output that the child process wrote, float32 (n, ...). Raises ValueError, OSError or EOFError for anything else."""
    if not path.is_file():  # nor a pipe, which would have to be waited for
        raise FileNotFoundError
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # which allocates nothing that the file does not hold
    if mapped.dtype != np.float32 or not mapped.size or not mapped.ndim or len(mapped) != n:
        raise ValueError
    return np.array(mapped)


def matched(answer, reference, renamed):
    """A candidate's outputs by the baseline's names, and why they are not those of the baseline, or None.

    Raises InputError for a renamed output that the baseline has not.
    """
    wanted, names = ([of["name"] for of in each["outputs"]] for each in (reference, answer))
    strange = [name for name in renamed if name not in wanted]
    if strange:
        raise InputError(f"there is no output {strange[0]!r}: the baseline has {', '.join(wanted)}.")
    theirs = called(wanted, names, renamed)
    if len(wanted) != len(names):
        return None, f"the baseline has {counted(len(wanted), 'output')}: {shown(reference['outputs'])}"
    arrays = dict(zip(names, answer["arrays"], strict=True))
    before = dict(zip(wanted, reference["arrays"], strict=True))
    if set(theirs.values()) != set(names):
        return None, (
            f"its outputs are called {', '.join(names)}, the baseline's {', '.join(wanted)}: say which is which, as in "
            f"{_guess(theirs, before, arrays)}"
        )
    outputs = {name: arrays[theirs[name]] for name in wanted}
    for name in wanted:
        kinds = [
            next(of for of in each["outputs"] if of["name"] == called)
            for each, called in ((reference, name), (answer, theirs[name]))
        ]
        dtypes = [of["dtype"] if of["scale"] is None else "float32" for of in kinds]
        if dtypes[0].startswith("float") and not dtypes[1].startswith("float"):
            return None, f"its output is {dtypes[1]} without a scale, the baseline's {dtypes[0]}"
        if outputs[name].shape != before[name].shape:
            asked = {**kinds[0], "shape": (1, *before[name].shape[1:])}
            return None, f"the baseline's output{f' {name}' if len(wanted) > 1 else ''} is {shown([asked])}"
    return outputs, None


def called(wanted, names, renamed):
    """The baseline's outputs -> what the candidate, whose outputs are `names`, calls them."""
    if len(wanted) == len(names) == 1:
        return {wanted[0]: names[0]}
    return {name: renamed.get(name, name) for name in wanted}


def _guess(theirs, before, arrays):
    """The options that are missing, of the baseline's outputs that name none of the candidate's: those of one shape go together."""
    free, missing, said = list(arrays), [], []
    for name, other in theirs.items():
        if other in free:
            free.remove(other)
        else:
            missing.append(name)
    for name in missing:
        other = min(free, key=lambda each: arrays[each].shape != before[name].shape)
        free.remove(other)
        said.append(f"--output {shlex.quote(f'{name}={other}')}")  # the converter joins names with a semicolon
    return " ".join(said)


def shown(tensors):
    """Inputs or outputs in words."""
    return ", ".join(f"{tensor['dtype']} {tuple(tensor['shape'])}" for tensor in tensors) or "none"
