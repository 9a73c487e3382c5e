"""Quantization-aware training with tfmot, mended: a range for every channel, and a start where PTQ ends.

This file needs nothing of the lab but itself: TensorFlow with `TF_USE_LEGACY_KERAS=1`, and tfmot. Take it into a project
of your own as it is, and then:

    with qat.scope():
        model = tfmot.quantization.keras.quantize_apply(
            tfmot.quantization.keras.quantize_annotate_model(float_model), qat.PerChannelScheme())
    qat.start_calibrated(model, float_model, calibration)  # ranges as PTQ has them
    qat.hold_batch_statistics(model)
    # compile and fit; save as .h5, and load it again inside scope()
"""

import collections
import functools

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_configs,
    default_8bit_quantize_layout_transform,
    default_8bit_quantize_registry,
    default_8bit_transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import model_transformer
from tensorflow_model_optimization.python.core.quantization.keras.quantizers import LastValueQuantizer


class DepthwiseQuantizer(LastValueQuantizer):
    """Fake quantization of a depthwise kernel (height, width, channels, multiplier) with a range for every channel.

    tfmot keeps one range for each entry of the *last* axis, which for a depthwise kernel is a single one for all
    channels (tensorflow/model-optimization#808), although the `.tflite` has a scale for each.
    """

    def build(self, tensor_shape, name, layer):
        height, width, channels, multiplier = tensor_shape
        return super().build((height, width, 1, channels * multiplier), name, layer)

    def __call__(self, inputs, training, weights, **kwargs):
        height, width, channels, multiplier = inputs.shape
        flat = tf.reshape(inputs, (height, width, 1, channels * multiplier))
        return tf.reshape(super().__call__(flat, training, weights, **kwargs), inputs.shape)


class TransposeQuantizer(LastValueQuantizer):
    """The same for a transposed convolution's kernel (height, width, output channels, input channels)."""

    def build(self, tensor_shape, name, layer):
        return super().build((*tensor_shape[:2], tensor_shape[3], tensor_shape[2]), name, layer)

    def __call__(self, inputs, training, weights, **kwargs):
        turned = super().__call__(tf.transpose(inputs, (0, 1, 3, 2)), training, weights, **kwargs)
        return tf.transpose(turned, (0, 1, 3, 2))


class DepthwiseConfig(default_8bit_quantize_registry.Default8BitConvQuantizeConfig):
    """tfmot's treatment of a convolution, with the quantizer above for the kernel."""

    def __init__(self, weight_attrs=("depthwise_kernel",), activation_attrs=("activation",), quantize_output=False):
        super().__init__(list(weight_attrs), list(activation_attrs), quantize_output)
        self.weight_quantizer = DepthwiseQuantizer(8, per_axis=True, symmetric=True, narrow_range=True)


class KernelConfig(default_8bit_quantize_registry.Default8BitQuantizeConfig):
    """tfmot's treatment of a layer of weights, with `num_bits` (4) for the kernel and a range for every output channel
    (per_axis, True) or for all together. transposed (False): whether the kernel has its output channels last but one."""

    def __init__(self, weight_attrs=("kernel",), activation_attrs=("activation",), quantize_output=False, **own):
        super().__init__(list(weight_attrs), list(activation_attrs), quantize_output)
        self.own = {"num_bits": 4, "per_axis": True, "transposed": False, **own}
        kind = TransposeQuantizer if self.own["transposed"] else LastValueQuantizer
        self.weight_quantizer = kind(self.own["num_bits"], self.own["per_axis"], symmetric=True, narrow_range=True)

    def get_config(self):
        return {**super().get_config(), **self.own}


TFMOTS_OWN = default_8bit_quantize_registry.Default8BitQuantizeRegistry()
# What tfmot's wrapper for activations knows; others are computed in float32.
KNOWN_ACTIVATIONS = ("linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh", "NoOpActivation")
_AS_LAYER = "write it as a layer, as Add() for a + b and Activation('swish') for tf.nn.silu, or as a class of your own"
NOT_WRAPPED = {
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda", "Lambda"), _AS_LAYER),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), "write it as a DepthwiseConv2D and a Conv2D of 1 x 1"),
}


class _PerChannelRegistry(default_8bit_quantize_registry.Default8BitQuantizeRegistry):
    """tfmot's own, per-channel for depthwise kernels too; and what it does not know is left in float32, not refused."""

    def __init__(self, kernel_bits):
        super().__init__()
        self.kernel_bits = kernel_bits

    def supports(self, layer):
        return True

    def get_quantize_config(self, layer):
        if isinstance(layer, tf.keras.layers.MultiHeadAttention):
            return default_8bit_quantize_configs.NoOpQuantizeConfig()  # tfmot asks it for a shape, without all inputs
        if in_float(layer):
            # Its output is quantized all the same: else the converter may multiply it into kernels that were trained without.
            return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
        if isinstance(layer, tf.keras.layers.DepthwiseConv2D):
            return DepthwiseConfig()
        if self.kernel_bits != 8 and isinstance(layer, (tf.keras.layers.Conv2D, tf.keras.layers.Dense)):
            turned = isinstance(layer, tf.keras.layers.Conv2DTranspose)
            return KernelConfig(num_bits=self.kernel_bits, transposed=turned)
        return super().get_quantize_config(layer)


