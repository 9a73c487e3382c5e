"""Training a `.tflite`: it learns from its own answers or from labels, keeps zeros, resumes, and the file is what was trained."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, quantize, requantize, tflite_pruning, tflite_training
from helpers.networks import checkpoints, data, models
from helpers.tflite import litert

ROUGH = requantize.Format(4, 8, per_channel=False)


@pytest.fixture(scope="module")
def residual():
    """A float file, 200 images to train on, and 300 others with labels."""
    fashion = data.load("fashion8k")
    images = (
        models.network_input(fashion.x_train[:200], 32).numpy(),
        models.network_input(fashion.x_test[:300], 32).numpy(),
    )
    return quantize.convert(quantize.freeze(checkpoints.load("resnet8_fashion_32"))), *images, fashion


@pytest.fixture(scope="module")
def small():
    """A float file of two dense layers and a softmax, and samples of three classes."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    inputs = layers.Input((8,))
    model = tf.keras.Model(inputs, layers.Dense(3, "softmax")(layers.Dense(16, "relu")(inputs)))
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 240)
    x = (random.normal(size=(3, 8))[y] + 1.2 * random.normal(size=(240, 8))).astype("float32")
    return quantize.convert(model), x, y


def right(file, x, y):
    return (litert.predict(file, x).argmax(1) == y).mean()


def test_it_learns_from_its_own_answers_without_labels(residual):
    file, images, others, _ = residual
    aware = tflite_training.quantization_aware(file, images[:100], ROUGH)
    before, exact = aware.quantized(), litert.predict(file, others)
    history = tflite_training.train(aware, images, steps=60, learning_rate=1e-3)
    after = aware.quantized()
    answers = litert.predict(after, others)
    assert affine.sqnr(exact, answers) > affine.sqnr(exact, litert.predict(before, others)) + 5
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] / 2 and history["step"].iloc[-1] == 60
    # The file that is made of it answers as what was trained.
    [simulated] = aware.forward(others)
    assert (simulated.numpy().argmax(1) == answers.argmax(1)).mean() >= 0.99


def test_a_restart_trains_as_the_first_time(small):
    file, x, _ = small
    aware, made = tflite_training.quantization_aware(file, x[:50], ROUGH), []
    for samples in (x, x[:100], x):
        tflite_training.train(aware.restart(), samples, steps=10, learning_rate=1e-2)
        made.append(aware.float32())
    assert made[0] == made[2] != made[1]
    fresh = tflite_training.quantization_aware(file, x[:50], ROUGH)
    tflite_training.train(fresh, x, steps=10, learning_rate=1e-2)
    assert fresh.float32() == made[0]


@pytest.mark.parametrize("loss", tflite_training.LOSSES)
def test_labels_and_both_losses(small, loss):
    file, x, y = small
    aware = tflite_training.quantization_aware(file, x[:50])
    tflite_training.train(
        aware, x[:160], y[:160], steps=100, learning_rate=1e-2, selection=x[160:200], selection_y=y[160:200]
    )
    trained = aware.float32()
    assert right(trained, x[200:], y[200:]) > 0.6 > right(file, x[200:], y[200:])
    rough = tflite_training.quantization_aware(trained, x[:50], ROUGH)
    exact, before = litert.predict(trained, x[160:]), rough.quantized()
    tflite_training.train(rough, x[:160], steps=80, learning_rate=1e-2, loss=loss)
    assert affine.sqnr(exact, litert.predict(rough.quantized(), x[160:])) > affine.sqnr(
        exact, litert.predict(before, x[160:])
    )


def test_the_best_on_selection_data_stays(small):
    file, x, y = small
    aware = tflite_training.in_float(file)
    history = tflite_training.train(
        aware, x[:20], y[:20], steps=100, learning_rate=0.05, selection=x[100:], selection_y=y[100:]
    )
    answers = litert.predict(aware.float32(), x[100:])
    found = -np.log(np.maximum(answers[np.arange(140), y[100:]], 1e-30)).mean()
    assert found == pytest.approx(history["selection"].min(), rel=1e-3) and history["selection"].iloc[-1] > found


def test_a_share_of_zeros_grows_as_tfmot_lets_it_grow():
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import PolynomialDecay

    kernel = tf.constant(np.random.default_rng(0).normal(size=(50, 40)).astype("float32"))
    decay = PolynomialDecay(0.0, 0.8, 0, 100)
    for step in (0, 10, 50, 100):
        mask = tflite_pruning.Share(0.8).mask(kernel, tf.constant(step / 100))
        assert 1 - mask.numpy().mean() == pytest.approx(float(decay(tf.constant(step))[1]), abs=1e-3)
        kept = np.abs(kernel)[mask.numpy() == 1]
        assert kept.min() >= np.abs(kernel)[mask.numpy() == 0].max(initial=0)


