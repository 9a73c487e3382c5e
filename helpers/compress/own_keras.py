"""A user's own Keras model or SavedModel as a float32 `.tflite`: opened, frozen, converted. `own_model.load` is its front door."""

import contextlib
import re

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError, first_line
from helpers.compress import quantize
from helpers.compress.own_model import NO_KERAS, Model, able_to_run, ends
from helpers.networks import flatten, models, opening
from helpers.tflite import interpreting, rewrite

with runtime_env.quiet():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SINGLE = "It is converted for one sample at a time, since the converter takes no batches of it."
_OPERATOR = re.compile(r"'(tf\.\w+)' op")


def load(label, path, code=None, signature=None):
    """A `.keras` or `.h5` file, or the folder of a SavedModel, as an `own_model.Model`.

    label: what refusals call it. path: a Path. code, signature: as in `own_model.load`. Raises InputError as that does.
    """
    if path.is_dir():
        kind, model, graph, heads = _saved_model(label, path, signature)
    else:
        if signature is not None:
            raise InputError(f"{label} is a Keras file, which has no signatures: leave signature={signature!r} out.")
        model, graph = opening.keras_file(path, code), None
        heads = opening.output_names(model)
        kind = f"a model of Keras {2 if isinstance(model, tf.keras.Model) else 3}"
    _refuse_text(label, (getattr(model, "inputs", None) or ()) if model is not None else graph.inputs)
    keras, notes = None, []
    if model is not None:
        try:
            keras, notes = flatten.flat(model)
        except StructureError as problem:
            notes = [f"Pruning of channels, equalization and training are left out: {problem}"]
    graph, blob, more = _converted(label, graph, keras, model)
    blob = rewrite.with_output_names(blob, heads)
    if model is None:
        notes = [NO_KERAS.format(kind)]
    # A kernel has two axes or more; what scales or shifts has one.
    owners = (
        layer for layer in flatten.layers_of(keras or model) if any(len(weight.shape) > 1 for weight in layer.weights)
    )
    # The converter folds a normalization into the kernel before it and calls the operator by both.
    layers = tuple(layer.name for layer in owners if not type(layer).__name__.endswith("Normalization"))
    return Model(path.stem, kind, blob, graph, keras, *ends(blob), (*notes, *more), layers, model, heads)


def _saved_model(label, path, signature):
    """kind, Keras model or None, frozen graph or None (where there is a Keras model), and the names of the outputs."""
    with runtime_env.quiet():
        try:
            model = tf.keras.models.load_model(path, compile=False)
        except Exception:  # of Keras 3, or no Keras model at all
            model = None
        if isinstance(model, tf.keras.Model) and model.inputs and signature is None:
            opening.check_finite(model.weights, label)
            served = _signature(label, loaded, None) if (loaded := tf.saved_model.load(path)).signatures else None
            if served is None or _answers_alike(model, served):
                return "a SavedModel of Keras 2", model, None, opening.output_names(model)
        try:
            loaded = tf.saved_model.load(path)  # kept while its function is frozen: the variables are its own
        except Exception as error:  # a damaged protocol buffer, missing variables, ...
            raise InputError(
                f"{label} cannot be loaded as a SavedModel ({first_line(error)}): save it again."
            ) from error
        function = _signature(label, loaded, signature)
        opening.check_finite(function.variables, label)
        try:
            answers = function.structured_outputs
            heads = tuple(sorted(answers)) if isinstance(answers, dict) else ()
            return "a SavedModel without a Keras model", None, _frozen(function), heads
        except ValueError as error:  # what changes a variable while it answers has no place in a graph of constants
            raise InputError(
                f"{label} cannot be frozen ({first_line(error)}): something in it goes on changing its state, most "
                "likely random augmentation or dropout that was exported for training. Give the .keras file instead, or "
                "export the model without these layers."
            ) from error