def in_float(layer):
    """Whether tfmot cannot train a layer with fake quantization, so that it stays in float32.

    Batch norms behind a convolution are not meant: tfmot treats the two as one.
    """
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__) if activation is not None else "linear"
    return not TFMOTS_OWN.supports(layer) or name not in KNOWN_ACTIVATIONS or isinstance(layer, tf.keras.layers.RNN)


class PerChannelScheme(tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme):
    """tfmot's default int8 scheme, per-channel for depthwise kernels too: `quantize_apply(annotated, PerChannelScheme())`.

    kernel_bits: of the kernels of convolutions and dense layers; depthwise kernels keep 8, since the
    quantizer passes over them at 4. The converter has no public option for 4; `requantize.apply` makes the file of a model trained at 4.
    """

    def __init__(self, kernel_bits=8):
        super().__init__()
        self.kernel_bits = kernel_bits

    def get_quantize_registry(self):
        return _PerChannelRegistry(self.kernel_bits)

    def get_layout_transformer(self):
        return _LayoutInOrder()


class _InOrder(model_transformer.ModelTransformer):
    """tfmot's own takes the inputs of a layer in the order in which the model lists its layers, and one that is read twice but
    once: a Concatenate then puts its inputs together in another order, without a word."""

    def _get_layers(self, layer_names):
        if not self._is_functional_model(self.model):
            return super()._get_layers(layer_names)  # a chain is mended at the first of these, so that must come first
        found = {layer["config"]["name"]: layer for layer in self._config["layers"]}
        return [found[name] for name in layer_names]

    def _match_layer_with_inputs(self, layer, pattern, is_head_node):
        linked = pattern.inputs and layer.get("inbound_nodes")
        names = self._get_input_layer_names(layer) if linked else []
        if len(set(names)) < len(names):
            return None  # its transformations would take a layer out twice; without them it is right as well
        return super()._match_layer_with_inputs(layer, pattern, is_head_node)


class _LayoutInOrder(default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform):
    """tfmot's own transformations, each input in its place."""

    def apply(self, model, layer_quantize_map):
        theirs = model_transformer.ModelTransformer
        model_transformer.ModelTransformer = _InOrder  # their list of transformations is to be had in no other way
        try:
            return super().apply(model, layer_quantize_map)
        finally:
            model_transformer.ModelTransformer = theirs


class _LayoutAsItIs(default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform):
    """tfmot's own replaces the configuration of every layer before a ReLU, even one given by hand, by one that does
    nothing."""

    def apply(self, model, layer_quantize_map):
        transforms = [default_8bit_transforms.InputLayerQuantize()]
        layers = set(layer_quantize_map), layer_quantize_map
        return model_transformer.ModelTransformer(model, transforms, *layers).transform()


class _AsAnnotated(tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme):
    def get_layout_transformer(self):
        return _LayoutAsItIs()


def scope():
    """A context in which Keras can load a model that PerChannelScheme quantized."""
    own = (DepthwiseConfig, DepthwiseQuantizer, KernelConfig, TransposeQuantizer)
    return tfmot.quantization.keras.quantize_scope({kind.__name__: kind for kind in own})


def _layers_of(model):
    """A context in which Keras knows the layers of a model, those of its author's too."""
    return tf.keras.utils.custom_object_scope({type(layer).__name__: type(layer) for layer in model.layers})


def quantization_aware(model, kernel_bits=8, keep_float=()):
    """`tfmot.quantization.keras.quantize_model(model)` under PerChannelScheme(kernel_bits); the model itself is left as it is.

    keep_float: names of layers whose weights are trained in float32; the activations around them are quantized. `convert`
    quantizes such weights all the same: take them out (`without_fake_quantization`) and let `requantize` make the file.
    Raises ValueError for a layer that does not exist, and for one that tfmot cannot wrap.
    """
    if unknown := sorted(set(keep_float) - {layer.name for layer in model.layers}):
        raise ValueError(f"keep_float names {unknown[0]!r}, which is no layer of this model.")
    if whole := [each for each in model.inputs if not each.dtype.is_floating]:
        raise ValueError(
            f"input {whole[0].name} takes {whole[0].dtype.name}: tfmot quantizes every input, and can only quantize real numbers. "
            "Train the part of the model behind it."
        )
    _check_layers(model)
    float_parts = _float_parts(model, keep_float)

    with scope(), _layers_of(model):
        if keep_float:
            annotate = tfmot.quantization.keras.quantize_annotate_layer
            annotated = tf.keras.models.clone_model(
                _copy(model), clone_function=lambda layer: annotate(layer, float_parts.get(layer.name))
            )
        else:
            annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        return tfmot.quantization.keras.quantize_apply(annotated, PerChannelScheme(kernel_bits))


