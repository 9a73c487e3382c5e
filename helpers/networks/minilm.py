"""A sentence Transformer in Keras: a BERT encoder (Devlin et al. 2019) with mean pooling, with random weights or those of
all-MiniLM-L6-v2.

Every dense layer has a name of its own, and what a table calls a tensor comes from these names. The weights of
all-MiniLM-L6-v2 (sentence-transformers; Apache License 2.0 by its authors) are not in the repository: `load` finds them where
the data sets of one's own lie, and says how to get them.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError
from helpers.networks import wordpiece

with runtime_env.quiet():
    import tensorflow as tf

NAME = "all-MiniLM-L6-v2"
LICENCE = "Apache License 2.0, by its authors (sentence-transformers)"
FOLDER, WEIGHTS, TOKENIZER = "minilm", "model.safetensors", "tokenizer.json"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY_SHA256 = "0f052197aac305fe42f378b5c61554b7bacb34b8be4af83fec2cfdcdffbc9973"
LENGTH = 32  # pieces of a sentence, the two that frame it included
PAD = 0  # the number of the piece that fills up
SMALL, LARGE = -20.0, -1e9  # what is added to the score of a piece that fills up; BERT's code has long had the second
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


@dataclass(frozen=True)
class Sizes:
    """Of an encoder: pieces in its vocabulary, numbers of a piece's vector, layers, heads of attention, numbers in the feed-forward
    part, pieces of a sentence. The defaults are those of all-MiniLM-L6-v2."""

    vocabulary: int = 30522
    width: int = 384
    layers: int = 6
    heads: int = 12
    hidden: int = 1536
    length: int = LENGTH

    def __post_init__(self):
        if min(self.vocabulary, self.width, self.layers, self.heads, self.hidden) < 1 or self.length < 2:
            raise InputError(f"{self}: each must be at least 1, and length 2.")
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}.")


@tf.keras.utils.register_keras_serializable("compression_lab")
class Positions(tf.keras.layers.Layer):
    """Adds a vector of weights for each place: (n, length, width) -> the same."""

    def build(self, input_shape):
        self.vectors = self.add_weight(name="vectors", shape=input_shape[1:], initializer="uniform")

    def call(self, inputs):
        return tf.add(inputs, self.vectors, name="sum")


@tf.keras.utils.register_keras_serializable("compression_lab")
class Padding(tf.keras.layers.Layer):
    """Which pieces only fill up: int32 (n, length) -> what is added to their scores, float32 (n, 1, 1, length), `value` or 0."""

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def get_config(self):
        return {**super().get_config(), "value": self.value}

    def call(self, inputs):
        fills = tf.reshape(tf.cast(tf.equal(inputs, PAD), tf.float32), (-1, 1, 1, inputs.shape[1]))
        return tf.multiply(fills, self.value, name="mask")


@tf.keras.utils.register_keras_serializable("compression_lab")
class Heads(tf.keras.layers.Layer):
    """Attention of several heads: queries, keys, values (n, length, width) and a mask (n, 1, 1, length) -> (n, length, width)."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}

    def call(self, inputs):
        *parts, mask = inputs
        length, width = parts[0].shape[1:]
        split = [tf.reshape(part, (-1, length, self.heads, width // self.heads)) for part in parts]
        queries, keys, values = (tf.transpose(part, (0, 2, 1, 3)) for part in split)
        scores = tf.matmul(queries, keys, transpose_b=True, name="products")
        scores = tf.multiply(scores, 1 / math.sqrt(width // self.heads), name="scores")
        shares = tf.nn.softmax(tf.add(scores, mask, name="masked"), name="shares")
        mixed = tf.transpose(tf.matmul(shares, values, name="mixed"), (0, 2, 1, 3))
        return tf.reshape(mixed, (-1, length, width))


@tf.keras.utils.register_keras_serializable("compression_lab")
class Pooling(tf.keras.layers.Layer):
    """The mean of a sentence's pieces at length 1: (n, length, width) and its pieces, int32 (n, length) -> (n, width)."""

    def call(self, inputs):
        vectors, pieces = inputs
        counts = tf.cast(tf.not_equal(pieces, PAD), tf.float32)
        shares = tf.reshape(counts / tf.reduce_sum(counts, axis=1, keepdims=True), (-1, pieces.shape[1], 1))
        return tf.math.l2_normalize(tf.reduce_sum(vectors * shares, axis=1, name="mean"), axis=1)


def encoder(sizes=None, mask=LARGE):
    """A BERT encoder with mean pooling and random weights: pieces, int32 (n, length), as `wordpiece.WordPiece` gives them -> a
    vector of length 1 for each sentence, float32 (n, width). One flat functional model.

    sizes: `Sizes`. mask: what is added to the scores of pieces that fill up. Raises InputError for a mask of 0 or above.
    """
    if not mask < 0:
        raise InputError(f"mask={mask} must be below 0: it takes attention away from pieces that fill up.")
    sizes, layers = sizes or Sizes(), tf.keras.layers

    def normed(x, name):
        return layers.LayerNormalization(epsilon=1e-12, name=name)(x)

    def dense(
        units, x, name
    ):  # of three axes, Dense alone would have the file work out its shapes anew for each sentence
        return layers.TimeDistributed(layers.Dense(units, name=name), name=name)(x)

    pieces = layers.Input((sizes.length,), dtype="int32", name="pieces")
    padding = Padding(mask, name="padding")(pieces)
    x = layers.Embedding(sizes.vocabulary, sizes.width, name="word_embedding")(pieces)
    x = normed(Positions(name="position_embedding")(x), "embedding_norm")
    for number in range(sizes.layers):
        name = f"layer_{number}"
        parts = [dense(sizes.width, x, f"{name}_{part}") for part in ("query", "key", "value")]
        mixed = Heads(sizes.heads, name=f"{name}_heads")([*parts, padding])
        mixed = dense(sizes.width, mixed, f"{name}_attention_output")
        x = normed(layers.Add(name=f"{name}_attention_residual")([mixed, x]), f"{name}_attention_norm")
        wide = layers.Activation("gelu", name=f"{name}_gelu")(dense(sizes.hidden, x, f"{name}_up"))
        down = dense(sizes.width, wide, f"{name}_down")
        x = normed(layers.Add(name=f"{name}_residual")([down, x]), f"{name}_norm")
    return tf.keras.Model(pieces, Pooling(name="pooling")([x, pieces]), name="encoder")


def load(folder=None, mask=LARGE, length=LENGTH):
    """all-MiniLM-L6-v2 as a Keras model: pieces, int32 (n, length) -> float32 (n, 384), of length 1.

    folder: where WEIGHTS and TOKENIZER lie; by default $COMPRESSION_LAB_DATA/minilm, or minilm in the cache. mask: as `encoder`
    takes it. Raises InputError, saying how to get them, where they are missing or not those of its authors.
    """
    path = _file(folder, WEIGHTS)
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise InputError(f"{path} is not the file of {NAME}'s authors (its SHA-256 is another): {_cure(path.parent)}")
    model = encoder(Sizes(length=length), mask)
    fill(model, tensors(path))
    return model


def tokenizer(folder=None):
    """The WordPiece of all-MiniLM-L6-v2. folder: as in `load`. Raises InputError likewise."""
    path = _file(folder, TOKENIZER)
    found = wordpiece.from_file(path)
    if found.sha256 != VOCABULARY_SHA256:
        raise InputError(f"{path} does not hold the vocabulary of {NAME}: {_cure(path.parent)}")
    return found


def tensors(path):
    """The arrays of a `.safetensors` file, name -> array: the length of a header, the header in JSON, and their bytes.

    Raises InputError for a damaged file, and for types that NumPy does not have, such as BF16.
    """
    blob = Path(path).read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    try:
        header = json.loads(blob[8:start])
        header.pop("__metadata__", None)
        found = {}
        for name, about in header.items():
            first, last = about["data_offsets"]
            part = blob[start + first : start + last]
            found[name] = np.frombuffer(part, DTYPES[about["dtype"]]).reshape(about["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} ({len(blob):,} bytes) cannot be read as .safetensors ({type(error).__name__}: {error}): copy it again, or "
            f"save it with arrays of {', '.join(DTYPES)}."
        ) from error
    return found


def fill(model, arrays):
    """Put the weights of a BERT encoder, name -> array as PyTorch has them, into what `encoder` built. Raises InputError for one
    that is missing or of another shape."""
    sizes = {layer.name: layer for layer in model.layers if layer.weights}
    for name, layer in sizes.items():
        try:
            values = _values(name, arrays, model.input_shape[1])
        except KeyError as error:
            raise InputError(
                f"arrays hold no {error.args[0]}, which {name} needs: give those of a BERT encoder."
            ) from error
        wanted = [tuple(weight.shape) for weight in layer.weights]
        if [value.shape for value in values] != wanted:
            raise InputError(
                f"arrays have {[value.shape for value in values]} for {name}, which takes {wanted}: build an encoder of their Sizes."
            )
        layer.set_weights(values)


def _values(name, arrays, length):
    """The weights of a layer of ours, in Keras' order."""
    if name == "word_embedding":
        return [arrays["embeddings.word_embeddings.weight"]]
    if name == "position_embedding":  # all pieces are of the first of two types, whose vector goes along
        positions = arrays["embeddings.position_embeddings.weight"][:length]
        return [positions + arrays["embeddings.token_type_embeddings.weight"][0]]
    if name == "embedding_norm":
        place = "embeddings.LayerNorm"
    else:
        _, number, part = name.split("_", 2)
        place = f"encoder.layer.{number}.{PLACES[part]}"
    weight, bias = arrays[f"{place}.weight"], arrays[f"{place}.bias"]
    return [weight if weight.ndim == 1 else weight.T, bias]


PLACES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def _file(folder, name):
    """Where a file of all-MiniLM-L6-v2 lies. Raises InputError if it does not."""
    given = repository.given_data(FOLDER)
    places = [Path(folder)] if folder else [*([given] if given else []), repository.cache_folder() / FOLDER]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise InputError(f"{name} of {NAME} is not in {' or '.join(map(str, places))}: {_cure(places[0])}")


def _cure(place):
    return (
        f"download {WEIGHTS} and {TOKENIZER} of sentence-transformers/{NAME} from the model hub of its authors "
        f"(huggingface.co) into {place} (a folder {FOLDER}/ in the one that ${repository.DATA_VARIABLE} names)."
    )
