"""Disjoint parts, deterministic batches, fine-tuning, and following a training."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import qat
from helpers.networks import data, models, training


@pytest.fixture(scope="module")
def fashion():
    return data.load("fashion8k")


def small_network(classes=10, size=32):
    """A classifier with the same interface as MobileNetV2, small enough for tests."""
    layers = tf.keras.layers
    x = inputs = layers.Input((size, size, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D()(x)))


def test_parts_are_disjoint_and_whole(fashion):
    parts = training.split(fashion)
    together = np.concatenate(list(parts.values()))
    assert set(parts) == {"fit", "selection", "calibration"}
    assert len(together) == len(set(together)) == len(fashion.x_train)


def test_parts_share_no_image_with_each_other_or_the_test_set(fashion):
    digests = {
        name: {image.tobytes() for image in fashion.x_train[indices]}
        for name, indices in training.split(fashion).items()
    }
    digests["test"] = {image.tobytes() for image in fashion.x_test}
    names = list(digests)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            assert not digests[name] & digests[other], (name, other)


def test_parts_are_stratified(fashion):
    parts = training.split(fashion, calibration=100, selection=0.1)
    assert np.bincount(fashion.y_train[parts["calibration"]]).tolist() == [10] * 10
    assert np.bincount(fashion.y_train[parts["selection"]]).tolist() == [40] * 10


def test_too_much_set_aside(fashion):
    with pytest.raises(InputError, match=r"calibration=3900 and selection=0\.1 leave no example"):
        training.split(fashion, calibration=3900)


def test_batches_repeat_and_depend_on_the_seed(fashion):
    def first(seed):
        return next(iter(training.batches(fashion.x_train[:64], fashion.y_train[:64], 32, 16, seed, 1, 0.8)))

    (x, y), (again, labels), (other, _) = first(0), first(0), first(1)
    source = training.batches(fashion.x_train[:64], fashion.y_train[:64], 32, 16, 0, 1, 0.8)
    for (image, _), (same, _) in zip(source, source, strict=True):
        assert (image.numpy() == same.numpy()).all()
    assert x.shape == (16, 32, 32, 3) and float(tf.reduce_min(x)) >= -1 and float(tf.reduce_max(x)) <= 1
    assert (x.numpy() == again.numpy()).all() and (y.numpy() == labels.numpy()).all()
    assert (x.numpy() != other.numpy()).any()


def test_an_epoch_holds_every_image_once(fashion):
    marked = np.zeros((32, 28, 28), np.uint8) + np.arange(32, dtype=np.uint8)[:, None, None]
    source = training.batches(marked, np.arange(32), 32, 8, seed=0, epochs=2)
    labels = np.concatenate([y.numpy() for _, y in source])
    assert sorted(labels[:32]) == sorted(labels[32:]) == list(range(32))


def test_colours_change_within_their_share_and_repeat(fashion):
    images = np.random.default_rng(0).integers(60, 190, (16, 8, 8, 3), np.uint8)  # nothing is clipped
    plain = models.network_input(images, 8).numpy()

    def changed():
        [(x, y)] = training.batches(images, np.arange(16), 8, 16, seed=0, epochs=1, colour=0.1)
        return x.numpy()[np.argsort(y)]

    found = changed()
    np.testing.assert_array_equal(found, changed())
    # Contrast and saturation leave the mean over pixels and colours; brightness moves it by at most its share.
    moved = found.mean((1, 2, 3)) - plain.mean((1, 2, 3))
    assert moved.std() > 0.02 and np.abs(moved).max() <= 0.1 + 1e-6
    grey, was = found.mean(3), plain.mean(3)
    contrast = grey.std((1, 2)) / was.std((1, 2))
    assert 0.9 - 1e-5 <= contrast.min() < 0.97 and 1.03 < contrast.max() <= 1.1 + 1e-5
    saturation = (found - grey[..., None]).std((1, 2, 3)) / (plain - was[..., None]).std((1, 2, 3)) / contrast
    assert 0.9 - 1e-5 <= saturation.min() < 0.97 and 1.03 < saturation.max() <= 1.1 + 1e-5


def test_without_cropping_images_stay_as_they_are(fashion):
    x, y = next(iter(training.batches(fashion.x_train[:8], np.arange(8), 32, 8, seed=0, epochs=1)))
    np.testing.assert_array_equal(x, models.network_input(fashion.x_train[:8][y.numpy()], 32))


def test_network_input_scales_and_repeats_grey():
    x = models.network_input(np.full((2, 28, 28), 255, np.uint8), 32).numpy()
    assert x.shape == (2, 32, 32, 3) and (x == 1).all()
    assert (models.network_input(np.zeros((1, 8, 8, 3), np.uint8), 32).numpy() == -1).all()


def test_right_answers_on_images_are_those_on_what_they_become(fashion):
    model, images, labels = small_network(), fashion.x_test[:130], fashion.y_test[:130]
    prepared = models.network_input(images, 32)
    expected = model(prepared, training=False).numpy().argmax(axis=-1) == labels
    np.testing.assert_array_equal(models.correct(model, images, labels, batch=50), expected)
    np.testing.assert_array_equal(models.correct(model, prepared.numpy(), labels), expected)


def test_right_answers_need_a_label_a_sample(fashion):
    for labels in (fashion.y_test[:5], fashion.y_test[:1]):
        with pytest.raises(InputError, match=r"y has . labels for 4 samples: give one a sample"):
            models.correct(small_network(), fashion.x_test[:4], labels)


def test_restart_equals_a_fresh_start(fashion):
    def fresh():
        runtime_env.seed_everything(0)
        return models.compile_classifier(small_network(), 1e-3)

    def source():
        return training.batches(fashion.x_train[:160], fashion.y_train[:160], 32, 16, seed=0, epochs=1)

    held_out = fashion.x_test[:50], fashion.y_test[:50]
    model = fresh()
    start = model.get_weights()
    training.follow(model, source(), 1e-3, [3], *held_out)
    once = model.get_weights()
    training.restart(model, start)
    curve = training.follow(model, source(), 1e-3, [0, 3], *held_out)
    assert curve.step.tolist() == [0, 3]
    for first, second in zip(once, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_fine_tuning_follows_the_same_batches_without_judging(fashion):
    runtime_env.seed_everything(0)
    model = models.compile_classifier(small_network(), 1e-3)
    start, chosen = model.get_weights(), np.arange(20, 120)
    images, labels = fashion.x_train[chosen], fashion.y_train[chosen]
    source = training.batches(images, labels, 32, 16, seed=4, epochs=2, smallest_crop=0.85)
    training.follow(model, source, 1e-3, [8], fashion.x_test[:10], fashion.y_test[:10])
    followed = model.get_weights()
    training.restart(model, start)
    batches = training.fine_tuning_batches(fashion, chosen, 32, 8, batch_size=16, seed=4)
    tuned = training.fine_tune(model, batches, 8, 1e-3)
    assert tuned is model
    for first, second in zip(followed, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def one_step(fashion, factors, wrap=lambda model: model):
    """Weights of the float model's layers before and after a step of Adam: name -> (before, after)."""
    runtime_env.seed_everything(0)
    model = models.compile_classifier(wrap(small_network()))
    source = training.batches(fashion.x_train[:16], fashion.y_train[:16], 32, 16, seed=0, epochs=1)
    layers = {layer.name.removeprefix("quant_").rstrip("_0123456789"): layer for layer in model.layers}
    before = {name: [v.numpy() for v in layer.trainable_variables] for name, layer in layers.items()}
    names = {layer.name.removeprefix("quant_").rstrip("_0123456789"): layer.name for layer in model.layers}
    factors = {names[name].removeprefix("quant_"): factor for name, factor in factors.items()}
    training.follow(model, source, 1e-3, [1], fashion.x_test[:10], fashion.y_test[:10], factors)
    return {name: (before[name], [v.numpy() for v in layer.trainable_variables]) for name, layer in layers.items()}