def _answers_alike(model, function):
    """Whether a signature is the Keras model itself, by two samples, and does nothing before or after it."""
    random, specs = np.random.default_rng(0), function.structured_input_signature[1]
    if sorted(specs) != sorted(model.input_names):
        return False
    if any(spec.dtype == tf.string for spec in specs.values()):
        return True  # which is refused as text
    drawn = {
        name: tf.cast(random.uniform(0, 2, (spec.shape[0] or 2, *(side or 32 for side in spec.shape[1:]))), spec.dtype)
        for name, spec in specs.items()
    }
    try:
        ends = [drawn[name] for name in model.input_names]
        one = tf.nest.flatten(model(ends if len(ends) > 1 else ends[0], training=False))
        other = [each.numpy() for each in function(**drawn).values()]
    except (ValueError, tf.errors.OpError):
        return True  # of other open sizes, which nothing here can tell
    return len(one) == len(other) and all(
        any(each.shape == mine.shape and np.allclose(each, mine, rtol=1e-3, atol=1e-5) for mine in other)
        for each in one
    )


def _signature(label, loaded, name):
    """The concrete function of a SavedModel to be used."""
    known = dict(loaded.signatures)
    if name is not None and name not in known:
        raise InputError(f"{label}: it has no signature {name}: choose one of {', '.join(known) or 'none'}.")
    if name is None and "serving_default" in known:
        name = "serving_default"
    if name is None and len(known) == 1:
        [name] = known
    if name is not None:
        return known[name]
    if known:
        raise InputError(f"{label}: {interpreting.several(list(known))}.")
    try:
        functions = loaded.__call__.concrete_functions
    except AttributeError:
        functions = []
    for function in functions:
        if all(isinstance(each, tf.TensorSpec) for each in tf.nest.flatten(function.structured_input_signature)):
            return function
    raise InputError(
        f"{label} has no signature: save it with tf.saved_model.save(model, folder, signatures=function), where function = "
        "tf.function(model).get_concrete_function(tf.TensorSpec(shape, dtype))."
    )


def _frozen(function, batch=None):
    """A concrete function with its weights as constants, for a fixed batch if one is given."""
    if batch is not None:
        args, kwargs = tf.nest.map_structure(
            lambda spec: tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, spec.name),
            function.structured_input_signature,
        )
        called = function
        function = tf.function(lambda *x, **named: called(*x, **named)).get_concrete_function(*args, **kwargs)
    return convert_variables_to_constants_v2(function)


def _converted(label, graph, keras, model):
    """Frozen graph, float32 `.tflite` and notes. What the converter cannot do with an open batch it is asked again for single
    samples: recurrent layers need it. Of a copy whose file LiteRT cannot run (the masked means of Keras 2's group normalization)
    the original is tried first."""
    if graph is None:
        source = keras if keras is not None else model
        if not getattr(source, "inputs", None):
            raise InputError(
                f"{label} declares no inputs (it is subclassed, or was never built): save it as a SavedModel, with "
                "model.export(folder) in Keras 3 or tf.saved_model.save(model, folder) after it was called once."
            )
        graph = quantize.freeze(source) if isinstance(source, tf.keras.Model) else _frozen(models.inference(source))

        def alone():  # traced anew, since open sizes inside a function stay open
            return _frozen(models.inference(source, 1))
    else:
        function = graph

        def alone():
            return _frozen(function, 1)

    try:
        return graph, able_to_run(rewrite.with_signature(quantize.convert(graph))), []
    except StructureError as error:
        first = error
        other = keras is not None and not isinstance(model, tf.keras.Model)
        tries = [(lambda: _frozen(models.inference(model)), [])] if other else []
    except InputError:
        raise
    except Exception as error:  # the converter's own, of many classes
        first, tries = error, []
    for make, notes in (*tries, (alone, [SINGLE])):
        with contextlib.suppress(Exception):
            frozen = make()
            return frozen, able_to_run(rewrite.with_signature(quantize.convert(frozen))), notes
    raise InputError(f"{label} cannot be converted to .tflite ({_operators_at_fault(first)}).") from first


def _operators_at_fault(error):
    """What stopped the converter, in words instead of its listing of the graph."""
    text = str(error)
    if "TensorList" in text:
        return (
            "its recurrent layers run over their steps in a loop: give the .keras file, or make them with a fixed number of steps and "
            "unroll=True"
        )
    named = sorted(set(_OPERATOR.findall(text)))
    if named:
        return f"there is no kernel for {', '.join(named[:4])}"
    return first_line(error)


def _refuse_text(label, ends):
    """Raises InputError for inputs of text, by their dtypes."""
    if any("string" in str(getattr(end.dtype, "name", end.dtype)) for end in ends):
        raise InputError(
            f"{label} takes text, of which a .tflite knows nothing: save the part behind TextVectorization (or another layer "
            "that makes numbers of words) as a model of its own."
        )