def test_a_pattern_keeps_the_largest_of_neighbours():
    kernel = tf.constant([[3.0, -4.0, 1.0, 2.0, 0.0, 0.0, 0.0, 5.0]])
    np.testing.assert_array_equal(tflite_pruning.Pattern(2, 4).mask(kernel, 1.0), [[1, 1, 0, 0, 1, 0, 0, 1]])


@pytest.mark.parametrize("sparsity", [0.6, "2:4"])
def test_zeros_are_kept_by_training_and_by_the_quantized_file(residual, sparsity):
    file, images, others, _ = residual
    aware = tflite_training.quantization_aware(file, images[:100])
    _, left = tflite_pruning.sparse(aware, sparsity)
    assert left == ([] if sparsity == 0.6 else [left[0]])  # of the first layer, which reads 3 channels
    tflite_training.train(aware, images, steps=20)
    for row in litert.kernels_in(aware.quantized()).itertuples():
        if sparsity == "2:4":
            if row.integers.shape[-1] % 4 == 0:
                assert (np.count_nonzero(row.integers.reshape(-1, 4), axis=1) <= 2).all()
        else:
            assert (row.integers == 0).mean() >= 0.6 - 1 / row.integers.size
    assert affine.sqnr(litert.predict(file, others), litert.predict(aware.quantized(), others)) > 3


def test_a_stopped_training_goes_on_where_it_was(small, tmp_path):
    file, x, _ = small
    kept = tmp_path / "kept.npz"

    def trained(progress, path, learning_rate=1e-2):
        aware = tflite_training.quantization_aware(file, x[:50], ROUGH)
        tflite_pruning.sparse(aware, 0.5)
        tflite_training.train(
            aware, x, steps=40, learning_rate=learning_rate, selection=x[:40], kept=path, progress=progress
        )
        return aware.float32()

    def stopping(steps):
        for step in steps:
            if step == 30:
                raise KeyboardInterrupt
            yield step

    whole = trained(iter, None)
    with pytest.raises(KeyboardInterrupt):
        trained(stopping, kept)
    assert kept.is_file()
    seen = []
    assert trained(lambda steps: (seen.append(step) or step for step in steps), kept) == whole
    assert not kept.exists()
    with pytest.raises(KeyboardInterrupt):
        trained(stopping, kept)
    assert trained(iter, kept, 2e-2) != whole  # another training does not go on from it
    kept.write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"cannot be read .+ remove it to begin anew"):
        trained(iter, kept)
    kept.unlink()
    assert trained(iter, kept) == whole


@pytest.mark.parametrize("other", ["selection", "calibration", "weights"])
def test_a_stopped_training_begins_anew_where_anything_is_another(small, tmp_path, other):
    file, x, _ = small
    kept = tmp_path / "kept.npz"

    def stopping(steps):
        for step in steps:
            if step == 30:
                raise KeyboardInterrupt
            yield step

    def trained(path, progress=iter, changed=None):
        aware = tflite_training.quantization_aware(file, (9 if changed == "calibration" else 1) * x[:50], ROUGH)
        if changed == "weights":
            for weight in aware.graph.weights.values():
                weight.assign(0.9 * weight)
        selection = (5 if changed == "selection" else 1) * x[:40]
        tflite_training.train(aware, x, steps=40, learning_rate=1e-2, selection=selection, kept=path, progress=progress)
        return aware.float32()

    with pytest.raises(KeyboardInterrupt):
        trained(kept, stopping)
    assert kept.is_file() and trained(kept, changed=other) == trained(None, changed=other)


def test_a_smaller_rate_helps_after_one_that_was_too_large(small):
    """In the same process: the weights are as they were."""
    file, x, _ = small
    aware = tflite_training.in_float(file)
    before = aware.float32()
    with pytest.raises(InputError, match=r"take a smaller learning_rate than 1e.30"):
        tflite_training.train(aware, x, steps=20, learning_rate=1e30)
    assert aware.float32() == before
    assert tflite_training.train(aware, x, steps=20, learning_rate=1e-3)["loss"].iloc[-1] < 0.1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_however_few_steps_leave_the_share_of_zeros(small, steps):
    file, x, _ = small
    aware = tflite_training.in_float(file)
    tflite_pruning.sparse(aware, 0.5)
    tflite_training.train(aware, x, steps=steps)
    assert {(of.numpy() == 0).mean() for of in aware.graph.weights.values() if len(of.shape) == 2} == {0.5}


