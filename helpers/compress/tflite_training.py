"""Train a float `.tflite` for the file that it is to become: quantized, sparse or both. With labels, or by the file's own answers.

    aware = tflite_training.quantization_aware(blob, calibration, requantize.Format(weights=4))
    tflite_training.train(aware, images, steps=100)     # no labels: the float file is the teacher
    int4 = aware.quantized()                            # the same ranges, the same rounding as in training

To have zeros as well, call `tflite_pruning.sparse(aware, "2:4")` before.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import ground_truth, repository, runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import requantize, tflite_graph

with runtime_env.quiet():
    import tensorflow as tf

BETAS, EPSILON = (0.9, 0.999), 1e-7  # Adam's, as Keras has them
AT_ONCE = 64  # samples in a forward pass that only looks
LOOKS = 10  # how often training is judged on selection data
EIGHT_BITS = requantize.Format()
LOSSES = ("logits", "answers")


@dataclass
class Aware:
    """A float file in training for a quantized one.

    graph: its variables; forward: what is trained, the graph itself or its simulation. formats, ranges: as `requantize.apply`
    takes them; formats None trains in float32. masks: index of a kernel -> tf.Variable of zeros and ones.
    """

    graph: tflite_graph.Graph
    forward: object
    formats: dict | None = None
    ranges: dict | None = None
    masks: dict = field(default_factory=dict)
    sparsity: object = None
    _traced: dict = field(default_factory=dict)  # loss -> steps of training, which take seconds to be traced
    _first: list = field(default_factory=list)

    def __post_init__(self):
        self._first = [weight.numpy() for weight in self.graph.weights.values()]

    def restart(self):
        """Give the weights the values that they had in the file, to be trained anew. Returns itself."""
        self.put_back(self._first)
        return self

    def put_back(self, values):
        """Give the weights values that they had, arrays in their order."""
        for weight, value in zip(self.graph.weights.values(), values, strict=True):
            weight.assign(value)

    def steps(self, loss):
        """What trains it with a loss, traced once."""
        if loss not in self._traced:
            self._traced[loss] = _Steps(self, _Lesson(self, loss))
        return self._traced[loss]

    def forget(self):
        """Let it be traced anew, with other masks."""
        self._traced.clear()

    def float32(self):
        """The float file with the weights as they are now: bytes."""
        return self.graph.written()

    def quantized(self):
        """The quantized file of the weights as they are now: bytes. Raises InputError if it is trained in float32."""
        if self.formats is None:
            raise InputError("formats is missing: this file is trained in float32.")
        return requantize.apply(self.float32(), self.formats, self.ranges)


def quantization_aware(model, calibration=None, form=EIGHT_BITS, formats=None, ranges=None):
    """A float `.tflite` (bytes or path) with fake quantization where the quantized file rounds: `Aware`.

    calibration: float32 (samples, ...), which sets the ranges of activations; or ranges, as `requantize.calibrate` gives them.
    form: of all operators; formats: as `requantize.apply` takes them, to be used instead, for layers of their own.
    Ranges stay as they were calibrated: scales of activations that are learned with the weights (Esser et al. 2020) changed the
    top-1 of MobileNetV2 at 4 bits, trained without labels for 100 steps, by -0.2 points [-1.0, 0.7] on 100 images and by 0.1
    [-0.1, 0.4] on 500 (three seeds, 4,000 test images).
    Raises what `tflite_graph.Graph`, `requantize.calibrate` and `requantize.apply` raise.
    """
    graph = tflite_graph.Graph(model)
    graph.check_trainable()
    formats = {requantize.EVERYTHING: form} if formats is None else formats
    if ranges is None and any(each is not None and each.activations for each in formats.values()):
        ranges = requantize.calibrate(graph.file, calibration)
    quantized = requantize.apply(graph.file, formats, ranges)
    return Aware(graph, graph.rounding_as(quantized), formats, ranges)


def in_float(model):
    """A float `.tflite` to be trained as it is, to prune it for instance: `Aware` without formats."""
    graph = tflite_graph.Graph(model)
    graph.check_trainable()
    return Aware(graph, graph)


def train(
    aware,
    x,
    y=None,
    steps=100,
    learning_rate=3e-4,
    batch_size=32,
    seed=0,
    selection=None,
    selection_y=None,
    loss="logits",
    kept=None,
    progress=iter,
):
    """Train an `Aware` in place; returns a frame with step, loss and, where there are selection data, the loss on them.

    x: float32 (n, ...), or a list with an array for each input. y: labels of a classifier, whole numbers (n,), whose
    cross-entropy is the loss; without them the teacher is the float file as it is when training begins. loss: "logits" for the
    mean squared error of its outputs, in units of the teacher's variance, taken before a last softmax or sigmoid; "answers" for
    the cross-entropy to its softmax or sigmoid (Hinton et al. 2015, section 2, at temperature 1), of classifiers.
    steps: of batch_size samples, by Adam at a learning rate that falls to zero along a cosine. selection, selection_y: samples
    and labels as x and y; the weights with the smallest loss on them are those that stay. kept: a file that holds training
    as it stands, to go on from after it was stopped. progress: wraps the numbers of the steps, as `tqdm.tqdm` does.
    Raises InputError for data that do not fit and for a loss that is not finite, StructureError for labels where there is no
    classifier.
    """
    x = _samples(aware.graph, x)
    if not (steps >= 1 and batch_size >= 1 and learning_rate > 0):
        raise InputError(f"steps={steps}, batch_size={batch_size} and learning_rate={learning_rate} must be above 0.")
    if loss not in LOSSES:
        raise InputError(f"loss={loss!r} is unknown: choose one of {', '.join(LOSSES)}.")
    taking = aware.steps(loss).begun(learning_rate, steps)
    lesson = taking.lesson
    targets = _labels(aware, lesson, y, len(x[0])) if y is not None else lesson.taught(x)
    judged = None
    if selection is not None:
        selection = _samples(aware.graph, selection)
        known = selection_y is not None
        judged = (
            selection,
            _labels(aware, lesson, selection_y, len(selection[0])) if known else lesson.taught(selection),
        )
    order = np.random.default_rng(seed)
    batches = (order.choice(len(x[0]), min(batch_size, len(x[0])), replace=False) for _ in range(steps))
    chosen_by = [] if selection is None else [*selection, *([] if selection_y is None else [selection_y])]
    key = _key(aware, [*x, *([] if y is None else [y]), *chosen_by], steps, learning_rate, batch_size, seed, loss)
    state, former = _State(kept, key), [weight.numpy() for weight in taking.weights]
    rows, first = state.restore(taking)
    best = state.best
    if judged and best is None and taking.settled(0):  # what is not trained may stay
        best = lesson.loss_over(*judged), [weight.numpy() for weight in taking.weights]
    for step, chosen in zip(progress(range(1, steps + 1)), batches, strict=False):
        if step <= first:
            continue
        now = taking.take(step, [each[chosen] for each in x], [each[chosen] for each in targets])
        if not np.isfinite(now):
            aware.put_back(former)
            raise InputError(f"the loss is {now} at step {step}: take a smaller learning_rate than {learning_rate}.")
        row = {"step": step, "loss": now}
        if step % max(1, steps // LOOKS) == 0 or step == steps:
            if judged:
                row["selection"] = lesson.loss_over(*judged)
                if taking.settled(step) and (best is None or row["selection"] < best[0]):
                    best = row["selection"], [weight.numpy() for weight in taking.weights]
            rows.append(row)
            state.keep(rows, best, taking)
    if best is not None:
        aware.put_back(best[1])
    state.drop()
    return pd.DataFrame(rows)


class _Lesson:
    """What is to be learned: how far the answers of what is trained are from what is wanted."""

    def __init__(self, aware, loss):
        self.ends, self.soft = aware.graph.ends(), loss == "answers"
        self.look = tf.function(lambda *x: aware.graph.logits(*x), autograph=False)
        self.look_trained = tf.function(lambda *x: aware.forward.logits(*x), autograph=False)
        self.scales = [tf.Variable(1.0, trainable=False) for _ in self.ends]

    def taught(self, x):
        """The float file's answers, before a last softmax or sigmoid: list of arrays."""
        parts = [self.look(*(each[i : i + AT_ONCE] for each in x)) for i in range(0, len(x[0]), AT_ONCE)]
        found = [np.concatenate([part[place].numpy() for part in parts]) for place in range(len(self.ends))]
        for scale, each in zip(self.scales, found, strict=True):
            scale.assign(float(np.var(each)) or 1.0)
        return found

    def loss(self, answers, targets):
        """Mean over the batch, summed over the outputs. A target of whole numbers is a label."""
        return tf.add_n([self._of(*each) for each in zip(self.ends, self.scales, answers, targets, strict=True)])

    def _of(self, end, scale, answer, target):
        if not answer.dtype.is_floating:
            return 0.0  # of no weight's doing, such as the number of the class beside scores
        if target.dtype.is_integer:
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=answer))
        if self.soft and end == "LOGISTIC":
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(target), answer))
        if self.soft:
            return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(target), answer))
        return tf.reduce_mean(tf.math.squared_difference(answer, target)) / scale

    def loss_over(self, x, targets):
        """The mean loss of what is trained over samples."""
        total = 0.0
        for start in range(0, len(x[0]), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            answers = self.look_trained(*(each[part] for each in x))
            total += float(self.loss(answers, [tf.constant(each[part]) for each in targets])) * len(x[0][part])
        return total / len(x[0])


class _Steps:
    """Adam over the weights of an `Aware`. One operation a variable: a Keras optimizer takes most of its time to be traced."""

    def __init__(self, aware, lesson):
        self.aware, self.lesson = aware, lesson
        self.weights = list(aware.graph.weights.values())
        self.masks = [aware.masks.get(index) for index in aware.graph.weights]
        self.moments = [[tf.Variable(tf.zeros(weight.shape)) for weight in self.weights] for _ in BETAS]
        self._step = tf.function(self._taken, autograph=False)
        self._mask = tf.function(self._masked, autograph=False)

    def begun(self, learning_rate, steps):
        """Itself, before the first of so many steps."""
        self.rate, self.steps = learning_rate, steps
        self.growing = steps // 2  # masks change for one half of the steps, and are held for the other
        for moment in (each for moments in self.moments for each in moments):
            moment.assign(tf.zeros(moment.shape))
        return self

    def take(self, step, x, targets):
        """One step, numbered from 1. Returns its loss."""
        rate = tf.constant(self.rate * (1 + np.cos(np.pi * (step - 1) / self.steps)) / 2, tf.float32)
        if self.aware.masks and step <= self.growing + 1:
            self._mask(tf.constant(min((step - 1) / self.growing, 1.0) if self.growing else 1.0, tf.float32))
        powers = [tf.constant(beta**step, tf.float32) for beta in BETAS]
        return float(
            self._step([tf.constant(each) for each in x], [tf.constant(each) for each in targets], rate, *powers)
        )

    def settled(self, step):
        """Whether the masks no longer change."""
        return not self.aware.masks or step > self.growing or step == self.steps

    def _masked(self, progress):
        for weight, mask in zip(self.weights, self.masks, strict=True):
            if mask is not None:
                mask.assign(self.aware.sparsity.mask(weight, progress))
                weight.assign(weight * mask)

    def _taken(self, x, targets, rate, first_power, second_power):
        with tf.GradientTape() as tape:
            loss = self.lesson.loss(self.aware.forward.logits(*x), targets)
        gradients = tape.gradient(loss, self.weights, unconnected_gradients="zero")
        for weight, mask, gradient, first, second in zip(
            self.weights, self.masks, gradients, *self.moments, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=first_power,
                beta2_power=second_power,
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                epsilon=EPSILON,
                grad=tf.convert_to_tensor(gradient),
            )
            if mask is not None:
                weight.assign(weight * mask)
        return loss


class _State:
    """Training as it stands, in a file of NumPy arrays that is replaced in one step; none without a path."""

    def __init__(self, path, key):
        self.path, self.key, self.best = None if path is None else Path(path), key, None

    def restore(self, taking):
        """(rows, last step) of what was kept by the same training; otherwise ([], 0)."""
        if self.path is None or not self.path.is_file():
            return [], 0
        try:
            with np.load(self.path, allow_pickle=False) as found:
                if str(found["key"]) != self.key:
                    return [], 0
                rows = json.loads(str(found["rows"]))
                many = len(taking.weights)
                for name, variables in self._variables(taking).items():
                    for place, variable in enumerate(variables):
                        variable.assign(found[f"{name}_{place}"])
                if "best" in found:
                    self.best = float(found["best"]), [found[f"best_{place}"] for place in range(many)]
                return rows, rows[-1]["step"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"kept={str(self.path)!r} cannot be read ({error}): remove it to begin anew.") from error

    def keep(self, rows, best, taking):
        if self.path is None:
            return
        arrays = {"key": np.array(self.key), "rows": np.array(json.dumps(rows))}
        for name, variables in self._variables(taking).items():
            arrays |= {f"{name}_{place}": variable.numpy() for place, variable in enumerate(variables)}
        if best is not None:
            arrays |= {"best": np.array(best[0])} | {f"best_{place}": value for place, value in enumerate(best[1])}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        repository.write(self.path, buffer.getvalue())

    def drop(self):
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _variables(self, taking):
        masks = [mask for mask in taking.masks if mask is not None]
        return {"weight": taking.weights, "first": taking.moments[0], "second": taking.moments[1], "mask": masks}


def _key(aware, arrays, *settings):
    """What a training is known by: the file, the weights as they are, all arrays that it learns or chooses by, and settings."""
    digest = hashlib.sha256(aware.graph.file)
    for each in (*(weight.numpy() for weight in aware.graph.weights.values()), *map(np.asarray, arrays)):
        digest.update(f"{each.dtype} {each.shape}".encode() + np.ascontiguousarray(each).tobytes())
    ranges = sorted(
        (name, *(np.asarray(ends[end]).tolist() for end in ("min", "max")))
        for name, ends in (aware.ranges or {}).items()
    )
    digest.update(repr((settings, aware.formats, ranges, aware.sparsity)).encode())
    return digest.hexdigest()


def _samples(graph, x):
    """A list with an array for each input of the graph."""
    x = list(x) if len(graph.inputs) > 1 else [x]
    if len(x) != len(graph.inputs):
        raise InputError(f"x holds {len(x)} arrays: this model takes {', '.join(graph.inputs)}.")
    found = []
    for name, each, (shape, dtype) in zip(graph.inputs, x, graph.input_forms(), strict=True):
        each = np.asarray(each)
        fits = each.ndim == len(shape) and all(
            size in (-1, given) for size, given in zip(shape[1:], each.shape[1:], strict=True)
        )
        if not fits or not len(each):
            raise InputError(
                f"x has shape {each.shape} for {name}: this model takes (n, {', '.join(map(str, shape[1:]))})."
            )
        if not np.isfinite(each).all():
            raise InputError("x holds NaN or infinity: clean the samples first.")
        found.append(each.astype(dtype))
    return found


def _labels(aware, lesson, y, number):
    if len(lesson.ends) != 1 or lesson.ends[0] == "LOGISTIC":
        raise StructureError("labels train a classifier of one output: leave y out, and the float file teaches.")
    shape = aware.graph.output_shapes()[0]
    if len(shape) != 2 or shape[1] < 2:
        raise StructureError(f"labels train a classifier (n, classes), and this output is {shape}: leave y out.")
    return [ground_truth.labels(y, number, shape[1]).astype("int64")]
