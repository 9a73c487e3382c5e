"""Data sets: the right arrays whichever way they come, and one clear sentence when they cannot be had."""

import dataclasses
import shutil
import socket
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.networks import data


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    """An empty cache, no folder of data, and no way out to the network."""

    def refuse(*_):
        raise OSError("the network is out of reach")

    monkeypatch.setenv(repository.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(repository.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory):
    """mnist5k as it is cached, made once: reading the package's text file is slow."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(repository.CACHE_VARIABLE, str(folder))
        patch.delenv(repository.DATA_VARIABLE, raising=False)
        data.load("mnist5k")
    return folder / "mnist5k.npz"


@pytest.fixture
def cached(digits_file):
    """The path at which the cache holds mnist5k; filled."""
    path = repository.cache_folder() / digits_file.name
    path.parent.mkdir()
    return shutil.copy(digits_file, path)


@pytest.fixture
def fetched(monkeypatch):
    """Replaces how a named data set is fetched; returns the list of names that were."""
    names = []

    def replace(name, arrays):
        def fetch():
            names.append(name)
            if isinstance(arrays, Exception):
                raise arrays
            return arrays

        monkeypatch.setitem(data.SOURCES, name, dataclasses.replace(data.SOURCES[name], fetch=fetch))
        return names

    return replace


def content(path):
    with np.load(path) as archive:
        return dict(archive)


# --- mnist5k


def test_mnist5k_is_5000_digits_split_by_class(cached):
    digits = data.load("mnist5k")
    assert (digits.x_train.shape, digits.x_test.shape) == ((4000, 28, 28), (1000, 28, 28))
    assert (digits.x_train.dtype, digits.y_train.dtype) == (np.uint8, np.int64)
    assert np.bincount(digits.y_train).tolist() == [400] * 10
    assert np.bincount(digits.y_test).tolist() == [100] * 10
    assert digits.classes == tuple("0123456789")
    assert digits.sha256 == data.fingerprint({key: getattr(digits, key) for key in data.ARRAYS})
    assert str(digits).startswith("mnist5k: 4,000 training and 1,000 test images of 28x28, 10 classes")


def test_no_image_is_both_trained_and_tested_on(cached):
    digits = data.load("mnist5k")
    train, test = ({image.tobytes() for image in images} for images in (digits.x_train, digits.x_test))
    assert not train & test


def test_the_second_load_comes_from_the_cache(cached, fetched):
    names = fetched("mnist5k", OSError("not needed"))
    assert len(data.load("mnist5k").x_train) == 4000
    assert not names
    assert data.available()["mnist5k"] == "in the cache"


def test_a_cache_that_cannot_be_written_costs_only_time(digits_file, fetched, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(repository.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    names = fetched("mnist5k", content(digits_file))
    assert data.load("mnist5k").sha256 == data.load("mnist5k").sha256
    assert names == ["mnist5k", "mnist5k"]


# --- files that are not what they should be


def one_pixel_changed(path):
    arrays = content(path)
    arrays["x_test"][0, 14, 14] ^= 1
    np.savez(path, **arrays)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def a_bit_flipped(path):
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)


def of_words(path):
    np.savez(path, **content(path) | {"y_test": np.array(["seven"] * 1000)})


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGE = [one_pixel_changed, truncated, emptied, a_bit_flipped, of_words, one_array]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_refused_with_the_cure(cached, damage, fetched):
    names = fetched("mnist5k", content(cached))
    damage(cached)
    with pytest.raises(InputError) as refused:
        data.load("mnist5k")
    assert str(cached) in str(refused.value)
    assert "delete" in str(refused.value)
    assert not names, "it was replaced in silence"


def test_a_file_without_an_array_is_refused_by_its_name(cached):
    arrays = content(cached)
    del arrays["y_test"]
    np.savez(cached, **arrays)
    with pytest.raises(InputError, match=r"mnist5k\.npz has no y_test: it must hold x_train, y_train"):
        data.load("mnist5k")


# --- names


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"dataset='emnist' is unknown: choose one of mnist5k, mnist.*\.npz"):
        data.load("emnist")


def test_without_network_the_error_lists_what_was_tried(fetched, monkeypatch, tmp_path):
    monkeypatch.setenv(repository.DATA_VARIABLE, str(tmp_path / "mine"))
    fetched("mnist", OSError("URL fetch failure on storage: no route to host\nand more"))
    with pytest.raises(InputError) as refused:
        data.load("mnist")
    for tried in (tmp_path / "cache" / "mnist.npz", tmp_path / "mine" / "mnist.npz", "Keras' official download"):
        assert str(tried) in str(refused.value)
    assert "(URL fetch failure on storage: no route to host)" in str(refused.value)
    assert f"name it in ${repository.DATA_VARIABLE}" in str(refused.value)


def test_the_download_of_keras_fails_as_any_other_source_does(monkeypatch):
    from helpers.base import runtime_env

    with runtime_env.quiet():
        import tensorflow as tf

    def load_data():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(tf.keras.datasets.mnist, "load_data", load_data)
    with pytest.raises(InputError, match=r"dataset='mnist' cannot be had here.*\(URL fetch failure\)"):
        data.load("mnist")


# --- the folder of one's own data


def test_the_named_folder_is_used_whatever_types_the_file_has(digits_file, fetched, monkeypatch, tmp_path):
    names = fetched("mnist5k", OSError("not needed"))
    np.savez(tmp_path / "mnist5k.npz", **{key: array.astype("int16") for key, array in content(digits_file).items()})
    monkeypatch.setenv(repository.DATA_VARIABLE, str(tmp_path))
    digits = data.load("mnist5k")
    assert digits.x_train.dtype == np.uint8
    assert data.available()["mnist5k"] == f"in ${repository.DATA_VARIABLE}"
    assert not names


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_file_in_the_named_folder_is_refused(digits_file, damage, fetched, monkeypatch, tmp_path):
    names = fetched("mnist5k", content(digits_file))
    given = shutil.copy(digits_file, tmp_path / "mnist5k.npz")
    damage(given)
    monkeypatch.setenv(repository.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError) as refused:
        data.load("mnist5k")
    assert str(given) in str(refused.value)
    assert not names, "it was replaced in silence"


# --- a file of one's own

OWN = {
    "x_train": np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4),
    "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "x_test": np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4),
    "y_test": np.array([2, 1, 0], np.int32),
}


@pytest.fixture
def own(tmp_path):
    """Writes an .npz file of one's own with some arrays changed (None: left out), and returns its path."""

    def write(**changes):
        path = tmp_path / "own.npz"
        np.savez(path, **{key: array for key, array in (OWN | changes).items() if array is not None})
        return str(path)

    return write


def test_an_npz_of_ones_own_is_loaded_with_its_types(own):
    found = data.load(own())
    assert (found.name, found.classes, found.y_train.dtype) == ("own", ("0", "1", "2"), np.int64)
    np.testing.assert_array_equal(found.x_train, OWN["x_train"])
    np.testing.assert_array_equal(found.y_test, OWN["y_test"])


def test_colour_pictures_are_welcome(own):
    coloured = {key: np.repeat(OWN[key][..., None], 3, axis=-1) for key in ("x_train", "x_test")}
    assert data.load(own(**coloured)).x_train.shape == (6, 5, 4, 3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_train": None}, "has no y_train: it must hold x_train, y_train, x_test, y_test"),
        ({"x_train": OWN["x_train"] / 255}, r"x_train is float64 \(6, 5, 4\); it must be uint8"),
        ({"x_test": OWN["x_test"].astype("int64")}, "x_test is int64"),
        ({"x_train": OWN["x_train"].reshape(6, -1)}, r"x_train is uint8 \(6, 20\); .*\(n, height, width"),
        ({"x_train": OWN["x_train"].reshape(6, 5, 2, 2)}, r"x_train is uint8 \(6, 5, 2, 2\)"),
        ({"x_train": OWN["x_train"][:0], "y_train": OWN["y_train"][:0]}, "x_train .* not empty"),
        ({"x_train": OWN["x_train"][:, :0], "x_test": OWN["x_test"][:, :0]}, "x_train .* not empty"),
        ({"y_train": OWN["y_train"][:5]}, "y_train has 5 labels for 6 samples"),
        ({"y_test": OWN["y_test"] * 0.3}, "y_test holds 0.6: classes are whole numbers"),
        ({"y_test": np.array(["a", "b", "c"])}, r"y_test holds words \(<U1\)"),
        (
            {"y_test": np.array([0, 1, -1])},
            r"y_test has labels from -1 to 1: .* give keep = y_test >= 0 and y_test\[keep\]",
        ),
        ({"y_test": np.array([0, 1, 2**40])}, "y_test goes up to 1099511627776, more classes than the 6"),
        ({"y_test": np.array([0, "b", None], object)}, r"own\.npz is not a readable \.npz file"),
        ({"x_test": OWN["x_test"][:, :4]}, r"x_train holds images of \(5, 4\), x_test of \(4, 4\)"),
    ],
)
def test_a_bad_file_of_ones_own_is_refused_by_array(own, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(own(**changes))


def test_a_missing_file_of_ones_own_is_named(tmp_path):
    with pytest.raises(InputError, match=r"dataset='.*nowhere\.npz' does not exist"):
        data.load(str(tmp_path / "nowhere.npz"))


# --- the identity of a data set


def any_array():
    kinds = st.sampled_from(["uint8", "int64", "float32"])
    return kinds.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(max_dims=3, max_side=5)))