def _float_parts(model, keep_float):
    """Layer name -> its configuration, for each layer to keep in float and the batch norm behind it: the last of them
    quantizes its output, unless a ReLU layer comes that does."""
    parts, configs = {}, default_8bit_quantize_configs
    for layer in map(model.get_layer, keep_float):
        followers = _followers(layer)
        if len(followers) == 1 and isinstance(followers[0], tf.keras.layers.BatchNormalization):
            parts[layer.name] = configs.NoOpQuantizeConfig()
            layer, followers = followers[0], _followers(followers[0])
        read_as_it_is = any(not isinstance(follower, tf.keras.layers.ReLU) for follower in followers)
        parts[layer.name] = (configs.Default8BitOutputQuantizeConfig if read_as_it_is else configs.NoOpQuantizeConfig)()
    return parts


def _calls(model):
    """Name of each layer -> what it puts out, a tensor for every place where this model uses it."""
    found = {}
    for node in _nodes(model):
        found.setdefault(node.outbound_layer.name, []).extend(tf.nest.flatten(node.outputs))
    return found


def _nodes(model):
    """Every use of a layer in this model; a layer's own nodes may belong to other models as well."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def _before_activation(model, name):
    """What a layer's own activation is applied to, a tensor for every place where the model uses the layer."""
    layer = model.get_layer(name)
    linear = type(layer).from_config({**layer.get_config(), "activation": "linear", "name": f"{name}_linear"})
    if isinstance(layer, tf.keras.layers.Activation):
        linear = tf.keras.layers.Activation("linear", name=f"{name}_linear")
    inputs = [tf.nest.flatten(node.keras_inputs)[0] for node in _nodes(model) if node.outbound_layer is layer]
    outputs = [linear(each) for each in inputs]
    linear.set_weights(layer.get_weights())
    return outputs


def _followers(layer):
    return [node.outbound_layer for node in layer.outbound_nodes]


def quantization_aware_per_tensor(model):
    """A quantization-aware copy of a model without batch norms in which every kernel has one range, as
    `convert(..., per_channel=False)` gives it.

    `Default8BitQuantizeScheme(disable_per_axis=True)` does not do that in tfmot 0.8: it leaves kernels before a batch norm
    in float32, and those before a ReLU layer without fake quantization. Raises ValueError for a batch norm.
    """
    if norms := [layer.name for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]:
        raise ValueError(f"layer {norms[0]} is a batch norm: fold_batch_norms(model) first.")
    kernels = {tf.keras.layers.DepthwiseConv2D: "depthwise_kernel", tf.keras.layers.Conv2D: "kernel"}

    def annotated(layer):
        attribute = next((name for kind, name in kernels.items() if isinstance(layer, kind)), None)
        if attribute is None:
            return tfmot.quantization.keras.quantize_annotate_layer(layer)
        before_relu = any(isinstance(follower, tf.keras.layers.ReLU) for follower in _followers(layer))
        config = KernelConfig([attribute], [] if before_relu else ["activation"], num_bits=8, per_axis=False)
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    with scope(), _layers_of(model):
        twin = tf.keras.models.clone_model(_copy(model), clone_function=annotated)
        return tfmot.quantization.keras.quantize_apply(twin, _AsAnnotated())


def without_fake_quantization(qat_model, float_model, into=None):
    """A copy of the float model with the weights that quantization-aware training gave its layers.

    into: a former result, to be filled again and returned; converting it again is quicker than converting a new one.
    """
    twin = into or tf.keras.models.clone_model(float_model)
    found = {layer.name.removeprefix("quant_"): layer for layer in qat_model.layers}
    for layer in twin.layers:
        trained = collections.defaultdict(list)  # a Bidirectional has two of each name
        for weight in found.get(layer.name, layer).weights:
            trained[_base_name(weight)].append(weight.numpy())
        layer.set_weights([trained[_base_name(weight)].pop(0) for weight in layer.weights])
    return twin


