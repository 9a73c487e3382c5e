"""What magnitude pruning needs beyond tfmot: where the zeros are, and what was logged of it for TensorBoard."""

import numbers
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import extras, runtime_env
from helpers.base.errors import InputError

with runtime_env.quiet():
    import tensorflow as tf


def report(model):
    """Zeros in the kernels of a Keras model, a row for each layer with a kernel: layer, weights, zeros, sparsity.

    Wrapped (not yet stripped) layers count with their masks as they are stored.
    """
    rows = []
    for layer in _layers_with_kernel(model):
        kernel = layer.kernel.numpy()
        zeros = int((kernel == 0).sum())
        rows.append({"layer": layer.name, "weights": kernel.size, "zeros": zeros, "sparsity": zeros / kernel.size})
    return pd.DataFrame(rows, columns=["layer", "weights", "zeros", "sparsity"])


def kernel_sparsity(model):
    """Share of zeros among all kernel weights of a Keras model, in [0, 1]; biases do not count."""
    table = report(model)
    return float(table.zeros.sum() / table.weights.sum())


def one_shot(model, sparsity):
    """Set the smallest weights of every kernel to zero, at once and without training. Changes the model; returns it.

    sparsity: share of zeros in each kernel, in [0, 1). Raises InputError outside. (Han et al. 2015, section 3,
    without the retraining.)
    """
    if not (isinstance(sparsity, numbers.Real) and 0 <= sparsity < 1):
        raise InputError(f"sparsity={sparsity!r} must lie in [0, 1): it is the share of weights set to zero.")
    for layer in _layers_with_kernel(model):
        kernel = layer.kernel.numpy()
        smallest = np.argsort(np.abs(kernel), axis=None)[: round(sparsity * kernel.size)]
        kernel.flat[smallest] = 0
        layer.kernel.assign(kernel)
    return model


def schedule_curve(schedule, steps):
    """The sparsity that a tfmot pruning schedule asks for at each step: frame with step and sparsity."""
    asked = [float(schedule(tf.constant(step, tf.int64))[1]) for step in range(steps)]
    return pd.DataFrame({"step": range(steps), "sparsity": asked})


def logged_curve(folder):
    """The sparsities that tfmot's PruningSummaries wrote for TensorBoard, read back: frame with layer, step, sparsity.

    Raises InputError when the folder holds no event file.
    """
    logged = scalars(folder)
    logged = logged[logged["tag"].str.endswith("/sparsity")].reset_index(drop=True)
    layer = logged["tag"].str.split("/").str[0].str.removeprefix("prune_low_magnitude_")
    return pd.DataFrame({"layer": layer, "step": logged["step"], "sparsity": logged["value"]})


def scalars(folder):
    """Every scalar below a folder: frame with run (the sub-folder), tag, step, value.

    Raises InputError when there is no event file.
    """
    rows = [
        {"run": run, "tag": tag, "step": step, "value": float(value)}
        for run, tag, step, value in _tensors(folder)
        if not value.shape and np.issubdtype(value.dtype, np.number)  # a model's configuration is a string
    ]
    return pd.DataFrame(rows, columns=["run", "tag", "step", "value"])


def histograms(folder):
    """Every histogram below a folder, a row for each bucket: frame with run, tag, step, left, right, count.

    Raises InputError when there is no event file.
    """
    parts = [
        pd.DataFrame(value, columns=["left", "right", "count"]).assign(run=run, tag=tag, step=step)
        for run, tag, step, value in _tensors(folder)
        if value.ndim == 2 and value.shape[1] == 3
    ]
    columns = ["run", "tag", "step", "left", "right", "count"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _layers_with_kernel(model):
    """Of a model and of those within it; each once, wherever else it is used."""
    found = {}
    for layer in model.layers:
        layer = getattr(layer, "layer", layer)  # a pruning wrapper holds the layer itself
        of = _layers_with_kernel(layer) if hasattr(layer, "layers") else [layer] if hasattr(layer, "kernel") else []
        found |= {id(each): each for each in of}
    return list(found.values())


def _tensors(folder):
    """(run, tag, step, array) of everything that was written, file by file."""
    with extras.needed(f"folder={str(folder)!r}"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(folder)
    files = sorted(folder.rglob("*tfevents*"))
    if not files:
        raise InputError(f"folder={str(folder)!r} holds no TensorBoard event file: log something into it first.")
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"tensors": 0})  # 0: keep all of them
        events.Reload()
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag):
                run = file.parent.relative_to(folder).as_posix()
                yield run, tag, event.step, tf.make_ndarray(event.tensor_proto)