@given(any_array(), st.data())
@settings(deadline=None)
def test_a_single_bit_changes_the_fingerprint(array, drawn):
    before = data.fingerprint({"x": array})
    assert data.fingerprint({"x": array.copy(order="F")}) == before
    blob = bytearray(array.tobytes())
    bit = drawn.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    assert data.fingerprint({"x": np.frombuffer(blob, array.dtype).reshape(array.shape)}) != before


def test_type_shape_and_name_change_the_fingerprint_though_the_bytes_stay():
    array = np.zeros((4, 2), "int32")
    same_bytes = [{"x": array}, {"x": array.view("uint32")}, {"x": array.reshape(2, 4)}, {"y": array}]
    assert len({data.fingerprint(arrays) for arrays in same_bytes}) == 4
    assert data.fingerprint({"a": array, "b": array}) == data.fingerprint({"b": array, "a": array})


# --- what is made of it


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 10), st.integers(0, 5))
@settings(deadline=None)
def test_a_stratified_split_takes_as_many_of_each_class_and_leaves_the_rest(labels, per_class, seed):
    labels = np.array(labels)
    chosen, rest = data.stratified_split(labels, per_class, seed)
    assert sorted([*chosen, *rest]) == list(range(len(labels)))
    assert chosen.tolist() == sorted(chosen)
    counts = np.bincount(labels[chosen], minlength=5)
    np.testing.assert_array_equal(counts, np.minimum(np.bincount(labels, minlength=5), per_class))
    np.testing.assert_array_equal(chosen, data.stratified_split(labels, per_class, seed)[0])


