"""Training an image classifier, and keeping the trained model as a checkpoint with its card.

A checkpoint is `checkpoints/<name>.keras`; its card `checkpoints/<name>.json` says from which data, by which recipe
and how well. `RECIPES` holds those that the repository ships; `python -m helpers train NAME` runs one again.
"""

import io
import json
import tempfile
import time
import weakref
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import data, files, models, runtime_env, stats

with runtime_env.quiet():
    import tensorflow as tf

TEMPERATURE = 2.0
CHECKPOINTS = files.REPOSITORY / "checkpoints"
# A recipe's model -> how to build it, what the card calls it, and under which licence its weights are.
NETWORKS = {
    "mobilenet_v2": (
        models.mobilenet_v2,
        "MobileNetV2, alpha 0.35",
        "Started from Keras' ImageNet weights of MobileNetV2 (alpha 0.35, 224 px), Apache License 2.0",
    ),
    "resnet8": (models.resnet8, "ResNet-8 of MLPerf Tiny", "Trained from scratch; MIT, as this repository"),
}

_steps = weakref.WeakKeyDictionary()


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit what it is asked to do."""


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is trained: data set, input size (pixels), and Adam with a cosine-decayed learning rate.

    model: a key of NETWORKS.
    smallest_crop: training images are flipped at random and cropped to a random share of their sides of at least
    this much. selection: share of the training set held out to choose by.
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


RECIPES = {
    "mobilenetv2_fashion_96": Recipe("fashion_mnist", size=96, epochs=5),
    "mobilenetv2_flowers_96": Recipe("flowers", size=96, epochs=20, smallest_crop=0.6),
    "mobilenetv2_flowers_224": Recipe("flowers", size=224, epochs=8, smallest_crop=0.6),
    "resnet8_fashion_32": Recipe(
        "fashion_mnist", size=32, epochs=10, learning_rate=3e-3, batch_size=128, model="resnet8"
    ),
}


def split(dataset, calibration=512, selection=0.1, seed=0):
    """Three disjoint parts of a training set, stratified by label: indices "fit", "selection", "calibration", sorted.

    calibration: how many examples; selection: share of the training set. The test set is no part of it.
    Raises ValueError when a class has too few examples.
    """
    labels = dataset.y_train
    classes = len(np.unique(labels))
    each = {"calibration": -(-calibration // classes), "selection": max(1, int(selection * len(labels)) // classes)}
    if min(np.bincount(labels)[np.unique(labels)]) <= sum(each.values()):
        raise ValueError(
            f"calibration={calibration} and selection={selection} leave no example of some class to train on: take less."
        )
    parts, rest = {}, np.arange(len(labels))
    for name, per_class in each.items():
        chosen, others = data.stratified_split(labels[rest], per_class, seed)
        parts[name], rest = rest[chosen], rest[others]
    return {"fit": rest, **parts}


def batches(images, labels, size, batch_size, seed, epochs, smallest_crop=1.0):
    """Shuffled training batches for all epochs: (float32 (batch, size, size, 3) in [-1, 1], labels).

    images: uint8 (n, height, width[, 3]). Every image is flipped and cropped at random, from `seed` alone; at
    smallest_crop 1 it is left as it is.
    """
    per_epoch = len(images) // batch_size
    random = np.random.default_rng(seed)

    def indices():
        for _ in range(epochs):
            yield from random.permutation(len(images))[: per_epoch * batch_size].reshape(per_epoch, batch_size)

    def fetch(step, chosen):
        return step, images[chosen], labels[chosen]

    def augment(step, pictures, answers):
        seeds = tf.random.experimental.stateless_split([seed, step], 2)
        side = tf.random.stateless_uniform([batch_size, 1], seeds[0], smallest_crop, 1.0)
        low = tf.random.stateless_uniform([batch_size, 2], seeds[1]) * (1 - side)
        boxes = tf.concat([low, low + side], axis=1)
        if smallest_crop < 1:  # swapping a box's left and right edge mirrors the image
            mirrored = tf.random.stateless_uniform([batch_size, 1], seeds[0] + 1) < 0.5
            boxes = tf.where(mirrored, tf.gather(boxes, [0, 3, 2, 1], axis=1), boxes)
        return models.network_input(pictures, size, boxes), answers

    picture, label = tf.TensorSpec((batch_size, *images.shape[1:]), tf.uint8), tf.TensorSpec((batch_size,), tf.int64)
    source = tf.data.Dataset.from_generator(
        lambda: (fetch(step, chosen) for step, chosen in enumerate(indices())),
        output_signature=(tf.TensorSpec((), tf.int32), picture, label),
    )
    return source.map(augment).prefetch(4)


def train(name, report=print):
    """Train the checkpoint `name` of RECIPES, judge it on the whole test set, write it and its card. Returns the card.

    report: takes a line of progress after each epoch. Raises CheckpointError for an unknown name.
    """
    if name not in RECIPES:
        raise CheckpointError(f"checkpoint={name!r} has no recipe: choose one of {', '.join(RECIPES)}.")
    recipe, started = RECIPES[name], time.monotonic()
    dataset = data.load(recipe.dataset)
    parts = split(dataset, selection=recipe.selection, seed=recipe.seed)
    fit, selection = parts["fit"], parts["selection"]
    runtime_env.seed_everything(recipe.seed)
    build, title, licence = NETWORKS[recipe.model]
    model = build(recipe.size, len(dataset.classes))
    per_epoch = len(fit) // recipe.batch_size
    models.compile_classifier(
        model, tf.keras.optimizers.schedules.CosineDecay(recipe.learning_rate, per_epoch * recipe.epochs)
    )
    training = batches(
        dataset.x_train[fit],
        dataset.y_train[fit],
        recipe.size,
        recipe.batch_size,
        recipe.seed,
        recipe.epochs,
        recipe.smallest_crop,
    )

    def tell(epoch, logs):
        chosen = top1(model, dataset.x_train[selection], dataset.y_train[selection]).mean()
        report(
            f"{name}: epoch {epoch + 1} of {recipe.epochs}, loss {logs['loss']:.3f}, selection top-1 {chosen:.3f}, "
            f"{time.monotonic() - started:.0f} s"
        )

    model.fit(
        training,
        steps_per_epoch=per_epoch,
        epochs=recipe.epochs,
        verbose=0,
        callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    )
    accuracy = stats.proportion(top1(model, dataset.x_test, dataset.y_test))
    card = {
        "model": f"{title}, {recipe.size} px, {len(dataset.classes)} classes, logits",
        "data": {"name": dataset.name, "sha256": dataset.sha256, "trained_on": len(fit)},
        "recipe": asdict(recipe),
        "command": f"python -m helpers train {name}",
        "top1_test": {
            "value": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "images": len(dataset.x_test),
        },
        "licence": licence,
        "provenance": {
            "seconds": round(time.monotonic() - started),
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
        },
    }
    save(model, name, card)
    return card


def hold_batch_norms(model):
    """Let the batch norms of a float model keep their trained statistics, scale and shift in fine-tuning; changes the
    model and returns it. (`quantize.hold_batch_norms` is for a quantization-aware one.)"""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.trainable = False
    return model


def refresh_batch_norms(model, samples):
    """Set the moving statistics of a float model's batch norms to those of a set of samples; changes the model, returns it.

    What was pruned left statistics of activations that are no more, and moving averages follow slowly (Li et al. 2020,
    *EagleEye*, section 3.2). samples: float32 (n, ...), as the model takes them; they go through as one batch.
    """
    norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(tf.constant(samples), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def restart(model, weights):
    """Put a compiled model back to `weights` (as `get_weights` gave them) with a fresh optimizer.

    Compiling it again would do the same, and trace the training step anew.
    """
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        variable.assign(tf.zeros_like(variable))


def follow(model, training, learning_rate, watch, images, labels, factors=None, teacher=None):
    """Train a model, as `models.compile_classifier` gives it, on batches up to the last step in `watch`, and judge it at each
    of those steps.

    training: as `batches` gives them. learning_rate: at the first step; it falls to zero along a cosine. watch: rising
    step numbers, 0 being before the first. images: uint8, labels (n,): what it is judged on. factors: layer name, as in
    the float model -> what to multiply its learning rate with; at 0 its weights stay bit for bit. (`trainable = False`
    does not do that for the wrappers of tfmot 0.8.) teacher: a Keras model of the same inputs and classes, whose softened
    answers are half of what is learned (Hinton et al. 2015, section 2, at temperature 2); it is not trained.
    Returns a frame with step and top-1. Raises ValueError when there are too few batches or no such layer.
    """
    rows = [
        {"step": step, "top-1": float(top1(model, images, labels).mean())}
        for step in _steps_taken(model, training, learning_rate, watch[-1], factors, teacher)
        if step in watch
    ]
    return pd.DataFrame(rows)


def fine_tune(model, dataset, chosen, steps, learning_rate, batch_size=32, seed=0, factors=None, teacher=None):
    """Train a compiled model in place for some steps, as `follow` does, on training images of a data set; returns it.

    chosen: indices of the images, int (n,). Equal chosen, batch_size and seed give equal batches, flipped and cropped to at
    least 85% of their sides.
    """
    epochs = 1 + steps * batch_size // len(chosen)
    images, labels = dataset.x_train[chosen], dataset.y_train[chosen]
    training = batches(images, labels, model.input_shape[1], batch_size, seed, epochs, smallest_crop=0.85)
    for _ in _steps_taken(model, training, learning_rate, steps, factors, teacher):
        pass
    return model


def _steps_taken(model, training, learning_rate, last, factors, teacher):
    """Train up to step `last`; yields the number of each step when it is done, and 0 before the first."""
    source, take_step = iter(training), _training_step(model, factors or {}, teacher)
    yield 0
    for step in range(1, last + 1):
        model.optimizer.learning_rate = learning_rate * (1 + np.cos(np.pi * (step - 1) / last)) / 2
        try:
            take_step(*next(source))
        except StopIteration:
            raise ValueError(f"training holds {step - 1} batches, fewer than the {last} steps asked for.") from None
        yield step


def _training_step(model, factors, teacher):
    """One step of a compiled model. Keras' own also converts Python control flow, which takes a fifth of tracing."""
    steps = _steps.setdefault(model.optimizer, {})  # compiling again brings a new optimizer, and so a new step
    key = (*sorted(factors), teacher)
    if key not in steps:
        itself = weakref.proxy(model)  # else the step would keep its own key alive
        multipliers = {name: tf.Variable(1.0, trainable=False) for name in factors}  # other values need no new trace
        scaled = _scaled_variables(model, multipliers)

        @tf.function(autograph=False)
        def step(images, labels):
            with tf.GradientTape() as tape:
                answers = itself(images, training=True)
                loss = itself.compute_loss(images, labels, answers)
                if teacher:
                    loss = (loss + _distillation_loss(teacher(images, training=False), answers)) / 2
            before = [tf.identity(variable) for variable, _ in scaled]
            trained = itself.trainable_variables
            _adam_step(itself.optimizer, trained, tape.gradient(loss, trained))
            # Not the gradient is scaled but the step it led to: Adam divides by the gradient's size.
            for (variable, factor), old in zip(scaled, before, strict=True):
                variable.assign(old + factor * (variable - old))

        steps[key] = step, multipliers
    step, multipliers = steps[key]
    for name, factor in factors.items():
        multipliers[name].assign(factor)
    return step