@pytest.mark.parametrize("named", [lambda shares: tf.argmax(shares, -1, tf.int32), lambda shares: shares > 0.5])
def test_an_output_that_no_weight_reaches_is_not_learned(named):
    random = np.random.default_rng(0)
    weights = tf.constant(random.normal(size=(6, 5)).astype("float32"))

    def answered(x):
        shares = tf.nn.softmax(x @ weights)
        return {"shares": shares} if beside is None else {"shares": shares, "named": beside(shares)}

    x, losses = random.normal(size=(80, 6)).astype("float32"), []
    for beside in (named, None):  # noqa: B007, which `answered` reads
        file = quantize.convert(tf.function(answered).get_concrete_function(tf.TensorSpec((None, 6), tf.float32)))
        aware = tflite_training.quantization_aware(file, x, ROUGH)
        losses.append(list(tflite_training.train(aware, x, steps=40, learning_rate=1e-3)["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_several_inputs_and_outputs():
    layers = tf.keras.layers
    left, right_ = layers.Input((6,), name="left"), layers.Input((4,), name="right")
    x = layers.Concatenate()([layers.Dense(8, "relu")(left), layers.Dense(8, "relu")(right_)])
    model = tf.keras.Model(
        [left, right_], [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="size")(x)]
    )
    file, random = quantize.convert(model), np.random.default_rng(0)
    samples = {
        "left": random.normal(size=(80, 6)).astype("float32"),
        "right": random.normal(size=(80, 4)).astype("float32"),
    }
    aware = tflite_training.quantization_aware(file, samples, ROUGH)
    x = [samples[name] for name in aware.graph.inputs]
    history = tflite_training.train(aware, x, steps=60, learning_rate=1e-2)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    with pytest.raises(StructureError, match="leave y out"):
        tflite_training.train(aware, x, np.zeros(80, int), steps=1)
    with pytest.raises(InputError, match="takes left, right"):
        tflite_training.train(aware, x[:1], steps=1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x": np.zeros((5, 9), "float32")}, r"x has shape \(5, 9\) for .+ takes \(n, 8\)"),
        ({"x": np.full((5, 8), np.nan, "float32")}, "NaN or infinity"),
        ({"y": np.arange(240)}, "y"),
        ({"steps": 0}, "must be above 0"),
        ({"loss": "hinge"}, "choose one of logits, answers"),
        ({"learning_rate": 1e30, "steps": 20}, r"the loss is .+ take a smaller learning_rate"),
    ],
)
def test_bad_input_is_refused_with_a_cure(small, change, why):
    file, x, _ = small
    aware = tflite_training.in_float(file)
    with pytest.raises(InputError, match=why):
        tflite_training.train(aware, **{"x": x, "steps": 2, **change})


@pytest.mark.parametrize("sparsity", ["half", 1.5, "4:2", "2:3:4"])
def test_a_sparsity_that_is_none(small, sparsity):
    with pytest.raises(InputError, match=r"must|keep"):
        tflite_pruning.sparse(tflite_training.in_float(small[0]), sparsity)


def test_a_file_in_float_has_no_quantized_one(small):
    with pytest.raises(InputError, match="trained in float32"):
        tflite_training.in_float(small[0]).quantized()


@pytest.mark.parametrize("kernel", [[1, -1, 1, -1], [3, 1, 1, 1], [0, 0, 0, 0], [1, 2, 3, 4]])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_of_equal_weights_no_more_are_dropped_than_are_asked_for(kernel, share):
    mask = tflite_pruning.Share(share).mask(tf.constant([kernel], tf.float32), tf.constant(1.0)).numpy()
    assert (mask == 0).sum() == 4 * share
    assert np.abs(np.array(kernel))[mask[0] == 0].max() <= np.abs(np.array(kernel))[mask[0] == 1].min()


def test_each_sparsity_is_trained_for_what_it_asks():
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((8,)), layers.Dense(64, "relu"), layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(80, 8)).astype("float32")
    aware = tflite_training.in_float(quantize.convert(model))
    for sparsity, share in ((0.5, 0.5), (0.75, 0.75), ("1:4", 0.75), (0.25, 0.25)):
        tflite_pruning.sparse(aware.restart(), sparsity)
        tflite_training.train(aware, x, steps=10)
        kernels = [each.numpy() for each in aware.graph.weights.values() if len(each.shape) == 2]
        assert [(each == 0).mean() for each in kernels] == [share, share]
