"""Pruning while a model of Keras 3 is trained: a callback, since tfmot prunes Keras 2 only.

This file needs nothing of the lab but itself: Keras 3 and NumPy. Take it into a project of your own as it is, and then:

    pruning = keras_pruning.Pruning(0.8, end=1000)      # or "2:4"
    model.fit(x, y, callbacks=[pruning])
    model.export("model.tflite", format="litert")       # or however the file is made: the zeros are in the kernels

The share grows as in tfmot: from nothing to its final value along a polynomial of third degree (Zhu and Gupta 2017, eq. 1).
"""

import itertools

import keras
import numpy as np


class Pruning(keras.callbacks.Callback):
    """Sets weights to zero by their size, and keeps them there.

    A callback that puts weights back when training ends, as EarlyStopping(restore_best_weights=True) does, stands before this one in the
    list: the zeros are set once more then.

    sparsity: share of zeros in every kernel at the end, in (0, 1); or a pattern "n:m": of m weights that lie side by side along
    the inputs the n largest are kept (Mishra et al. 2021). begin, end: steps (batches) between which the share grows; a pattern
    is chosen anew until `end`. every: steps from one choice of weights to the next. only: function of a layer that says whether
    it is pruned; by default all that have a kernel but depthwise ones, which are small.
    After training `masks` holds for each layer's path the mask, `left` the layers that a pattern does not fit. Where several
    layers have one path, numbers follow it.
    Raises ValueError for a sparsity or steps that are none.
    """

    def __init__(self, sparsity, begin=0, end=1000, every=50, only=None):
        super().__init__()
        self.pattern, self.share = _parsed(sparsity)
        if not (0 <= begin < end and every >= 1):
            raise ValueError(
                f"begin={begin}, end={end}, every={every}: begin must lie below end, and every be 1 or more."
            )
        self.begin, self.end, self.every = begin, end, every
        self.only = only or (lambda layer: "Depthwise" not in type(layer).__name__)
        self.step, self._seen, self.masks, self.left = 0, -1, {}, []

    def on_train_begin(self, logs=None):
        self._layers, self.left = {}, []
        for path, layer in _with_kernels(self.model):
            if self.only(layer):
                # An EinsumDense says nowhere which of its axes are inputs.
                known = type(layer).__name__ != "EinsumDense"
                fits = self.pattern is None or (known and _kernel(layer).shape[_inputs(layer)] % self.pattern[1] == 0)
                if fits:
                    self._layers[path] = layer
                else:
                    self.left.append(path)
        if not self._layers:
            raise ValueError("there is no layer to be pruned: the pattern fits none, or `only` leaves none.")
        self._choose()

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = -1

    def on_train_batch_end(self, batch, logs=None):
        former = self.step  # with steps_per_execution Keras calls once for several batches, by the last one's number
        last = min(
            batch, ((self.params or {}).get("steps") or batch + 1) - 1
        )  # its number may lie behind the epoch's end
        self.step += max(last - self._seen, 1)
        self._seen = last
        another = (self.step - self.begin) // self.every > (former - self.begin) // self.every
        if self.step >= self.begin and former < self.end and (another or self.step >= self.end):
            self._choose()
        self._apply()

    def on_train_end(self, logs=None):
        self._apply()

    def wanted(self, step):
        """The share of zeros at a step."""
        done = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.share * (1 - (1 - done) ** 3)

    def _choose(self):
        _ = self.model  # asked for, since on JAX that brings the weights up to date
        for path, layer in self._layers.items():
            size = np.abs(keras.ops.convert_to_numpy(_kernel(layer)))
            if self.pattern is not None:
                mask = _largest_of_neighbours(size, *self.pattern, _inputs(layer))
            else:
                many = round(self.wanted(self.step) * size.size)
                smallest = np.argsort(size, axis=None, kind="stable")[:many]
                mask = np.ones(size.size, bool)
                mask[smallest] = False
                mask = mask.reshape(size.shape)
            self.masks[path] = mask.astype("float32")
        self._apply()

    def _apply(self):
        _ = self.model
        for path, layer in self._layers.items():
            _kernel(layer).assign(_kernel(layer) * self.masks[path])


def _kernel(layer):
    """The kernel that is pruned; of a separable convolution the pointwise one, since the other is depthwise. None without any."""
    return (
        getattr(layer, "pointwise_kernel", None)
        if "Separable" in type(layer).__name__
        else getattr(layer, "kernel", None)
    )


def _inputs(layer):
    """The axis of a kernel along which its inputs lie."""
    return -1 if "Transpose" in type(layer).__name__ else -2


def _with_kernels(model):
    """(path, layer) of all that have a kernel, also those that other layers hold, as attention and TimeDistributed do; each once.
    Two models within a model may have layers of one path: a number makes it another."""
    layers = model._flatten_layers(include_self=False)
    layers = [layer for layer in layers if len(getattr(_kernel(layer), "shape", ())) >= 2]
    taken, seen = {layer.path for layer in layers}, set()
    for layer in layers:
        path = layer.path
        if path in seen:
            path = next(other for number in itertools.count(2) if (other := f"{path}_{number}") not in taken)
            taken.add(path)
        seen.add(layer.path)
        yield path, layer


def _largest_of_neighbours(size, n, m, axis):
    """Mask of the n largest among m neighbours along an axis."""
    last = np.moveaxis(size, axis, -1)
    groups = last.reshape(-1, m)
    order = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1, kind="stable")
    return np.moveaxis((order < n).reshape(last.shape), -1, axis)


def _parsed(sparsity):
    """(pattern or None, share)."""
    try:
        if ":" in str(sparsity):
            n, m = map(int, str(sparsity).split(":"))
            if 0 < n < m:
                return (n, m), 1 - n / m
        elif 0 < float(sparsity) < 1:
            return None, float(sparsity)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"sparsity={sparsity!r} must be a share in (0, 1) or a pattern such as 2:4.")
