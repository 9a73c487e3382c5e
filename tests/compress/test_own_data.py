"""A user's own samples and labels: fitted to the model, split, or refused in one sentence whose cure works."""

import numpy as np
import pytest
from PIL import Image

from helpers.base.errors import InputError
from helpers.compress import own_data, own_model
from helpers.compress.own_model import End, Model
from helpers.tflite import litert

X, Y = np.zeros((6, 28, 28, 1), "float32"), np.arange(6)


def model(*inputs):
    """A model that has only its ends."""
    return Model("net", "a .tflite file", b"", None, None, inputs, (End("answer", (10,), "float32"),), ())


IMAGES = model(End("image", (28, 28, 1), "float32"))
TWO = model(End("picture", (4, 4, 1), "float32"), End("tokens", (3,), "int32"))


def kept(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": X[..., 0], "y": Y}, r"has x of shape \(6, 28, 28\): this model takes float32 .* Give x\[\.\.\., None\]"),
        ({"x": X[:0], "y": Y[:0]}, "n at least 1"),
        ({"x": X.astype("uint8"), "y": Y}, "x is uint8: it must be float32 samples"),
        ({"x": X * np.nan, "y": Y}, "x is NaN or infinity in 4,704 of 4,704 values"),
        ({"y": Y}, r"holds no samples .*: add x"),
        ({"x": X, "y": Y, "y_answer": Y}, "holds y and y_answer: keep y, or an array for each output"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        own_data.samples(kept(tmp_path, **arrays), IMAGES)


def test_other_arrays_beside_x_are_left_alone(tmp_path):
    x, y = own_data.samples(kept(tmp_path, x=X, z=X, ids=Y, y=Y), IMAGES)
    assert x.shape == X.shape and list(y) == list(Y)


def test_the_axis_of_channels_is_added_as_the_refusal_says(tmp_path):
    x, y = own_data.samples(kept(tmp_path, x=X[..., 0][..., None], y=Y), IMAGES)
    assert x.shape == X.shape and list(y) == list(Y)


def test_a_model_without_samples_is_told_what_is_missing():
    with pytest.raises(
        InputError, match=r"data_path is empty: give an \.npz with x and, if known, y, or a folder with"
    ):
        own_data.samples("", IMAGES)


def test_several_inputs_and_outputs_go_by_their_names(tmp_path):
    picture, tokens = np.ones((5, 4, 4, 1)), np.ones((5, 3))
    path = kept(tmp_path, tokens=tokens, picture=picture, y_kind=np.arange(5), y_there=np.zeros(5))
    x, y = own_data.samples(path, TWO)
    assert list(x) == ["picture", "tokens"] and x["picture"].dtype == "float32" and x["tokens"].dtype == "int32"
    assert sorted(y) == ["kind", "there"]
    with pytest.raises(InputError, match="holds picture: this model takes an array for each of picture, tokens"):
        own_data.samples(kept(tmp_path, picture=picture), TWO)
    with pytest.raises(InputError, match=r"tokens of float64: this model takes int32 \(n, 3\), whole numbers"):
        own_data.samples(kept(tmp_path, picture=picture, tokens=tokens / 2), TWO)
    with pytest.raises(InputError, match="different numbers of samples"):
        own_data.samples(kept(tmp_path, picture=picture, tokens=tokens[:4]), TWO)


def test_labels_may_be_missing(tmp_path):
    x, y = own_data.samples(kept(tmp_path, x=X), IMAGES)
    parts = own_data.split(x, y, 2, 0.5)
    assert y is None and {name: (len(of), labels) for name, (of, labels) in parts.items()} == {
        "calibration": (2, None),
        "selection": (2, None),
        "test": (2, None),
    }


def pictures(folder, classes):
    for name in range(classes):
        (folder / f"class_{name}").mkdir()
        Image.new("RGB", (40, 30), (255, 0, 0)).save(folder / f"class_{name}" / "red.png")
    return folder


@pytest.mark.parametrize("scaling, low, high", [("-1 to 1", -1, 1), ("0 to 1", 0, 1), ("0 to 255", 0, 255)])
def test_a_folder_of_images_is_scaled_and_made_grey_as_the_model_wants(tmp_path, scaling, low, high):
    x, y = own_data.samples(pictures(tmp_path, 10), IMAGES, scaling)
    assert x.shape == (10, 28, 28, 1) and x.dtype == "float32" and list(y) == list(range(10))
    np.testing.assert_allclose(x, low + 0.299 * (high - low), rtol=1e-5)


def test_folders_that_do_not_fit_are_refused(tmp_path):
    folder = pictures(tmp_path, 2)
    with pytest.raises(InputError, match=r"has 2 classes \(class_0, class_1\): this model has 10"):
        own_data.samples(folder, IMAGES, "0 to 1")
    with pytest.raises(InputError, match=r"of which nobody says how the model takes them: give an .npz with x"):
        own_data.samples(folder, IMAGES)
    with pytest.raises(InputError, match=r"scaling='zscore' is unknown: choose one of -1 to 1"):
        own_data.samples(folder, IMAGES, "zscore")
    with pytest.raises(InputError, match=r"is a folder of images, but this is no classifier of square images"):
        own_data.samples(folder, TWO)


def test_the_parts_are_disjoint_and_whole():
    x, y = np.arange(1000)[:, None], {"a": np.arange(1000), "b": -np.arange(1000)}
    parts = own_data.split({"x": x}, y, 100, 0.3, seed=1)
    assert {name: own_data.number(of) for name, (of, _) in parts.items()} == {
        "calibration": 100,
        "selection": 270,
        "test": 630,
    }
    assert sorted(np.concatenate([of["x"].ravel() for of, _ in parts.values()])) == list(range(1000))
    for of, labels in parts.values():
        assert list(of["x"].ravel()) == list(labels["a"]) == list(-labels["b"])
    for number in (50, 100, 101):
        with pytest.raises(InputError, match=f"data holds {number} samples: calibration_samples=100"):
            own_data.split(x[:number], None, 100, 0.3)
    with pytest.raises(InputError, match="y has 3 labels for 1,000 samples"):
        own_data.split(x, Y[:3], 100, 0.3)


def test_the_example_is_made_once_and_can_be_loaded(tmp_path):
    model_path, data_path = own_data.example(tmp_path)
    own = own_model.load(model_path)
    x, y = own_data.samples(data_path, own)
    assert (litert.predict(own.file, x).argmax(axis=-1) == y).mean() > 0.8
    before = model_path.read_bytes()
    assert own_data.example(tmp_path) == (model_path, data_path) and model_path.read_bytes() == before


@pytest.mark.parametrize("dtype, worst", [("uint8", 300), ("uint8", -1), ("int8", 128), ("int32", 2**31)])
def test_whole_numbers_that_an_input_does_not_hold_are_refused(dtype, worst):
    model = Model("n", "", b"", None, None, (End("x", (2,), dtype),), (), ())
    with pytest.raises(InputError, match=rf"data has x from .* this model takes {dtype} \(n, 2\), which holds"):
        own_data.fitted(np.array([[worst, 0]]), model, "data")
    assert own_data.fitted(np.array([[7.0, 0]]), model, "data").dtype == dtype
