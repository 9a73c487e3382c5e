"""Keras files of either Keras: loaded by the one that wrote them, with their author's code, or refused with a cure that works."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import own_model
from helpers.networks import opening
from helpers.tflite import litert
from tests import architectures

KITS = {"Keras 2": tf.keras, "Keras 3": keras}
X = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
CODES = {
    "tf.keras": architectures.CUSTOM_CODE,
    "from tensorflow": architectures.CUSTOM_CODE.replace(
        "import tensorflow as tf", "from tensorflow import keras"
    ).replace("tf.keras.", "keras."),
    "import keras": architectures.CUSTOM_CODE.replace("import tensorflow as tf", "import keras").replace(
        "tf.keras.", "keras."
    ),
    "layers": architectures.CUSTOM_CODE.replace(
        "import tensorflow as tf", "from tensorflow.keras.layers import Layer"
    ).replace("tf.keras.layers.Layer", "Layer"),
}


def saved(model, path):
    with runtime_env.quiet():
        model.save(path)
    return path


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_is_loaded_by_the_keras_that_wrote_it(kit, suffix, tmp_path):
    model = architectures.build("MLP", KITS[kit])
    loaded = opening.keras_file(saved(model, tmp_path / f"model{suffix}"))
    assert isinstance(loaded, KITS[kit].Model)
    x = architectures.samples(model, 4)[0]
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(model(x)))


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("style", CODES)
def test_the_authors_code_is_used_whichever_keras_it_names(kit, style, tmp_path):
    model = architectures.build("custom layer", KITS[kit])
    path = saved(model, tmp_path / "model.keras")
    code = tmp_path / "layers.py"
    code.write_text(CODES[style])
    own = own_model.load(path, code=code)
    np.testing.assert_allclose(litert.predict(own.file, X), np.asarray(model(X)), atol=1e-5)
    assert tf.keras is not keras and tf.keras.layers.Layer is not keras.layers.Layer


@pytest.mark.parametrize("kit", KITS)
def test_without_the_code_both_cures_work(kit, tmp_path):
    model = architectures.build("custom layer", KITS[kit])
    path = saved(model, tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"needs the class Scaled, .* \(--code\), or export the model as a SavedModel"):
        own_model.load(path)
    with runtime_env.quiet():
        if kit == "Keras 3":
            model.export(tmp_path / "exported", verbose=False)
        else:
            model.export(tmp_path / "exported")
    own = own_model.load(tmp_path / "exported")
    np.testing.assert_allclose(litert.predict(own.file, X), np.asarray(model(X)), atol=1e-5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("import nosuchmodule", r"cannot be run \(ModuleNotFoundError: No module named 'nosuchmodule'\)"),
        ("class Other: pass", "needs the class Scaled, which '.*' does not define: add it there"),
        ("def (", r"cannot be run \(SyntaxError"),
    ],
)
def test_code_that_does_not_help_is_named(text, message, tmp_path):
    path = saved(architectures.build("custom layer", keras), tmp_path / "model.keras")
    (tmp_path / "layers.py").write_text(text)
    with pytest.raises(InputError, match=message):
        own_model.load(path, code=tmp_path / "layers.py")
    assert tf.keras is not keras


@pytest.mark.parametrize(
    "kit, value, form",
    [
        ("Keras 2", np.nan, "keras"),
        ("Keras 2", np.inf, "saved model"),
        ("Keras 3", np.inf, "keras"),
        ("Keras 3", np.nan, "saved model"),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(kit, value, form, tmp_path):
    model = architectures.build("small CNN", KITS[kit])
    kernel = model.layers[0].kernel
    kernel.assign(np.full(kernel.shape, value))
    if form == "keras":
        path = saved(model, tmp_path / "model.keras")
    else:
        path = tmp_path / "model"
        with runtime_env.quiet():
            model.export(path)
    with pytest.raises(InputError, match=r"weights of .* hold NaN or infinity"):
        own_model.load(path)


def test_a_tflite_with_weights_that_are_not_finite_is_refused(tmp_path):
    model = architectures.build("small CNN", tf.keras)
    model.layers[0].kernel.assign(np.full(model.layers[0].kernel.shape, np.nan))
    with runtime_env.quiet():
        (tmp_path / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    with pytest.raises(InputError, match=r"weights of .* hold NaN or infinity: convert the model again"):
        own_model.load(tmp_path / "model.tflite")


# --- SavedModels


class Doubled(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="values")])
    def double(self, values):
        return {"twice": 2 * values}

    @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32)])
    def __call__(self, values):
        return 3 * values


@pytest.mark.parametrize(
    "signatures, asked, factor",
    [
        ({"serving_default": "double", "other": "__call__"}, None, 2),
        ({"mine": "double"}, None, 2),
        ({"mine": "double", "other": "__call__"}, "other", 3),
        ({}, None, 3),
    ],
)
def test_the_signature_that_was_meant_is_used(signatures, asked, factor, tmp_path):
    module = Doubled()
    with runtime_env.quiet():
        tf.saved_model.save(
            module, tmp_path, {name: getattr(module, function) for name, function in signatures.items()}
        )
    own = own_model.load(tmp_path, signature=asked)
    np.testing.assert_allclose(litert.predict(own.file, X), factor * X, rtol=1e-6)


def test_several_signatures_are_listed_and_one_is_chosen(tmp_path):
    module = Doubled()
    with runtime_env.quiet():
        tf.saved_model.save(module, tmp_path, {"one": module.double, "two": module.__call__})
    with pytest.raises(InputError, match=r": it has 2 signatures \(one, two\): name one, as in --signature one\.$"):
        own_model.load(tmp_path)
    with pytest.raises(InputError, match=": it has no signature three: choose one of one, two"):
        own_model.load(tmp_path, signature="three")
    assert own_model.load(tmp_path, signature="two").outputs[0].shape == (8,)


def test_without_any_function_the_cure_works(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    tf.saved_model.save(module, tmp_path / "bare")
    with pytest.raises(
        InputError, match=r"has no signature: save it with tf\.saved_model\.save\(model, folder, signatures="
    ):
        own_model.load(tmp_path / "bare")
    model = tf.keras.layers.Dense(2)
    function = tf.function(model).get_concrete_function(tf.TensorSpec((None, 8), tf.float32))
    tf.saved_model.save(model, str(tmp_path / "cured"), signatures=function)
    assert own_model.load(tmp_path / "cured").outputs[0].shape == (2,)


@pytest.mark.parametrize("kit", KITS)
def test_a_subclassed_model_is_told_how_to_be_saved_and_then_loads(kit, tmp_path):
    model = architectures.build("subclassed", KITS[kit])
    code = tmp_path / "layers.py"
    code.write_text(
        "import tensorflow as tf\nclass Subclassed(tf.keras.Model):\n    def call(self, x):\n        return x\n"
    )
    with runtime_env.quiet():
        model.export(tmp_path / "exported") if kit == "Keras 3" else tf.saved_model.save(
            model, str(tmp_path / "exported")
        )
    own = own_model.load(tmp_path / "exported")
    np.testing.assert_allclose(litert.predict(own.file, X), np.asarray(model(X)), atol=1e-5)


BLOCK = """
import tensorflow as tf
from tensorflow.keras.utils import register_keras_serializable

