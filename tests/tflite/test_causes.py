"""Each of the three faults planted, beside a twin that computes the same without it; and the cure that a sentence names."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.compress import affine, outliers, quantize, requantize
from helpers.networks import checkpoints, data, models
from helpers.tflite import causes, litert
from tests import architectures

layers = tf.keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 12)).astype("float32")
TOKENS = RANDOM.normal(size=(64, 6, 8)).astype("float32")
HIDDEN = (np.arange(6) >= RANDOM.integers(3, 7, 64)[:, None]).astype("float32")  # the places behind each sentence's end


def detector(pixels, apart=False):
    """Boxes and scores, of boxes in a picture of so many pixels."""
    tf.keras.utils.set_random_seed(0)
    inputs = layers.Input((12,))
    x = layers.Dense(32, "relu")(inputs)
    boxes = layers.Rescaling(pixels)(layers.Dense(8, "sigmoid", name="boxes")(x))
    scores = layers.Dense(5, "sigmoid", name="scores")(x)
    return tf.keras.Model(inputs, [boxes, scores] if apart else layers.Concatenate(name="both")([boxes, scores]))


def attention(hides):
    """One head over six tokens, of which a second input hides some by adding a constant."""
    tf.keras.utils.set_random_seed(0)
    x, hidden = layers.Input((6, 8)), layers.Input((6,), name="hidden")
    query, key, value = (layers.Dense(8)(x) for _ in range(3))
    scores = tf.matmul(query, key, transpose_b=True) + hides * hidden[:, None, :]
    return tf.keras.Model([x, hidden], layers.Dense(3)(tf.matmul(tf.nn.softmax(scores), value)))


def network(factor):
    """Whose first layer's channel 17 is so many times as large, and is read by weights so many times as small."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [layers.Input((12,)), layers.Dense(32, "relu", name="first"), layers.Dense(4, name="second")]
    )
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 17], bias[17] = kernel[:, 17] * factor, bias[17] * factor
    model.get_layer("first").set_weights([kernel, bias])
    kernel, bias = model.get_layer("second").get_weights()
    kernel[17] /= factor
    model.get_layer("second").set_weights([kernel, bias])
    return model


def quantized(model, samples):
    """(float file, its int8 by litert-quantizer, and by the official converter)."""
    file = quantize.convert(model)
    # By name: the order of a converted file's inputs changes from one conversion to the next.
    named = _signed(file, list(samples.values())) if isinstance(samples, dict) else samples
    ours = requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, named))
    return file, ours, quantize.convert(model, "int8", named)


def _signed(file, arrays):
    by_size = {each.ndim: each for each in arrays}
    ends = litert.interpreter(file).get_signature_runner().get_input_details()
    return {name: by_size[len(ends[name]["shape"])] for name in ends}


def kinds(found):
    return [cause.kind for cause in found]


@pytest.mark.parametrize("maker", [1, 2], ids=["litert-quantizer", "converter"])
def test_boxes_in_pixels_share_a_scale_with_scores(maker):
    made = quantized(detector(640), X)
    [cause] = causes.find(made[maker], made[0], X)
    assert cause.kind == causes.PARTS and "split the output" in cause.sentence
    [answers] = litert.run(made[0], {"x": X}).values()
    assert cause.times == pytest.approx(np.abs(answers[:16, :8]).max() / answers[:16, 8:].max(), rel=1e-3)
    [collapsed] = litert.run(made[maker], {"x": X}).values()
    assert len(np.unique(collapsed[:, 8:])) <= 2  # a score is nothing or one step
    for cure in (detector(1), detector(640, apart=True)):  # what the sentence says
        made = quantized(cure, X)
        assert causes.find(made[maker], made[0], X) == []
        scores = list(litert.run(made[maker], {"x": X}).values())
        assert max(len(np.unique(each)) for each in scores) > 50


@pytest.mark.parametrize("maker", [1, 2], ids=["litert-quantizer", "converter"])
def test_a_mask_sets_the_scale_of_a_softmax(maker):
    samples, errors = {"x": TOKENS, "hidden": HIDDEN}, []
    for hides in (-1e9, -20.0):
        made = quantized(attention(hides), samples)
        named = _signed(made[0], [TOKENS, HIDDEN])
        found = causes.find(made[maker], made[0], named)
        assert kinds(found) == ([causes.MASK] if hides < -20 else []), found
        [exact], [rough] = (list(litert.run(file, named).values()) for file in (made[0], made[maker]))
        errors.append(affine.sqnr(exact, rough))
        if found:
            assert found[0].times == pytest.approx(1e9, rel=0.01) and "use -20" in found[0].sentence
    assert errors[1] > errors[0] + 6  # dB


