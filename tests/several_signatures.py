"""A module of functions that share nothing but a file, for what is tested on files of several signatures."""

import numpy as np
import tensorflow as tf

from helpers.base import runtime_env

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(200, 5)).astype("float32")
# Of several brightnesses, so that `see` gives more than one answer.
PICTURES = (RANDOM.normal(size=(200, 6, 6, 2)) + 3 * RANDOM.normal(size=(200, 1, 1, 2))).astype("float32")


class Several(tf.Module):
    """Three functions: of pictures, of vectors, and of a vector in a loop. scale: of what `weigh` multiplies with."""

    def __init__(self, scale=1):
        draw = np.random.default_rng(1).normal
        self.kernel, self.wide = (tf.Variable(draw(size=shape).astype("float32")) for shape in ((3, 3, 2, 4), (5, 7)))
        self.wide.assign(scale * self.wide)
        self.answer = tf.Variable(draw(size=(4, 3)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 2), name="picture")])
    def see(self, picture):
        x = tf.nn.relu(tf.nn.conv2d(picture, self.kernel, 1, "VALID"))
        return {"kind": tf.reduce_mean(x, (1, 2)) @ self.answer}

    @tf.function(input_signature=[tf.TensorSpec((None, 5), name="numbers")])
    def weigh(self, numbers):
        return {"sum": tf.reduce_sum(numbers, 1, keepdims=True), "wide": tf.nn.relu(numbers @ self.wide)}

    @tf.function(input_signature=[tf.TensorSpec((1, 5), name="start")])
    def double(self, start):
        """Until the largest is above 100."""
        return {"end": tf.while_loop(lambda x: tf.reduce_max(x) < 100, lambda x: [2 * tf.abs(x)], [start])[0]}


def saved(folder, *names, scale=1):
    """A SavedModel of some of the functions."""
    module = Several(scale)
    with runtime_env.quiet():
        tf.saved_model.save(module, str(folder), signatures={name: getattr(module, name) for name in names})
    return folder


def converted(folder, *names, scale=1):
    """The file of some of the functions, as TensorFlow's converter makes it of a SavedModel, which it leaves in the folder."""
    with runtime_env.quiet():
        return tf.lite.TFLiteConverter.from_saved_model(str(saved(folder, *names, scale=scale))).convert()