@register_keras_serializable(package="mine")
class Block(tf.keras.layers.Layer):
    def __init__(self, units, **settings):
        super().__init__(**settings)
        self.units, self.inner = units, tf.keras.layers.Dense(units)
    def build(self, shape):
        self.inner.build(shape)
        self.built = True
    def call(self, x):
        return tf.keras.activations.relu(self.inner(x))
    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""


def test_layers_inside_an_authors_own_have_the_weights_of_the_file_of_either_keras(tmp_path):
    """Its code says tf.keras also where a layer is made and called, long after it was read; and one file follows another."""
    (tmp_path / "block.py").write_text(BLOCK)
    former, answers = {name for name in sys.modules if "keras" in name}, {}
    for name, kit in KITS.items():
        block = opening._classes(tmp_path / "block.py", kit)["Block"]
        source = kit.layers.Input((8,))
        model = kit.Model(source, kit.layers.Dense(3)(block(5)(source)))
        model.save(tmp_path / f"{name}.keras")
        answers[name] = np.asarray(model(X))
    for name in (*KITS, *KITS):
        own = own_model.load(tmp_path / f"{name}.keras", code=tmp_path / "block.py")
        np.testing.assert_allclose(litert.predict(own.file, X), answers[name], atol=1e-5)
    assert not {name for name in sys.modules if name.startswith("tensorflow.keras")} - former
    assert sys.modules["tensorflow"] is tf and sys.modules["keras"].__version__.startswith("3")
