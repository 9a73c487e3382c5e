"""The way back from `flatten`: a model of Keras 3 takes over the widths and weights of its narrowed flat copy in Keras 2."""

from helpers.base import runtime_env
from helpers.base.errors import StructureError, first_line
from helpers.networks import flatten

with runtime_env.quiet():
    import keras  # Keras 3, which TensorFlow brings along

WIDTHS = ("filters", "units")  # what a layer's configuration calls the number of channels that it puts out


def narrowed(model, copy):
    """A model of Keras 3, not compiled, as narrow as `copy`: what `flatten.flat(model)` made, after `channels.narrow`.

    What `flatten` opened, split or left out is as in `model`: models inside the model, separable convolutions, augmentation,
    operators, mixed precision, regularizers, frozen layers. `model` itself does not change.
    Raises StructureError if Keras cannot build it anew, or it does not compute what `copy` does.
    """
    parts = flatten.parts(model)
    try:
        result = type(model).from_config(_config(model, parts, copy))
        for old, new in _pairs(model, result):
            if old.weights:
                new.set_weights([weight for name in parts[old] for weight in copy.get_layer(name).get_weights()])
            if hasattr(new, "finalize_state"):  # Normalization computes with what it made of its weights
                new.finalize_state()
    except Exception as error:  # layers, operators and shapes each raise their own
        raise StructureError(
            f"Keras 3 cannot build {model.name} anew ({first_line(error)}): classes of your own, if it has any, must be "
            "decorated with keras.saving.register_keras_serializable()."
        ) from error
    if (distance := flatten.difference(result, copy)) is not None:
        raise StructureError(f"Keras 3 would make {model.name} answer otherwise (by {distance:.2g}).")
    return result


def _config(model, parts, copy):
    """The configuration of a model, and of those inside it, with the widths of the copy's layers."""
    config, known = model.get_config(), {each.name: each for each in flatten.functional(model).operations}
    for entry in config["layers"]:
        layer, inner = known[entry.get("name") or entry["config"]["name"]], entry["config"]
        entry.pop("build_config", None)  # the former shapes
        if isinstance(layer, keras.Model):
            entry["config"] = _config(layer, parts, copy)
        elif isinstance(layer, keras.layers.InputLayer):
            feeding = copy.get_layer(parts[layer][0]).output
            if not isinstance(feeding, list):  # a layer of several outputs keeps its widths
                inner["batch_shape"] = (*layer.batch_shape[:-1], feeding.shape[-1])
        elif layer in parts:
            made = copy.get_layer(parts[layer][-1])
            inner |= {key: getattr(made, key) for key in WIDTHS if key in inner}
    return config


def _pairs(model, result):
    """Each layer of a model, and of those inside it, with that of the result."""
    for layer in model.layers:
        other = result.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            yield from _pairs(layer, other)
        else:
            yield layer, other