def _adam_step(adam, trained, gradients):
    """What `adam.apply_gradients` does, in one operation for each variable instead of thirty: most of the time that it takes
    to trace a training step goes into those."""
    moments = adam.variables[1:]  # behind the number of steps: first and second moment of one variable after the other
    powers = {
        f"beta{n}_power": tf.pow(beta, tf.cast(adam.iterations + 1, tf.float32))
        for n, beta in ((1, adam.beta_1), (2, adam.beta_2))
    }
    fixed = {"lr": adam.learning_rate, "beta1": adam.beta_1, "beta2": adam.beta_2, "epsilon": adam.epsilon}
    for variable, gradient, first, second in zip(trained, gradients, moments[::2], moments[1::2], strict=True):
        handles = {"var": variable.handle, "m": first.handle, "v": second.handle}
        tf.raw_ops.ResourceApplyAdam(**handles, **powers, **fixed, grad=gradient)
    adam.iterations.assign_add(1)


def _distillation_loss(taught, answers):
    """Mean divergence of two batches of softened logits, in the scale of the cross-entropy beside it."""
    taught, answers = (tf.nn.log_softmax(logits / TEMPERATURE) for logits in (taught, answers))
    return TEMPERATURE**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(taught) * (taught - answers), axis=-1))


def _scaled_variables(model, factors):
    """(trainable variable, factor) for every layer named in `factors`."""
    layers = {layer.name.removeprefix("quant_"): layer for layer in model.layers}
    unknown = sorted(set(factors) - set(layers))
    if unknown:
        raise ValueError(f"factors names {unknown[0]!r}, which is no layer of this model.")
    return [(variable, factor) for name, factor in factors.items() for variable in layers[name].trainable_variables]


