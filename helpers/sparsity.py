"""What magnitude pruning needs beyond tfmot: where the zeros are, and what the schedule did."""

import numbers

import numpy as np
import pandas as pd

from helpers import events, runtime_env

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

    sparsity: share of zeros in each kernel, in [0, 1). Raises ValueError outside. (Han et al. 2015, section 3,
    without the retraining.)
    """
    if not (isinstance(sparsity, numbers.Real) and 0 <= sparsity < 1):
        raise ValueError(f"sparsity={sparsity!r} must lie in [0, 1): it is the share of weights set to zero.")
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

    Raises FileNotFoundError when the folder holds no event file.
    """
    logged = events.scalars(folder)
    logged = logged[logged["tag"].str.endswith("/sparsity")].reset_index(drop=True)
    layer = logged["tag"].str.split("/").str[0].str.removeprefix("prune_low_magnitude_")
    return pd.DataFrame({"layer": layer, "step": logged["step"], "sparsity": logged["value"]})


def _layers_with_kernel(model):
    inner = (getattr(layer, "layer", layer) for layer in model.layers)  # a pruning wrapper holds the layer itself
    return [layer for layer in inner if hasattr(layer, "kernel")]