@pytest.mark.parametrize("wrap", [lambda model: model, qat.quantization_aware], ids=["float", "quantization-aware"])
def test_a_factor_of_zero_freezes_bit_for_bit(fashion, wrap):
    weights = one_step(fashion, {"conv2d": 0.0}, wrap)
    np.testing.assert_array_equal(weights["conv2d"][0][0], weights["conv2d"][1][0])
    assert (weights["logits"][0][0] != weights["logits"][1][0]).any()


def test_a_factor_scales_the_step_that_adam_takes(fashion):
    whole, tenth = (one_step(fashion, factors)["logits"] for factors in ({}, {"logits": 0.1}))
    np.testing.assert_allclose(tenth[1][0] - tenth[0][0], 0.1 * (whole[1][0] - whole[0][0]), atol=1e-7)


def test_an_unknown_layer_is_named(fashion):
    model = models.compile_classifier(small_network())
    with pytest.raises(InputError, match="'first', which is no layer"):
        training.follow(model, [], 1e-3, [0], fashion.x_test[:10], fashion.y_test[:10], {"first": 0})


def test_a_model_compiled_again_trains_with_its_new_optimizer(fashion):
    def source():
        return training.batches(fashion.x_train[:32], fashion.y_train[:32], 32, 16, seed=0, epochs=1)

    model = models.compile_classifier(small_network())
    training.follow(model, source(), 1e-3, [1], fashion.x_test[:10], fashion.y_test[:10])
    models.compile_classifier(model)
    before = model.get_layer("logits").get_weights()[0]
    training.follow(model, source(), 0.0, [1], fashion.x_test[:10], fashion.y_test[:10])
    np.testing.assert_array_equal(before, model.get_layer("logits").get_weights()[0])