def start_calibrated(qat_model, float_model, calibration, batch=100):
    """Set every range of a quantization-aware model from a calibration set, so that it begins where PTQ ends.

    tfmot starts all activation ranges at [-6, 6] and lets them follow the batches with a decay of 0.999, so a short
    fine-tuning is spent on ranges instead of weights. Here activations get the smallest and largest value that the
    float model shows on the calibration set, which is what the converter's PTQ uses, and kernels get the range of their
    weights. A layer that is used in several places has one range in tfmot, which here holds what it shows in all of them.

    qat_model: what `tfmot.quantization.keras.quantize_model(float_model)` returned; changed in place and returned.
    calibration: float32 (samples, ...), shown in parts of `batch`; for a model of several inputs a list with such an array
    for each, in the order of `float_model.inputs`. Raises ValueError for an ill-fitting set, and for a layer that tfmot splits.
    """
    _check_layers(float_model)
    samples = list(calibration) if len(float_model.inputs) > 1 else [calibration]
    samples = [_checked(each, tensor.shape) for each, tensor in zip(samples, float_model.inputs, strict=True)]
    wrappers = {
        layer.name.removeprefix("quant_"): layer for layer in qat_model.layers if hasattr(layer, "quantize_config")
    }
    behind, before = _calls(float_model), functools.partial(_before_activation, float_model)
    ranged = {  # (layer, which of its ranges) -> what is to lie within
        (name, place): (before if place == "pre_activation" else behind.__getitem__)(name)
        for name, layer in wrappers.items()
        for place in ("output", "post_activation", "pre_activation")
        if _ranges(layer, place)
    }
    probe = tf.keras.Model(float_model.inputs, list(ranged.values()))
    lows, highs = np.zeros(len(ranged)), np.zeros(len(ranged))  # a range must hold zero, or padding could not be exact
    for start in range(0, len(samples[0]), batch):
        parts = [each[start : start + batch] for each in samples]
        outputs = probe(parts[0] if len(parts) == 1 else parts, training=False)
        lows = np.minimum(lows, [min(float(tf.reduce_min(call)) for call in each) for each in outputs])
        highs = np.maximum(highs, [max(float(tf.reduce_max(call)) for call in each) for each in outputs])
    for (name, place), low, high in zip(ranged, lows, highs, strict=True):
        variables = _ranges(wrappers[name], place)
        variables["min_var"].assign(low)
        variables["max_var"].assign(high)
    for layer in wrappers.values():
        for weight, quantizer, variables in layer._weight_vars:  # a mask too, where zeros are to be preserved
            quantizer(weight, True, weights=variables)
    for layer in qat_model.layers:
        if hasattr(layer, "quantizer") and layer.quantizer:  # of the model's input
            place = qat_model.input_names.index(tf.nest.flatten(layer.inbound_nodes[0].inbound_layers)[0].name)
            layer.quantizer(tf.constant(samples[place]), True, weights=_ranges(layer, layer.name))
    return qat_model


def hold_batch_statistics(qat_model, held=True):
    """Let the batch norms of a quantization-aware model use their moving statistics while training goes on; changes
    the model and returns it. Scale and shift are still trained (tfmot's wrappers do not freeze them).

    held: False lets them go. A model must be let go before it is saved: of a held batch norm the wrapper lists scale and
    shift twice, which .h5 refuses ("name already exists").
    """
    for layer in qat_model.layers:
        if isinstance(getattr(layer, "layer", None), tf.keras.layers.BatchNormalization):
            layer.layer.trainable = not held
    return qat_model


def _ranges(layer, name):
    """The two variables of one range of a tfmot wrapper, as its quantizers take them; None if it has no such range."""
    wanted = {f"{name}_{end}": f"{end}_var" for end in ("min", "max")}
    return {wanted[_base_name(each)]: each for each in layer.weights if _base_name(each) in wanted} or None


def _base_name(weight):
    return weight.name.split("/")[-1].split(":")[0]


def _copy(model):
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def _check_layers(model):
    """Raises ValueError for a layer that tfmot cannot wrap, or splits, so that no single one is left to give a range."""
    for layer in model.layers:
        if cure := NOT_WRAPPED.get(type(layer).__name__):
            raise ValueError(f"layer {layer.name}, a {type(layer).__name__}, cannot be wrapped by tfmot: {cure}.")


def _checked(calibration, input_shape):
    """A calibration set, float32. Raises ValueError unless it is finite samples of this shape (None, ...), at least one."""
    shape = tuple(input_shape)[1:]
    if calibration is None or np.size(calibration) == 0:
        raise ValueError(f"calibration is empty: give at least 1 sample of shape {shape}; 100 is usual.")
    if not tf.TensorShape(shape).is_compatible_with(np.shape(calibration)[1:]):
        taken = ", ".join(map(str, shape))
        raise ValueError(f"calibration has shape {np.shape(calibration)}: this model takes (samples, {taken}).")
    if not np.isfinite(found := np.asarray(calibration, "float32")).all():
        raise ValueError("calibration holds NaN or infinity: clean the samples first.")
    return found
