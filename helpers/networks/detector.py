"""A small detector without anchors: what each cell of a grid sees in its middle, and how far from there its box reaches.

The network puts out what it computes, offsets and logits; `with_head` makes of it, without training, the forms in which
detectors are exported. They compute the same and fare very differently in eight bits.
"""

from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.evidence import boxes, stats
from helpers.networks import data, scenes

with runtime_env.quiet():
    import tensorflow as tf

STRIDE = 8  # pixels of a cell's side
CAMERA = 640  # pixels of a side of the picture in which "pixels" tells its boxes
HEADS = ("pixels", "unit", "apart")
# Operators behind which a `requantize.apply` leaves the output of "pixels" in float: {"*": Format(), **FLOAT_TAIL}.
FLOAT_TAIL = {"MUL": None, "CONCATENATION": None}
WIDTHS = ((16, 2), (24, 1), (32, 2), (48, 1), (64, 2), (96, 1), (64, 1))  # channels and stride of each convolution


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained: on so many new scenes an epoch, made of the training images of a data set, by Adam with a
    cosine-decayed learning rate; and on how many scenes of its test images it is judged."""

    dataset: str
    size: int = scenes.SIDE
    epochs: int = 12
    scenes: int = 6000
    learning_rate: float = 3e-3
    batch_size: int = 64
    test_scenes: int = 1000
    seed: int = 0

    def train(self, report):
        """The trained model, and what its card says of it: a dict. report: takes a line of progress after each epoch."""
        images = data.load(self.dataset)
        runtime_env.seed_everything(self.seed)
        model = network(self.size, len(images.classes))
        schedule = tf.keras.optimizers.schedules.CosineDecay(
            self.learning_rate, self.epochs * (self.scenes // self.batch_size)
        )
        model.compile(tf.keras.optimizers.Adam(schedule), loss=LOSSES)
        for epoch in range(self.epochs):
            x, y = scenes.scenes(images.x_train, images.y_train, self.scenes, seed=1 + self.seed * self.epochs + epoch)
            wanted = targets(y, self.size // STRIDE, len(images.classes))
            done = model.fit(x, wanted, self.batch_size, epochs=epoch + 1, initial_epoch=epoch, verbose=0)
            report(f"epoch {epoch + 1} of {self.epochs}, loss {done.history['loss'][0]:.3f}")
        x, y = scenes.scenes(images.x_test, images.y_test, self.test_scenes, seed=0)
        reached = stats.score(precision(with_head(model, "unit").predict(x, verbose=0), y))
        return model, {
            "model": f"Detector without anchors, {self.size} px, {len(images.classes)} classes, one seed",
            "data": {
                "name": images.name,
                "sha256": images.sha256,
                "trained_on": len(images.x_train),
                "as": f"{self.epochs * self.scenes} scenes",
            },
            "ap50_test": {
                "value": reached.value,
                "low": reached.low,
                "high": reached.high,
                "scenes": self.test_scenes,
            },
            "licence": "Trained from scratch; MIT, as this repository",
        }


def network(size, classes, channels=1):
    """Eight convolutions deep: one flat functional model with random weights. Outputs, for each cell of a grid of size / 8:
    boxes (cells, cells, 4), their corners less the middle of the cell, in cells; scores (cells, cells, classes), logits.

    size: input pixels, a multiple of 8. Raises InputError for another, or for no class.
    """
    if size % STRIDE or size < 2 * STRIDE or classes < 1:
        raise InputError(f"size={size} must be a multiple of {STRIDE}, two or more, and classes={classes} at least 1.")
    layers = tf.keras.layers
    x = inputs = layers.Input((size, size, channels), name="image")
    for number, (width, stride) in enumerate(WIDTHS, 1):
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x))
    # Most cells are empty: to begin with that answer saves the first steps (Lin et al. 2017, *Focal loss*, section 3.3).
    rare = tf.keras.initializers.Constant(-4.0)
    found = layers.Conv2D(classes, 1, bias_initializer=rare, name="scores")(x)
    return tf.keras.Model(inputs, [layers.Conv2D(4, 1, name="boxes")(x), found], name="detector")


def with_head(model, head, side=CAMERA):
    """A model of `network` as it is exported: a Keras model of the same weights, not trained.

    head: "pixels", one output (cells, 4 + classes), boxes x1, y1, x2, y2 in pixels of a picture of `side` beside scores in
    [0, 1], as YOLO puts it out in PyTorch; "unit", the same with boxes in shares of the side; "apart", an output for boxes, in
    shares, and one for scores. Raises InputError for another.
    """
    if head not in HEADS:
        raise InputError(f"head={head!r} is unknown: choose one of {', '.join(HEADS)}.")
    layers, (offsets, logits) = tf.keras.layers, model.outputs
    cells = offsets.shape[1]
    middles = ((np.indices((cells, cells))[::-1] + 0.5) / cells).transpose(1, 2, 0)  # x, y of (row, column)
    corners = np.concatenate([middles, middles], axis=-1)[None].astype(np.float32)
    found = layers.Reshape((cells * cells, 4), name="box_list")(offsets * (1 / cells) + corners)
    scores = layers.Reshape((cells * cells, logits.shape[-1]), name="score_list")(logits)
    scores = layers.Activation("sigmoid", name="certainty")(scores)
    if head == "apart":
        return tf.keras.Model(model.inputs, [found, scores], name="apart")
    if head == "pixels":
        found = layers.Rescaling(side, name="to_pixels")(found)
    return tf.keras.Model(model.inputs, layers.Concatenate(name="found")([found, scores]), name=head)


def labels(y, side=CAMERA):
    """Labels of scenes, (n, boxes, 5) with boxes in shares, as the head "pixels" tells them: boxes in pixels of `side`."""
    return np.where(y[..., :1] >= 0, y * [1, side, side, side, side], y)


def precision(answers, y):
    """Average precision of answers (n, cells, 4 + classes) on labels in their units, as `boxes.average_precision` has it."""
    return boxes.average_precision([boxes.best(each[:, :4], each[:, 4:]) for each in answers.astype(float)], y)


def targets(y, cells, classes):
    """What the network should put out for labels (n, boxes, 5) in shares: [float32 (n, cells, cells, 5), of each cell the
    corners of the box whose middle lies in it, less its own middle, in cells, and 1 (else 0); float32 (n, cells, cells,
    classes), 1 for the class of that box]."""
    corners, seen = (
        np.zeros((len(y), cells, cells, 5), np.float32),
        np.zeros((len(y), cells, cells, classes), np.float32),
    )
    scene, row = np.nonzero(y[..., 0] >= 0)
    kind, box = y[scene, row, 0].astype(int), y[scene, row, 1:] * cells
    column, line = np.clip((box[:, :2] + box[:, 2:]) / 2, 0, cells - 1).astype(int).T
    middle = np.stack([column, line, column, line], axis=1) + 0.5
    corners[scene, line, column, :4], corners[scene, line, column, 4] = box - middle, 1
    seen[scene, line, column] = 0  # of two in one cell the last counts, for box and class
    seen[scene, line, column, kind] = 1
    return [corners, seen]


def _box_loss(wanted, offsets):
    """Of each scene: one less the overlap, and half of the distance of the corners, summed over the cells with a box."""
    there, wanted = wanted[..., 4], wanted[..., :4]
    sides = tf.minimum(wanted[..., 2:], offsets[..., 2:]) - tf.maximum(wanted[..., :2], offsets[..., :2])
    both = tf.reduce_prod(tf.nn.relu(sides), axis=-1)
    areas = [tf.reduce_prod(tf.nn.relu(each[..., 2:] - each[..., :2]), axis=-1) for each in (wanted, offsets)]
    overlap = both / (areas[0] + areas[1] - both + 1e-6)
    apart = tf.reduce_sum(tf.abs(wanted - offsets), axis=-1)
    return tf.reduce_sum(there * (1 - overlap + apart / 2), axis=(1, 2))


def _class_loss(wanted, logits):
    """Of each scene: cross-entropy of every cell and class, summed."""
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits), axis=(1, 2, 3))


LOSSES = [_box_loss, _class_loss]