@pytest.mark.parametrize("maker", [1, 2], ids=["litert-quantizer", "converter"])
@pytest.mark.parametrize(("factor", "wanted"), [(64.0, [causes.OUTLIERS]), (1.0, [])])
def test_one_channel_sets_the_scale_of_all(maker, factor, wanted):
    made = quantized(network(factor), X)
    found = causes.find(made[maker], made[0], X)
    assert kinds(found) == wanted
    if found:
        assert "channel 17 of" in found[0].sentence and 30 < found[0].times < 130


def test_what_is_migrated_has_no_cause_left():
    """The cure that the sentence names."""
    file, int8, _ = quantized(network(64.0), X)
    [cause] = causes.find(int8, file, X)
    assert "migrate them into the weights that read them" in cause.sentence
    moved, _ = outliers.migrate(file, X)
    cured = requantize.apply(moved, {"*": requantize.Format()}, requantize.calibrate(moved, X))
    assert causes.find(cured, moved, X) == []
    [exact], [ill], [well] = (litert.run(each, {"x": X}).values() for each in (file, int8, cured))
    assert affine.sqnr(exact, well) > affine.sqnr(exact, ill) + 10


def test_values_of_unlike_size_from_one_dense_layer():
    """A price in thousands and a share, from one layer, of a model that came from anywhere."""
    model = tf.keras.Sequential([layers.Input((12,)), layers.Dense(16, "relu"), layers.Dense(2)])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [1000, 1], bias])
    file, ours, theirs = quantized(model, X)
    for each in (ours, theirs):
        [cause] = causes.find(each, file, X)
        assert cause.kind == causes.PARTS and cause.sentence.index("value 0") < cause.sentence.index("value 1")


def test_a_class_that_is_never_likely_is_no_fault():
    model = tf.keras.Sequential([layers.Input((12,)), layers.Dense(5), layers.Activation("softmax")])
    model.layers[0].set_weights([model.layers[0].get_weights()[0] * 0.1, np.array([0, 0, 0, 0, -9.0])])
    file, ours, theirs = quantized(model, X)
    assert causes.find(ours, file, X) == causes.find(theirs, file, X) == []


def test_files_that_compute_in_float_have_no_cause():
    file = quantize.convert(detector(640))
    assert causes.find(quantize.convert(detector(640), "dynamic"), file, X) == []
    assert causes.find(file, file, X) == []
    # The tail in float, as a cure: what joins the parts is no integer.
    tail = [name for kind, _, [name, *_] in causes._Graph(file).operators if kind in ("CONCATENATION", "MUL")]
    formats = {"*": requantize.Format(), **dict.fromkeys(tail)}
    assert causes.find(requantize.apply(file, formats, requantize.calibrate(file, X)), file, X) == []


@pytest.mark.parametrize("name", ["mobilenetv2_fashion_96", "resnet8_fashion_32"])
def test_networks_that_lose_nothing_are_accused_of_nothing(name):
    model, fashion = checkpoints.load(name), data.load("fashion8k")
    x = models.network_input(fashion.x_train[:64], model.input_shape[1]).numpy()
    file = quantize.convert(quantize.freeze(model))
    int8 = requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, x))
    assert causes.find(int8, file, x) == []


@pytest.mark.parametrize("name", ["ViT", "Mixer", "two inputs", "detector", "embedding of tokens"])
def test_any_architecture_is_looked_at(name):
    model = architectures.build(name, tf.keras)
    file, x = quantize.convert(model), architectures.samples(model, 16)
    named = dict(zip([each["name"] for each in litert.interpreter(file).get_input_details()], x, strict=True))
    int8 = requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, _named(file, x)))
    assert causes.find(int8, file, named if len(x) > 1 else x[0]) == []


def _named(file, x):
    ends = litert.interpreter(file).get_signature_runner().get_input_details()
    left, found = list(x), {}
    for name, end in ends.items():
        found[name] = next(each for each in left if each.shape[1:] == tuple(end["shape"][1:]))
        left = [each for each in left if each is not found[name]]
    return found if len(found) > 1 else x[0]