def test_a_step_is_that_of_keras(fashion):
    images, labels = fashion.x_train[:48], fashion.y_train[:48]
    batches = list(training.batches(images, labels, 32, 16, seed=0, epochs=1))
    trained = []
    for way in ("ours", "Keras"):
        runtime_env.seed_everything(0)
        model = models.compile_classifier(small_network(), 1e-2)
        if way == "ours":
            training.follow(model, batches, 0.02, [1, 3], fashion.x_test[:10], fashion.y_test[:10])
        for step, batch in enumerate(batches if way == "Keras" else []):
            model.optimizer.learning_rate = 0.02 * (1 + np.cos(np.pi * step / 3)) / 2
            model.train_on_batch(*batch)
        trained.append(model.get_weights())
    for ours, keras in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, keras, atol=2e-5)


def test_too_few_batches(fashion):
    model = models.compile_classifier(small_network())
    source = training.batches(fashion.x_train[:32], fashion.y_train[:32], 32, 16, seed=0, epochs=1)
    with pytest.raises(InputError, match="fewer than the 5 steps"):
        training.follow(model, source, 1e-3, [5], fashion.x_test[:10], fashion.y_test[:10])


@pytest.mark.parametrize("images, steps", [(84, 15), (1023, 1200), (32, 3), (40, 0)])
def test_there_are_batches_for_all_steps_however_few_images(images, steps):
    dataset = data.load("fashion8k")
    found = sum(1 for _ in training.fine_tuning_batches(dataset, np.arange(images), 8, steps))
    assert found >= steps
    with pytest.raises(InputError, match="fewer than a batch of 32: give more, or a smaller batch_size"):
        training.fine_tuning_batches(dataset, np.arange(31), 8, 1)
    assert sum(1 for _ in training.fine_tuning_batches(dataset, np.arange(31), 8, 3, batch_size=8)) >= 3


@pytest.mark.parametrize("ending", ["activation", "layer"])
def test_a_teacher_teaches_alike_with_and_without_a_last_softmax(fashion, ending):
    """As a checkpoint of one's own may have one: of probabilities taken for logits nothing would be learned."""

    def ended(model):
        if ending == "layer":
            return tf.keras.Model(model.input, tf.keras.layers.Softmax()(model.output))
        return tf.keras.Model(model.input, tf.keras.layers.Activation("softmax")(model.output))

    kernels = []
    for end in (lambda model: model, ended):
        runtime_env.seed_everything(0)
        teacher, student = end(small_network()), end(small_network())
        batches = training.fine_tuning_batches(fashion, np.arange(200), 32, 5, 16, 0)
        models.compile_classifier(student)
        training.fine_tune(student, batches, 5, 1e-2, teacher=teacher)
        kernels.append(student.get_layer("logits").get_weights()[0])
    np.testing.assert_allclose(*kernels, atol=1e-4)
