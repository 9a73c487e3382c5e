"""A trained model that the repository keeps, as a checkpoint with its card.

A checkpoint is `checkpoints/<name>.keras`; its card `checkpoints/<name>.json` says from which data, by which recipe
and how well. `RECIPES` holds those that the repository ships; `compression-lab checkpoint NAME` runs one again.
"""

import io
import json
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, LabError
from helpers.evidence import stats
from helpers.networks import data, detector, embedder, models, training

with runtime_env.quiet():
    import tensorflow as tf

CHECKPOINTS = repository.REPOSITORY / "checkpoints"
# A recipe's model -> how to build it, what the card calls it, and under which licence its weights are.
NETWORKS = {
    "mobilenet_v2": (
        models.mobilenet_v2,
        "MobileNetV2, alpha 0.35",
        "Started from Keras' ImageNet weights of MobileNetV2 (alpha 0.35, 224 px), Apache License 2.0",
    ),
    "cnn": (models.cnn, "Small convolutional network", "Trained from scratch; MIT, as this repository"),
    "resnet8": (models.resnet8, "ResNet-8 of MLPerf Tiny", "Trained from scratch; MIT, as this repository"),
    "vit": (
        models.vit,
        "Vision Transformer of 3 blocks, width 64, behind a stem of convolutions",
        "Trained from scratch; MIT, as this repository",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is trained: data set, input size (pixels), and Adam with a cosine-decayed learning rate.

    model: a key of NETWORKS.
    smallest_crop, colour: as `training.batches` takes them. selection: share of the training set held out to choose by.
    calibration: how many of its images are held out to calibrate with; those of `training.split` at 512, none at 0.
    smoothing: share of the wanted answer that is spread over all classes (Szegedy et al. 2016, section 7).
    smaller: (pixels, epochs): the first so many of the epochs see smaller images, which takes less time and no accuracy
    (progressive learning: Tan & Le 2021, *EfficientNetV2*, section 4.2). finish: (epochs, learning rate, times) of a last
    stage in which crops and colours change less, by finish_crop and finish_colour, since a network that learned from crops
    expects things to look larger than they do in whole images (Touvron et al. 2019, *Fixing the train-test resolution
    discrepancy*); taken from the same weights that many times, with other seeds, whose weights are averaged (Wortsman et al.
    2022, *Model soups*).
    """

    dataset: str
    size: int
    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 64
    smallest_crop: float = 0.85
    selection: float = 0.1
    seed: int = 0
    model: str = "mobilenet_v2"
    calibration: int = 512
    colour: float = 0.0
    smoothing: float = 0.0
    smaller: tuple[int, int] | None = None
    finish: tuple[int, float, int] | None = None
    finish_crop: float = 0.8
    finish_colour: float = 0.1

    def stages(self):
        """[(pixels, epochs)] in their order."""
        if self.smaller is None:
            return [(self.size, self.epochs)]
        return [self.smaller, (self.size, self.epochs - self.smaller[1])]


RECIPES = {
    "mobilenetv2_fashion_96": Recipe("fashion_mnist", size=96, epochs=5),
    "mobilenetv2_flowers_96": Recipe("flowers", size=96, epochs=20, smallest_crop=0.6),
    "mobilenetv2_flowers_224": Recipe(
        "flowers",
        size=224,
        epochs=24,
        smallest_crop=0.5,
        calibration=0,
        colour=0.3,
        smoothing=0.1,
        smaller=(160, 16),
        finish=(6, 2e-4, 3),
    ),
    "cnn_fashion_28": Recipe(
        "fashion8k", size=28, epochs=6, learning_rate=5e-3, smallest_crop=1.0, selection=0.02, model="cnn"
    ),
    "resnet8_fashion_32": Recipe(
        "fashion_mnist", size=32, epochs=10, learning_rate=3e-3, batch_size=128, model="resnet8"
    ),
    "vit_fashion_28": Recipe(
        "fashion_mnist",
        size=28,
        epochs=8,
        learning_rate=2e-3,
        batch_size=128,
        smallest_crop=0.9,
        model="vit",
        finish=(3, 1e-3, 1),
        finish_crop=1.0,
        finish_colour=0.0,
    ),
    "detector_digits_64": detector.Recipe("mnist5k"),
    "embedder_glyphs_32": embedder.Recipe(),
}


def train(name, report=print):
    """Train the checkpoint `name` of RECIPES, judge it on the whole test set, write it and its card. Returns the card.

    report: takes a line of progress after each epoch. Raises InputError for an unknown name.
    """
    if name not in RECIPES:
        raise InputError(f"checkpoint={name!r} has no recipe: choose one of {', '.join(RECIPES)}.")
    recipe, started = RECIPES[name], time.monotonic()

    def tell(line):
        report(f"{name}: {line}, {time.monotonic() - started:.0f} s")

    model, about = _classifier(recipe, tell) if isinstance(recipe, Recipe) else recipe.train(tell)
    card = about | {
        "recipe": asdict(recipe),
        "command": f"compression-lab checkpoint {name}",
        "provenance": {
            "seconds": round(time.monotonic() - started),
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
        },
    }
    save(model, name, card)
    return card


def _classifier(recipe, report):
    """The trained model of a Recipe, and what its card says of it: a dict."""
    dataset = data.load(recipe.dataset)
    parts = training.split(dataset, selection=recipe.selection, seed=recipe.seed)
    fit, selection = parts["fit"], parts["selection"]
    if not recipe.calibration:
        fit = np.sort(np.concatenate([fit, parts["calibration"]]))
    images, labels = dataset.x_train[fit], dataset.y_train[fit]
    runtime_env.seed_everything(recipe.seed)
    build, title, licence = NETWORKS[recipe.model]
    model = build(recipe.size, len(dataset.classes))
    trained = models.of_any_size(model) if recipe.smaller else model
    steps = len(fit) // recipe.batch_size
    schedule = tf.keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps * recipe.epochs)
    models.compile_classifier(trained, schedule, recipe.smoothing)

    def tell(epoch, logs):
        if epoch < recipe.epochs:
            model.set_weights(trained.get_weights())
        chosen = models.correct(model, dataset.x_train[selection], dataset.y_train[selection]).mean()
        last = recipe.epochs + (recipe.finish or (0,))[0]
        report(f"epoch {epoch + 1} of {last}, loss {logs['loss']:.3f}, selection top-1 {chosen:.3f}")

    done = 0
    for size, epochs in recipe.stages():
        augmented = {"smallest_crop": recipe.smallest_crop, "colour": recipe.colour}
        trained.fit(
            training.batches(images, labels, size, recipe.batch_size, recipe.seed + done, epochs, **augmented),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=done + epochs,
            verbose=0,
            callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=tell)],
        )
        done += epochs
    if recipe.finish:
        finish(model, recipe, images, labels, tell)
    accuracy = stats.proportion(models.correct(model, dataset.x_test, dataset.y_test))
    return model, {
        "model": f"{title}, {recipe.size} px, {len(dataset.classes)} classes, logits",
        "data": {"name": dataset.name, "sha256": dataset.sha256, "trained_on": len(fit)},
        "seeds": 1,
        "top1_test": {
            "value": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "images": len(dataset.x_test),
        },
        "licence": licence,
    }


def finish(model, recipe, images, labels, tell):
    """The last stage of a recipe that has one; changes the model. images, labels: what is trained on; tell: called after each
    epoch, (number, logs)."""
    epochs, rate, times = recipe.finish
    steps, start, found = len(images) // recipe.batch_size, model.get_weights(), []
    augmented = {"smallest_crop": recipe.finish_crop, "colour": recipe.finish_colour}
    for time_taken in range(times):
        model.set_weights(start)
        schedule = tf.keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
        models.compile_classifier(model, schedule, recipe.smoothing)
        seed = recipe.seed + recipe.epochs + time_taken
        model.fit(
            training.batches(images, labels, recipe.size, recipe.batch_size, seed, epochs, **augmented),
            steps_per_epoch=steps,
            initial_epoch=recipe.epochs,
            epochs=recipe.epochs + epochs,
            verbose=0,
            callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=tell)],
        )
        found.append(model.get_weights())
    model.set_weights([np.mean(weights, axis=0) for weights in zip(*found, strict=True)])


def save(model, name, card):
    """Write a checkpoint and its card into `checkpoints/`, each in one step."""
    repository.write(CHECKPOINTS / f"{name}.keras", packed(model))
    repository.write(CHECKPOINTS / f"{name}.json", json.dumps(card, indent=1) + "\n")


def packed(model):
    """The bytes of a model's `.keras` file: compressed, without the optimizer's variables and without time stamps, so that
    equal weights give equal bytes. model: of Keras 2, or one of Keras 3 that is not compiled."""
    with tempfile.TemporaryDirectory() as folder:
        loose = Path(folder) / "model.keras"
        (models.copy(model) if isinstance(model, tf.keras.Model) else model).save(loose)
        content = io.BytesIO()
        with (
            zipfile.ZipFile(loose) as source,
            zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
        ):
            for entry in sorted(source.namelist()):
                part = source.read(entry)
                if entry == "metadata.json":
                    part = json.dumps({**json.loads(part), "date_saved": ""}).encode()
                target.writestr(zipfile.ZipInfo(entry), part, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def path(name):
    """The `.keras` file of a checkpoint: its name, or a path. Raises InputError if there is none."""
    file = CHECKPOINTS / f"{name}.keras" if not str(name).endswith(".keras") else Path(name)
    if not file.is_file():
        known = sorted(each.stem for each in CHECKPOINTS.glob("*.keras"))
        raise InputError(
            f"checkpoint={str(name)!r} does not exist: there are {', '.join(known) or 'none'}; "
            "`compression-lab checkpoint NAME` makes one."
        )
    return file


def load(name, size=None, classes=None):
    """A checkpoint as a Keras model, not compiled. Name, or the path of a `.keras` file.

    size (pixels) and classes, where given, must be those of the model; InputError otherwise, or if there is none. A file of Keras 3
    becomes a model of Keras 2, with what `opening.keras_file` and `flatten.flat` raise.
    """
    file = path(name)
    try:
        if _is_of_keras_3(file):  # tfmot, with which it is compressed, knows Keras 2 alone
            from helpers.networks import flatten, opening  # which load Keras 3, and that takes a while

            model, _ = flatten.flat(opening.keras_file(file))
        else:
            model = tf.keras.models.load_model(file, compile=False)
            if any(isinstance(layer, tf.keras.Model) for layer in model.layers):  # which tfmot refuses
                from helpers.networks import flatten

                model, _ = flatten.flat(model)
    except LabError:
        raise
    except Exception as error:  # zip, HDF5 and Keras each raise their own
        raise InputError(
            f"checkpoint {file.name} cannot be loaded ({type(error).__name__}): fetch or train it again."
        ) from error
    found = (model.input_shape[1], model.outputs[-1].shape[-1])
    for what, wanted, has in (("size", size, found[0]), ("classes", classes, found[1])):
        if wanted is not None and wanted != has:
            raise InputError(
                f"checkpoint {file.name} was made for {what}={has}, not {wanted}: name another, or train one."
            )
    return model


def _is_of_keras_3(file):
    try:
        with zipfile.ZipFile(file) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"]).startswith("3")
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return False


def card(name):
    """The card of a checkpoint as a dict."""
    return json.loads((CHECKPOINTS / f"{name}.json").read_text())
