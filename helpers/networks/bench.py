"""A checkpoint on the bench with its data: what a notebook compresses, calibrates, chooses and judges with.

Training images are split into three disjoint parts, to fine-tune on, to choose by and to calibrate with; the test images only
judge.
"""

from dataclasses import dataclass

import numpy as np

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.networks import checkpoints, data, models, training

DEFAULTS = {"calibration_samples": 100, "test_images": None, "unreadable": "refuse", "batch_size": 32, "seed": 0}
ENOUGH = 500  # images by which a model's answers are told from chance


@dataclass(frozen=True)
class Bench:
    """A float model and its data.

    images: the Dataset. model: Keras, not compiled. parts: indices of training images, "fit", "selection", "calibration".
    x_test, y_test: what is judged on, float32 (n, size, size, 3) and int64 (n,). calibration_part: all images that may
    calibrate, likewise; calibration: those that do. batch_size, seed: of training batches, and of every draw.
    """

    images: data.Dataset
    model: object
    parts: dict
    x_test: np.ndarray
    y_test: np.ndarray
    calibration_part: np.ndarray
    calibration: np.ndarray
    batch_size: int
    seed: int

    @property
    def size(self):
        """Pixels of a side of the model's input."""
        return self.model.input_shape[1]

    @property
    def classes(self):
        return self.images.classes

    def input(self, pictures, size=None):
        """Images as a model takes them: uint8 (n, height, width[, 3]) -> float32 (n, size, size, 3)."""
        return models.network_input(pictures, size or self.size).numpy()

    def selection(self, number):
        """So many images to choose by, drawn at random, and their labels: uint8 (number, ...), int64 (number,)."""
        chosen = np.random.default_rng(self.seed).permutation(self.parts["selection"])[:number]
        return self.images.x_train[chosen], self.images.y_train[chosen]

    def batches(self, steps, seed=None, size=None):
        """Training batches for so many steps on the part to fine-tune on, as `training.fine_tuning_batches` gives them."""
        seed, size = self.seed if seed is None else seed, size or self.size
        return training.fine_tuning_batches(self.images, self.parts["fit"], size, steps, self.batch_size, seed)


def prepare(parameters):
    """The Bench that a notebook's parameters (name -> value) describe: dataset, checkpoint and selection_share, and, where
    they are other than DEFAULTS, calibration_samples, test_images (how many; None for all), unreadable, batch_size, seed.

    Raises InputError for a data set, checkpoint or number of samples that cannot be had, and for a checkpoint of the user's that
    answers as if it did not look at the images.
    """
    asked = DEFAULTS | parameters
    seed = asked["seed"]
    images = data.load(asked["dataset"], unreadable=asked["unreadable"])
    model = checkpoints.load(asked["checkpoint"], classes=len(images.classes))
    parts = training.split(images, selection=asked["selection_share"], seed=seed)
    size, judged = model.input_shape[1], _mixed(images.y_test)[: asked["test_images"]]
    if asked["checkpoint"] not in checkpoints.RECIPES:
        drawn = np.random.default_rng(seed).permutation(parts["selection"])[:ENOUGH]
        _check_input(model, images, drawn, size)
    calibration_part = models.network_input(images.x_train[parts["calibration"]], size).numpy()
    return Bench(
        images,
        model,
        parts,
        models.network_input(images.x_test[judged], size).numpy(),
        images.y_test[judged],
        calibration_part,
        training.draw_calibration(calibration_part, asked["calibration_samples"], seed),
        asked["batch_size"],
        seed,
    )


def _mixed(labels):
    """An order of test images in which any first part has all classes: as they are, or drawn with seed 0 where one class follows the
    other, as in folders."""
    order = np.arange(len(labels))
    apart = np.count_nonzero(np.diff(labels)) < len(np.unique(labels))
    return np.random.default_rng(0).permutation(order) if apart else order


def _check_input(model, images, chosen, size):
    """Raises InputError for a model that is no better on some training images than if its answers were given to any of them."""
    answers = model.predict(models.network_input(images.x_train[chosen], size), verbose=0).argmax(-1)
    labels = images.y_train[chosen]
    chance = sum((answers == each).mean() * (labels == each).mean() for each in np.unique(labels))
    found = stats.proportion(answers == labels)
    if found.low <= chance:
        raise InputError(
            f"checkpoint answers {found:.1%} of {len(chosen)} images rightly, which is chance: the lab shows pictures from -1 to 1. If the "
            "model takes 0 to 255, put a layer before it that undoes this, tf.keras.layers.Rescaling(127.5, 127.5); and are the "
            f"classes in this order: {', '.join(map(str, images.classes))}?"
        )