def test_unit_rows_are_float32_in_0_to_1():
    rows = data.unit_rows(np.array([[[0, 51], [102, 255]]], np.uint8))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0, 0.2, 0.4, 1]])


def test_what_the_repository_holds_is_not_copied_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(repository.CACHE_VARIABLE, str(tmp_path))
    data.load("fashion8k")
    assert not list(tmp_path.iterdir())


def packed_flowers(folder):
    for kind in "ab":
        (folder / "flower_photos" / kind).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((9, 9, 3), number, "uint8")).save(folder / "flower_photos" / kind / f"{number}.png")
    with tarfile.open(folder / "flowers.tgz", "w:gz") as archive:
        archive.add(folder / "flower_photos", "flower_photos")
    return (folder / "flowers.tgz").as_uri()


def test_flowers_are_fetched_into_a_cache_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FLOWERS_ARCHIVE", packed_flowers(tmp_path))
    monkeypatch.setenv("COMPRESSION_LAB_CACHE", str(tmp_path / "new"))
    monkeypatch.delenv("COMPRESSION_LAB_DATA", raising=False)
    found = data.load("flowers")
    assert len(found.y_train) + len(found.y_test) == 12
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["flower_photos"]


def test_flowers_that_are_interrupted_leave_the_cache_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FLOWERS_ARCHIVE", packed_flowers(tmp_path))
    monkeypatch.setenv("COMPRESSION_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COMPRESSION_LAB_DATA", raising=False)
    (tmp_path / "cache" / "minilm").mkdir(parents=True)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", stopped)
        with pytest.raises((KeyboardInterrupt, InputError)):
            data.load("flowers")
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["minilm"]
    assert len(data.load("flowers").y_test)
