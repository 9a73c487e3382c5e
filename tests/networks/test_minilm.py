"""The sentence Transformer: on small random encoders what must hold of any, and the published values where the weights are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.networks import minilm, models
from helpers.tflite import litert

SIZES = minilm.Sizes(vocabulary=50, width=24, layers=2, heads=3, hidden=40, length=10)
PUBLISHED = [0.0676569, 0.0634959, 0.0487131]  # of "This is an example sentence", by the authors of the model
BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


def arrays(sizes, seed=0):
    """Random weights as PyTorch names them."""
    random, shapes = np.random.default_rng(seed), {}
    shapes["embeddings.word_embeddings.weight"] = (sizes.vocabulary, sizes.width)
    shapes["embeddings.position_embeddings.weight"] = (2 * sizes.length, sizes.width)
    shapes["embeddings.token_type_embeddings.weight"] = (2, sizes.width)
    norms = ["embeddings.LayerNorm"]
    for number in range(sizes.layers):
        place = f"encoder.layer.{number}"
        for part in BERT.values():
            rows, columns = sizes.width, sizes.width
            if part == "intermediate.dense":
                rows = sizes.hidden
            if part == "output.dense":
                columns = sizes.hidden
            shapes[f"{place}.{part}.weight"], shapes[f"{place}.{part}.bias"] = (rows, columns), (rows,)
        norms += [f"{place}.attention.output.LayerNorm", f"{place}.output.LayerNorm"]
    for norm in norms:
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (sizes.width,)
    return {name: random.normal(scale=0.3, size=shape).astype("float32") for name, shape in shapes.items()}


def by_hand(weights, sizes, pieces):
    """The encoder of one unpadded sentence, in float64, written from the paper."""
    from scipy.special import erf, softmax

    w = {name: array.astype(float) for name, array in weights.items()}

    def dense(x, place):
        return x @ w[f"{place}.weight"].T + w[f"{place}.bias"]

    def normed(x, place):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{place}.weight"] + w[f"{place}.bias"]

    x = w["embeddings.word_embeddings.weight"][pieces] + w["embeddings.token_type_embeddings.weight"][0]
    x = normed(x + w["embeddings.position_embeddings.weight"][: len(pieces)], "embeddings.LayerNorm")
    size = sizes.width // sizes.heads
    for number in range(sizes.layers):
        place = f"encoder.layer.{number}"
        q, k, v = (dense(x, f"{place}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for head in range(sizes.heads):
            of = slice(head * size, (head + 1) * size)
            mixed[:, of] = softmax(q[:, of] @ k[:, of].T / np.sqrt(size), axis=-1) @ v[:, of]
        x = normed(x + dense(mixed, f"{place}.attention.output.dense"), f"{place}.attention.output.LayerNorm")
        wide = dense(x, f"{place}.intermediate.dense")
        wide = 0.5 * wide * (1 + erf(wide / np.sqrt(2)))
        x = normed(x + dense(wide, f"{place}.output.dense"), f"{place}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def vectors(model, pieces):
    return models.inference(model)(np.asarray(pieces, np.int32)).numpy()


@pytest.fixture(scope="module")
def filled():
    model = minilm.encoder(SIZES)
    minilm.fill(model, arrays(SIZES))
    return model


def padded(pieces, length=SIZES.length):
    return [[*pieces, *[0] * (length - len(pieces))]]


@pytest.mark.parametrize("pieces", [[2, 7, 7, 31, 3], [2, 3], [2, 9, 8, 7, 6, 5, 4, 40, 41, 3]])
def test_it_computes_what_the_paper_says(filled, pieces):
    expected = by_hand(arrays(SIZES), SIZES, pieces)
    np.testing.assert_allclose(vectors(filled, padded(pieces))[0], expected, atol=2e-6)


def test_vectors_have_length_1(filled):
    found = vectors(filled, padded([2, 5, 3]) + padded([2, 3]))
    assert found.shape == (2, SIZES.width) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("mask", [minilm.LARGE, minilm.SMALL])
def test_padding_changes_nothing(mask):
    pieces, shorter = [2, 11, 12, 13, 3], minilm.Sizes(**{**vars(SIZES), "length": 5})
    found = []
    for sizes in (shorter, SIZES):
        model = minilm.encoder(sizes, mask)
        minilm.fill(model, arrays(SIZES))
        found.append(vectors(model, padded(pieces, sizes.length))[0])
    np.testing.assert_allclose(*found, atol=1e-6)


def test_a_weak_mask_lets_padding_in():
    pieces, found = padded([2, 11, 12, 13, 3]), []
    for mask in (minilm.LARGE, -0.1):
        model = minilm.encoder(SIZES, mask)
        minilm.fill(model, arrays(SIZES))
        found.append(vectors(model, pieces)[0])
    assert np.abs(np.subtract(*found)).max() > 1e-3


def test_the_order_of_pieces_counts(filled):
    assert np.abs(np.diff(vectors(filled, padded([2, 5, 6, 3]) + padded([2, 6, 5, 3])), axis=0)).max() > 1e-3


def test_in_a_file_every_dense_layer_has_its_name(filled):
    layers = litert.weight_layers(quantize.convert(filled), [layer.name for layer in filled.layers])["layer"]
    names = [name for name in layers if not name.startswith("embedding")]
    assert sorted(names) == sorted([f"layer_{number}_{part}" for number in range(2) for part in BERT])


def test_a_saved_encoder_comes_back(filled, tmp_path):
    import tensorflow as tf

    filled.save(tmp_path / "encoder.keras")
    again = tf.keras.models.load_model(tmp_path / "encoder.keras", compile=False)
    pieces = padded([2, 5, 6, 3])
    np.testing.assert_array_equal(vectors(again, pieces), vectors(filled, pieces))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: minilm.Sizes(width=10, heads=3), "width=10 must be a multiple of heads=3"),
        (lambda: minilm.Sizes(layers=0), "each must be at least 1"),
        (lambda: minilm.encoder(SIZES, mask=0.0), "mask=0.0 must be below 0"),
        (lambda: minilm.encoder(SIZES, mask=float("nan")), "mask=nan must be below 0"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


# --- weights from a file


def saved(path, tensors, **changes):
    """A `.safetensors` file, written by its specification."""
    header, blob = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        part = array.tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(blob), len(blob) + len(part)]}
        blob += part
    header |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)
    return path


def test_a_safetensors_file_is_read(tmp_path):
    wanted = arrays(SIZES)
    found = minilm.tensors(saved(tmp_path / "model.safetensors", wanted))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: saved(path, {}, weight={"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}),
        lambda path: saved(path, {}, weight=[1, 2]),
    ],
)
def test_a_damaged_file_is_refused(damage, tmp_path):
    path = saved(tmp_path / "model.safetensors", {"weight": np.ones((2, 3), "float32")})
    damage(path)
    with pytest.raises(InputError, match=r"cannot be read as \.safetensors.*copy it again"):
        minilm.tensors(path)


def test_weights_that_are_missing_or_of_another_shape_are_refused():
    model, weights = minilm.encoder(SIZES), arrays(SIZES)
    without = {name: array for name, array in weights.items() if name != "encoder.layer.1.output.dense.bias"}
    with pytest.raises(InputError, match=r"arrays hold no encoder\.layer\.1\.output\.dense\.bias, which layer_1_down"):
        minilm.fill(model, without)
    with pytest.raises(InputError, match=r"which takes .* build an encoder of their Sizes"):
        minilm.fill(minilm.encoder(minilm.Sizes(**{**vars(SIZES), "hidden": 41})), weights)


def test_a_missing_file_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv(repository.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(repository.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError) as refused:
        minilm.load()
    for told in ("model.safetensors", "tokenizer.json", "huggingface.co", str(tmp_path / "minilm"), "cache"):
        assert told in str(refused.value)
    monkeypatch.delenv(repository.DATA_VARIABLE)
    with pytest.raises(InputError, match=r"tokenizer\.json of all-MiniLM-L6-v2 is not in .*cache"):
        minilm.tokenizer()


def test_other_files_under_its_name_are_refused(tmp_path):
    saved(tmp_path / "model.safetensors", arrays(SIZES))
    with pytest.raises(InputError, match=r"its SHA-256 is another\): download"):
        minilm.load(tmp_path)
    frame = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    model = {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {p: n for n, p in enumerate(frame)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(InputError, match="does not hold the vocabulary of all-MiniLM-L6-v2: download"):
        minilm.tokenizer(tmp_path)


# --- all-MiniLM-L6-v2 itself

AT_HAND = Path(os.environ.get(repository.DATA_VARIABLE) or ".") / minilm.FOLDER / minilm.WEIGHTS
needs_weights = pytest.mark.skipif(
    not AT_HAND.is_file(), reason=f"the weights of {minilm.NAME} are not in ${repository.DATA_VARIABLE}/{minilm.FOLDER}"
)


@needs_weights
@pytest.mark.parametrize("mask", [minilm.LARGE, minilm.SMALL])
def test_it_gives_the_published_values(mask):
    pieces = minilm.tokenizer(AT_HAND.parent)(["This is an example sentence"], minilm.LENGTH)
    found = vectors(minilm.load(AT_HAND.parent, mask), pieces)[0]
    np.testing.assert_allclose(found[:3], PUBLISHED, atol=1e-4)


@needs_weights
def test_its_pieces_are_those_of_bert():
    split = minilm.tokenizer(AT_HAND.parent)
    assert split(["This is an example sentence"], 8)[0].tolist() == [101, 2023, 2003, 2019, 2742, 6251, 102, 0]
    assert split.pieces("Unbelievably, the embeddings!") == [
        "un", "##bel", "##ie", "##va", "##bly", ",", "the", "em", "##bed", "##ding", "##s", "!",
    ]  # fmt: skip


@needs_weights
def test_the_cure_of_a_missing_file_works(monkeypatch, tmp_path):
    monkeypatch.setenv(repository.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(repository.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"tokenizer\.json of all-MiniLM-L6-v2 is not in"):
        minilm.tokenizer()
    (tmp_path / minilm.FOLDER).mkdir()
    shutil.copy(AT_HAND.parent / minilm.TOKENIZER, tmp_path / minilm.FOLDER)
    assert len(minilm.tokenizer().numbers) == minilm.Sizes().vocabulary
