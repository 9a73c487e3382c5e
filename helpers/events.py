"""What TensorBoard would show: scalars and histograms read back from its event files."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import runtime_env

with runtime_env.quiet():
    import tensorflow as tf


def scalars(folder):
    """Every scalar below a folder: frame with run (the sub-folder), tag, step, value.

    Raises FileNotFoundError when there is no event file.
    """
    rows = [
        {"run": run, "tag": tag, "step": step, "value": float(value)}
        for run, tag, step, value in _tensors(folder)
        if not value.shape and np.issubdtype(value.dtype, np.number)  # a model's configuration is a string
    ]
    return pd.DataFrame(rows, columns=["run", "tag", "step", "value"])


def histograms(folder):
    """Every histogram below a folder, a row for each bucket: frame with run, tag, step, left, right, count.

    Raises FileNotFoundError when there is no event file.
    """
    parts = [
        pd.DataFrame(value, columns=["left", "right", "count"]).assign(run=run, tag=tag, step=step)
        for run, tag, step, value in _tensors(folder)
        if value.ndim == 2 and value.shape[1] == 3
    ]
    columns = ["run", "tag", "step", "left", "right", "count"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _tensors(folder):
    """(run, tag, step, array) of everything that was written, file by file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(folder)
    files = sorted(folder.rglob("*tfevents*"))
    if not files:
        raise FileNotFoundError(f"folder={str(folder)!r} holds no TensorBoard event file: log something into it first.")
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"tensors": 0})  # 0: keep all of them
        events.Reload()
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag):
                run = file.parent.relative_to(folder).as_posix()
                yield run, tag, event.step, tf.make_ndarray(event.tensor_proto)
