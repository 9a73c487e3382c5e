"""Training an image classifier: parts of the data, batches, steps of fine-tuning, batch norms, and what it gets right."""

import weakref

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.networks import data, models

with runtime_env.quiet():
    import tensorflow as tf

TEMPERATURE = 2.0
_steps = weakref.WeakKeyDictionary()


def split(dataset, calibration=512, selection=0.1, seed=0):
    """Three disjoint parts of a training set, stratified by label: indices "fit", "selection", "calibration", sorted.

    calibration: how many examples; selection: share of the training set. The test set is no part of it.
    Raises InputError when a class has too few examples.
    """
    labels = dataset.y_train
    classes = len(np.unique(labels))
    each = {"calibration": -(-calibration // classes), "selection": max(1, int(selection * len(labels)) // classes)}
    if min(np.bincount(labels)[np.unique(labels)]) <= sum(each.values()):
        raise InputError(
            f"calibration={calibration} and selection={selection} leave no example of some class to train on: take less."
        )
    parts, rest = {}, np.arange(len(labels))
    for name, per_class in each.items():
        chosen, others = data.stratified_split(labels[rest], per_class, seed)
        parts[name], rest = rest[chosen], rest[others]
    return {"fit": rest, **parts}


def draw_calibration(pool, samples, seed):
    """`samples` different entries of a pool (n, ...), drawn at random. Raises InputError if it has too few."""
    if not 1 <= samples <= len(pool):
        raise InputError(
            f"calibration_samples={samples} must lie in [1, {len(pool)}]: the calibration part has {len(pool)} images."
        )
    return pool[np.random.default_rng(seed).choice(len(pool), samples, replace=False)]


def batches(images, labels, size, batch_size, seed, epochs, smallest_crop=1.0, colour=0.0):
    """Shuffled training batches for all epochs: (float32 (batch, size, size, 3) in [-1, 1], labels).

    images: uint8 (n, height, width[, 3]). Every image is flipped and cropped at random to a share of its sides of at
    least smallest_crop, from `seed` alone; at 1 it is left as it is. colour: by how much, up or down, its brightness,
    contrast and saturation change at random, as shares. Gone through again, they are the same.
    """
    per_epoch = len(images) // batch_size

    def indices():
        random = np.random.default_rng(seed)
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
        pictures = models.network_input(pictures, size, boxes)
        return _recoloured(pictures, colour, seeds[1] + 1) if colour else pictures, answers

    picture, label = tf.TensorSpec((batch_size, *images.shape[1:]), tf.uint8), tf.TensorSpec((batch_size,), tf.int64)
    source = tf.data.Dataset.from_generator(
        lambda: (fetch(step, chosen) for step, chosen in enumerate(indices())),
        output_signature=(tf.TensorSpec((), tf.int32), picture, label),
    )
    return source.map(augment).prefetch(4)


def _recoloured(pictures, most, seed):
    """Float pictures (n, height, width, 3) in [-1, 1], each with its own random saturation, contrast and brightness."""
    changes = tf.random.stateless_uniform([3, tf.shape(pictures)[0], 1, 1, 1], seed, -most, most)
    grey = tf.reduce_mean(pictures, axis=3, keepdims=True)
    pictures = grey + (pictures - grey) * (1 + changes[0])
    middle = tf.reduce_mean(pictures, axis=[1, 2, 3], keepdims=True)
    return tf.clip_by_value(middle + (pictures - middle) * (1 + changes[1]) + changes[2], -1.0, 1.0)


def fine_tuning_batches(dataset, chosen, size, steps, batch_size=32, seed=0):
    """`batches` for so many steps on some training images of a data set, flipped and cropped to at least 85% of their sides.

    chosen: indices of the images, int (n,). size: in pixels, as the model takes them. Raises InputError for fewer images than a
    batch takes.
    """
    if len(chosen) < batch_size:
        raise InputError(
            f"there are {len(chosen)} images to train on, fewer than a batch of {batch_size}: give more, or a smaller batch_size."
        )
    # The second is larger where a small set leaves many images of each epoch over.
    epochs = max(1 + steps * batch_size // len(chosen), -(-steps // (len(chosen) // batch_size)))
    images, labels = dataset.x_train[chosen], dataset.y_train[chosen]
    return batches(images, labels, size, batch_size, seed, epochs, smallest_crop=0.85)


def freeze_batch_norms(model):
    """Let the batch norms of a float model keep their trained statistics, scale and shift in fine-tuning; changes the
    model and returns it. (`qat.hold_batch_statistics` is for a quantization-aware one.)"""
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
    Returns a frame with step and top-1. Raises InputError when there are too few batches or no such layer.
    """
    rows = [
        {"step": step, "top-1": float(models.correct(model, images, labels).mean())}
        for step in _steps_taken(model, training, learning_rate, watch[-1], factors, teacher)
        if step in watch
    ]
    return pd.DataFrame(rows)


def fine_tune(model, training, steps, learning_rate, factors=None, teacher=None):
    """Train a compiled model in place for some steps, as `follow` does but unjudged, on batches as `fine_tuning_batches`
    gives them; returns it."""
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
            raise InputError(f"training holds {step - 1} batches, fewer than the {last} steps asked for.") from None
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
    """Mean divergence of two batches of softened answers, in the scale of the cross-entropy beside it."""
    taught, answers = (tf.nn.log_softmax(_logits(each) / TEMPERATURE) for each in (taught, answers))
    return TEMPERATURE**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(taught) * (taught - answers), axis=-1))


def _logits(answers):
    """What a last softmax was given, as Keras' cross-entropies take it too; the answers themselves without one."""
    if hasattr(answers, "_keras_logits"):
        return answers._keras_logits
    return answers.op.inputs[0] if answers.op.type == "Softmax" else answers


def _scaled_variables(model, factors):
    """(trainable variable, factor) for every layer named in `factors`."""
    layers = {layer.name.removeprefix("quant_"): layer for layer in model.layers}
    unknown = sorted(set(factors) - set(layers))
    if unknown:
        raise InputError(f"factors names {unknown[0]!r}, which is no layer of this model.")
    return [(variable, factor) for name, factor in factors.items() for variable in layers[name].trainable_variables]
