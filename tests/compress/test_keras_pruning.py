"""The callback that prunes Keras 3: shares and patterns of zeros, as tfmot's schedule has them, into the file."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.compress import keras_pruning, own_model, requantize
from helpers.tflite import litert


def network():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = layers.Input((8, 8, 4))
    x = layers.DepthwiseConv2D(3, name="deep")(layers.Conv2D(8, 3, activation="relu", name="wide")(inputs))
    inner = keras.Sequential([layers.Input((8,)), layers.Dense(8, "relu", name="hidden")], name="inner")
    x = inner(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3, name="answer")(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


random = np.random.default_rng(0)
X, Y = random.normal(size=(160, 8, 8, 4)).astype("float32"), random.integers(0, 3, 160)


def kernel(model, name):
    return keras.ops.convert_to_numpy(model.get_layer(name).kernel)


def test_a_share_grows_with_tfmots_schedule_and_is_kept():
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import PolynomialDecay

    model, seen = network(), []
    pruning = keras_pruning.Pruning(0.75, begin=4, end=24, every=5)
    told = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((kernel(model, "wide") == 0).mean())
    )
    model.fit(X, Y, 16, 4, verbose=0, callbacks=[pruning, told])  # 40 steps
    decay = PolynomialDecay(0.0, 0.75, 4, 24, frequency=5)
    for step in (9, 14, 19, 24, 40):
        assert seen[step - 1] == pytest.approx(float(decay(tf.constant(min(step, 24)))[1]), abs=1 / 288)
    assert (kernel(model, "deep") != 0).all() and len(pruning.masks) == 3
    assert (kernel(model, "answer") == 0).mean() == 0.75
    assert (kernel(model.get_layer("inner"), "hidden") == 0).mean() == 0.75


def test_a_pattern_is_in_the_int8_file(tmp_path):
    model = network()
    pruning = keras_pruning.Pruning("2:4", end=10, every=2)
    model.fit(X, Y, 16, 2, verbose=0, callbacks=[pruning])
    assert pruning.left == []
    model.save(tmp_path / "model.keras")
    own = own_model.load(tmp_path / "model.keras")
    file = requantize.apply(own.file, {"*": requantize.Format()}, requantize.calibrate(own.file, X))
    kernels = litert.kernels_in(file)
    for row in kernels[kernels["op"] != "DEPTHWISE_CONV_2D"].itertuples():
        assert (np.count_nonzero(row.integers.reshape(-1, 4), axis=1) <= 2).all()


def test_weights_that_are_put_back_at_the_end_keep_their_zeros():
    """Those of an epoch in which few were zero."""
    model = network()
    back = keras.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)  # the first epoch's
    pruning = keras_pruning.Pruning(0.75, end=30, every=5)
    model.fit(X, Y, 16, 4, verbose=0, callbacks=[back, pruning])
    assert back.best_epoch == 0 and (kernel(model, "wide") == 0).mean() == 0.75


@pytest.mark.parametrize("kind", ["Conv2DTranspose", "SeparableConv2D"])
def test_a_pattern_lies_along_the_inputs_of_any_kernel(kind):
    inputs = keras.layers.Input((8, 8, 8))
    model = keras.Model(inputs, keras.layers.Flatten()(getattr(keras.layers, kind)(6, 3, name="it")(inputs)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruning = keras_pruning.Pruning("2:4", end=10, every=2)
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(32, 8, 8, 8)), random.integers(0, 3, 32), 16, 1, verbose=0, callbacks=[pruning])
    layer = model.get_layer("it")
    if kind == "Conv2DTranspose":  # (height, width, outputs, inputs)
        along = keras.ops.convert_to_numpy(layer.kernel)
    else:  # (1, 1, inputs, outputs)
        along = np.moveaxis(keras.ops.convert_to_numpy(layer.pointwise_kernel), -2, -1)
        assert (keras.ops.convert_to_numpy(layer.depthwise_kernel) != 0).all()
    assert pruning.left == [] and set(np.count_nonzero(along.reshape(-1, 4), axis=1)) == {2}


def test_what_a_pattern_does_not_fit_is_told():
    inputs = keras.layers.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4, name="odd")(inputs)))
    model.compile("sgd", "mse")
    pruning = keras_pruning.Pruning("2:4")
    model.fit(X[:, 0, 0, [0, 1, 2, 3, 0, 1]], np.zeros((160, 3)), verbose=0, callbacks=[pruning])
    assert [path.split("/")[-1] for path in pruning.left] == ["odd"]
    with pytest.raises(ValueError, match="no layer to be pruned"):
        model.fit(
            X[:, 0, 0, [0, 1, 2, 3, 0, 1]], np.zeros((160, 3)), verbose=0, callbacks=[keras_pruning.Pruning("3:5")]
        )


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1.0}, {"sparsity": "4:2"}, {"sparsity": "much"}, {"begin": 9, "end": 9}]
)
def test_what_is_no_sparsity_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must"):
        keras_pruning.Pruning(**{"sparsity": 0.5, **wrong})


def test_the_file_runs_in_a_project_without_the_lab(tmp_path):
    shutil.copy(keras_pruning.__file__, tmp_path)
    code = "import keras_pruning, sys; assert 'helpers' not in sys.modules; keras_pruning.Pruning(0.5)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


NAMES = ("dense", "dense_1", "dense_2")  # as Keras gives them


def test_layers_of_one_path_are_all_pruned():
    """Two towers of one function have the same names inside."""
    layers = keras.layers

    def tower(name):
        source = answer = keras.Input((8,))
        for layer in NAMES:
            answer = layers.Dense(8, name=layer)(answer)
        return keras.Model(source, answer, name=name)

    source = keras.Input((8,))
    model = keras.Model(source, tower("b")(tower("a")(source)))
    model.compile("sgd", "mse")
    pruning = keras_pruning.Pruning(0.5, end=10, every=1)
    model.fit(X.reshape(-1, 8)[:64], np.zeros((64, 8)), 4, verbose=0, callbacks=[pruning])
    assert [(kernel(model.get_layer(tower), name) == 0).mean() for tower in "ab" for name in NAMES] == [0.5] * 6
    assert len(pruning.masks) == 6


def test_kernels_that_other_layers_hold_are_pruned_or_told():
    layers = keras.layers
    source = layers.Input((5, 8))
    attended = layers.MultiHeadAttention(2, 4)(source, source)
    model = keras.Model(source, layers.TimeDistributed(layers.Dense(8))(attended))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(16, 5, 8)).astype("float32")
    share, pattern = keras_pruning.Pruning(0.5, end=4, every=1), keras_pruning.Pruning("2:4", end=4, every=1)
    for pruning in (share, pattern):
        model.fit(x, x, 4, verbose=0, callbacks=[pruning])
    assert len(share.masks) == 5 and not share.left
    assert len(pattern.masks) == 1 and len(pattern.left) == 4


@pytest.mark.parametrize("batches", [3, 7, 20])
def test_several_batches_at_a_call_are_several_steps(batches):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="only")])
    model.compile("sgd", "mse", steps_per_execution=batches)
    pruning = keras_pruning.Pruning(0.75, end=40, every=10)
    model.fit(X.reshape(-1, 8)[:40], np.zeros((40, 8)), 4, epochs=4, verbose=0, callbacks=[pruning])
    assert pruning.step == 40 and (kernel(model, "only") == 0).mean() == 0.75
