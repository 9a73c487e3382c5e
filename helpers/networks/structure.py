"""Reading a flat Keras model as a graph: which layers carry weights, what feeds what, along which axis channels lie."""

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.networks import flatten, models

with runtime_env.quiet():
    import tensorflow as tf


KERNELS = (
    tf.keras.layers.Conv1D,
    tf.keras.layers.Conv2D,
    tf.keras.layers.DepthwiseConv2D,
    tf.keras.layers.Dense,
)


@tf.keras.utils.register_keras_serializable("compression_lab")
class CappedReLU(tf.keras.layers.Layer):
    """min(max(x, 0), cap), with a cap for every channel: what ReLU6 becomes when its channels are scaled apart."""

    def build(self, input_shape):
        self.caps = self.add_weight(name="caps", shape=(input_shape[-1],), initializer="ones", trainable=False)

    def call(self, inputs):
        return tf.minimum(tf.nn.relu(inputs), self.caps)


def flat(model):
    """The model as a functional one in which every layer stands in one place: itself where it is that already, else as
    `flatten.flat` makes it.

    Raises StructureError for a subclassed or unbuilt model, shared layers, weights that are not finite, and what cannot be
    flattened.
    """
    if not model.inputs:
        raise StructureError(
            f"model {model.name} is not functional, or has no input shape yet: begin it with an Input."
        )
    for layer in model.layers:
        if not all(np.isfinite(weight).all() for weight in layer.get_weights()):
            raise StructureError(f"weights of {layer.name} hold NaN or infinity: train or load the model again.")
    if not flatten.is_flat(model):
        model, _ = flatten.flat(model)
    elif isinstance(model, tf.keras.Sequential):
        model = tf.keras.Model(model.inputs, model.outputs, name=model.name)
    shared = [entry["name"] for entry in model.get_config()["layers"] if len(entry["inbound_nodes"]) > 1]
    if shared:
        raise StructureError(f"layer {shared[0]} is used more than once: give each place a layer of its own.")
    elsewhere_too = any(len(layer.inbound_nodes) > 1 for layer in model.layers)
    return models.copy(model) if elsewhere_too else model


def consumers(model):
    """Name of each layer -> the layers that its output feeds; an output of the model counts as one, None."""
    found = {layer.name: [] for layer in model.layers}
    for layer in model.layers:
        for node in layer.inbound_nodes:
            for feeding in tf.nest.flatten(node.inbound_layers):
                if feeding.name in found and layer not in found[feeding.name]:
                    found[feeding.name].append(layer)
    for output in model.outputs:
        found[output.node.layer.name].append(None)
    return found


def source(layer):
    """The layer whose output is a layer's input; the first, if it has several."""
    return tf.nest.flatten(layer.inbound_nodes[0].inbound_layers)[0]


def linear(layer):
    """Whether a layer applies no activation of its own."""
    return getattr(layer, "activation", tf.keras.activations.linear) is tf.keras.activations.linear


def has_kernel(layer):
    """Whether this is a convolution, a depthwise convolution or a dense layer, with its output channels last."""
    return type(layer) in KERNELS


def kind(layer):
    """What sort of weights a layer has: depthwise, pointwise, convolution or dense."""
    if isinstance(layer, tf.keras.layers.DepthwiseConv2D):
        return "depthwise"
    if isinstance(layer, tf.keras.layers.Dense):
        return "dense"
    return "pointwise" if set(layer.kernel_size) == {1} else "convolution"


def by_output_channel(layer, kernel):
    """A kernel as (weights, output channels)."""
    return np.reshape(kernel, (-1, layer.output_shape[-1]))


def by_input_channel(kernel):
    """A kernel as (weights, input channels)."""
    return np.reshape(np.moveaxis(kernel, -2, -1), (-1, kernel.shape[-2]))