def top1(model, images, labels, batch=200):
    """Which images a Keras classifier of network inputs gets right: bool (n,). images: uint8 (n, height, width[, 3])."""
    size, answers, infer = model.input_shape[1], [], models.inference(model)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        answers.append(infer(models.network_input(part, size)).numpy().argmax(axis=-1))
    return np.concatenate(answers) == np.asarray(labels)


def save(model, name, card):
    """Write a checkpoint and its card into `checkpoints/`, each in one step."""
    files.write(CHECKPOINTS / f"{name}.keras", packed(model))
    files.write(CHECKPOINTS / f"{name}.json", json.dumps(card, indent=1) + "\n")


def packed(model):
    """The bytes of a model's `.keras` file: compressed, without the optimizer's variables and without time stamps, so that
    equal weights give equal bytes."""
    with tempfile.TemporaryDirectory() as folder:
        loose = Path(folder) / "model.keras"
        models.copy(model).save(loose)
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


def load(name, size=None, classes=None):
    """A checkpoint as a Keras model, not compiled. Name, or the path of a `.keras` file.

    size (pixels) and classes, where given, must be those of the model; CheckpointError otherwise, or if there is none.
    """
    path = CHECKPOINTS / f"{name}.keras" if not str(name).endswith(".keras") else Path(name)
    if not path.is_file():
        known = sorted(path.stem for path in CHECKPOINTS.glob("*.keras"))
        raise CheckpointError(
            f"checkpoint={str(name)!r} does not exist: there are {', '.join(known) or 'none'}; "
            "`python -m helpers train NAME` makes one."
        )
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # zip, HDF5 and Keras each raise their own
        raise CheckpointError(
            f"checkpoint {path.name} cannot be loaded ({type(error).__name__}): fetch or train it again."
        ) from error
    found = (model.input_shape[1], model.output_shape[-1])
    for what, wanted, has in (("size", size, found[0]), ("classes", classes, found[1])):
        if wanted is not None and wanted != has:
            raise CheckpointError(
                f"checkpoint {path.name} was made for {what}={has}, not {wanted}: name another, or train one."
            )
    return model


def card(name):
    """The card of a checkpoint as a dict."""
    return json.loads((CHECKPOINTS / f"{name}.json").read_text())
