"""What a sentence Transformer loses in int8, and which of its tensors are to blame: variants of all-MiniLM-L6-v2 by name.

Three causes, each with its cure. A mask of -1e9 sets the scale of the scores of attention: -20 does as well. In sums and
normalizations one channel is up to a hundred times larger than the others: those operators stay in float32. That comes from one
channel of GELU on a sentence's first piece, which the dense layer behind it, `down`, makes larger still: GELU stays in float32, and
the dense layer in dynamic range, where each piece has a scale of its own. Neither of the last two can be migrated into weights:
what a normalization leaves is added again behind the next block, and GELU lets no factor through.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize, requantize
from helpers.evidence import stats
from helpers.networks import minilm, sentences
from helpers.tflite import litert

with runtime_env.quiet():
    import tensorflow as tf

BATCH = 32
FLOAT = "float32"
# What is to blame -> the layers that it lies in, as a pattern of their names.
PARTS = {
    "scores": r"padding|layer_\d+_heads",
    "residual": r"position_embedding|embedding_norm|layer_\d+_(attention_)?(residual|norm)",
    "down": r"layer_[0-3]_(gelu|down)",
    "forward": r"layer_\d+_(up|gelu|down)",
}
LAYERS = r".*_(gelu|residual|norm)"  # whose values `extremes` looks at


@dataclass(frozen=True)
class Variant:
    """A way to quantize an encoder. mask: what it adds to the scores of pieces that fill up. recipe: of `quantize`; None for int8
    by `requantize`. Then spared: keys of PARTS that stay in float32, their dense layers in dynamic range; or alone:
    keys of PARTS that are int8 while all else is float32."""

    mask: float = minilm.LARGE
    recipe: str | None = None
    spared: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


VARIANTS = {
    FLOAT: Variant(recipe="float32"),
    "dynamic": Variant(recipe="dynamic"),
    "int8": Variant(recipe="int8"),
    "int8_mask": Variant(minilm.SMALL, recipe="int8"),
    "float32_mask": Variant(minilm.SMALL, recipe="float32"),
    # one cause, and nothing else is quantized
    "only_scores": Variant(alone=("scores",)),
    "only_scores_mask": Variant(minilm.SMALL, alone=("scores",)),
    "only_residual": Variant(alone=("residual",)),
    "only_down": Variant(alone=("down",)),
    # everything is quantized but for the cures
    "none": Variant(),
    "mask": Variant(minilm.SMALL),
    "residual": Variant(spared=("residual",)),
    "down": Variant(spared=("down",)),
    "residual_down": Variant(spared=("residual", "down")),
    "mask_residual": Variant(minilm.SMALL, spared=("residual",)),
    "mask_down": Variant(minilm.SMALL, spared=("down",)),
    "mask_residual_down": Variant(minilm.SMALL, spared=("residual", "down")),
    "mixed": Variant(minilm.SMALL, spared=("residual", "forward")),
}


class Bench:
    """An encoder, sentences to calibrate with and to judge by, and what has been made of them so far.

    build: mask -> Keras model, as `minilm.load` gives it. calibration, pieces: int32 (n, length); pieces are those of all
    statements, then of all paraphrases, as `sentences.found` takes their vectors. groups: int (statements,).
    """

    def __init__(self, build, calibration, pieces, groups):
        if len(pieces) != 2 * len(groups):
            raise InputError(
                f"pieces are of {len(pieces)} sentences, groups of {len(groups)}: give two sentences for each."
            )
        self.calibration, self.pieces, self.groups = calibration, pieces, groups
        self._build, self._encoders, self._floats, self._ranges, self._exact = build, {}, {}, {}, None

    def file(self, name):
        """The bytes of a variant, by its name in VARIANTS. Raises InputError for another name."""
        if name not in VARIANTS:
            raise InputError(f"variant={name!r} is unknown: choose one of {', '.join(VARIANTS)}.")
        variant = VARIANTS[name]
        if name == FLOAT:
            return self._float(variant.mask)
        if variant.recipe:
            return quantize.convert(self._encoder(variant.mask)[0], variant.recipe, self.calibration)
        model = self._float(variant.mask)
        if variant.mask not in self._ranges:
            self._ranges[variant.mask] = requantize.calibrate(model, self.calibration)
        formats = formats_of(variant, operators(model, self._encoder(variant.mask)[1]))
        return requantize.apply(model, formats, self._ranges[variant.mask])

    def vectors(self, model):
        """What a file makes of the pieces: float32 (sentences, width)."""
        return litert.predict(model, self.pieces, BATCH)

    def judge(self, models):
        """What files lose, a row for each: top1, the share of paraphrases that find their statement; change, of it, against
        float32; fidelity, the mean cosine with float32's vectors; all Estimates, whose intervals count groups of statements, or
        sentences. agreement: `sentences.agreement`. size: bytes. models: name -> bytes of a `.tflite`."""
        if self._exact is None:
            self._exact = self.vectors(self.file(FLOAT))
        right = self._right(self._exact)
        rows, itself = [], stats.Estimate(1.0, unit="share")
        for name, model in models.items():
            vectors = self._exact if name == FLOAT else self.vectors(model)
            near, found = sentences.fidelity(self._exact, vectors), self._right(vectors)
            rows.append(
                {
                    "variant": name,
                    "top1": stats.score(found),
                    "change": stats.score_difference(right, found),
                    "fidelity": itself if name == FLOAT else stats.score(near),
                    "agreement": sentences.agreement(self._exact, vectors),
                    "size": len(model),
                }
            )
        return pd.DataFrame(rows).set_index("variant")

    def _right(self, vectors):
        return sentences.by_group(sentences.found(vectors), self.groups)

    def _encoder(self, mask):
        """An encoder, frozen, and the names of its layers."""
        if mask not in self._encoders:
            model = self._build(mask)
            self._encoders[mask] = quantize.freeze(model), [layer.name for layer in model.layers]
        return self._encoders[mask]

    def _float(self, mask):
        if mask not in self._floats:
            self._floats[mask] = quantize.convert(self._encoder(mask)[0])
        return self._floats[mask]


def prepare(folder=None):
    """The Bench of all-MiniLM-L6-v2 and the lab's sentences. folder: as `minilm.load` takes it, with what it raises."""
    texts, split = sentences.load(), minilm.tokenizer(folder)
    calibration, pieces = (split(some, minilm.LENGTH) for some in (texts.calibration, texts.judged))
    return Bench(lambda mask: minilm.load(folder, mask), calibration, pieces, texts.groups)


def operators(model, layers):
    """The operators of an encoder's float file that give real numbers, a row each: layer (one of `layers`, names of the Keras
    model's), op, name (of the output tensor)."""
    table = litert.weight_layers(model, layers, others=True)
    return table.assign(layer=table["layer"].str.split("/").str[0])[["layer", "op", "name"]]


def formats_of(variant, operators):
    """The formats that `requantize.apply` takes for a Variant without a recipe: operator or output tensor -> Format, or None.

    Raises InputError where a part that it names has no operators.
    """
    int8, dynamic = requantize.Format(), requantize.Format(activations=requantize.DYNAMIC)
    if variant.alone:
        return dict.fromkeys(_within(operators, variant.alone)["name"], int8)
    formats = {requantize.EVERYTHING: int8}
    if variant.spared:
        spared = _within(operators, variant.spared)
        dense = spared["op"] == "FULLY_CONNECTED"
        formats |= dict.fromkeys(spared["name"][~dense]) | dict.fromkeys(spared["name"][dense], dynamic)
    return formats


def extremes(model, pieces):
    """The largest values in the tensors of an encoder, which decide their scales: a row for each of its sums, normalizations and
    GELUs, in order: layer, largest (absolute value), typical (median over the channels of theirs), channel and place (piece
    of the sentence, from 0) of the largest, first (largest on the first piece), others (largest on all others).

    model: of `minilm.encoder`. pieces: int32 (n, length).
    """
    names = [layer.name for layer in model.layers if re.fullmatch(LAYERS, layer.name)]
    inner = tf.keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    most = [0.0] * len(names)
    for start in range(0, len(pieces), BATCH):
        outputs = inner(tf.convert_to_tensor(pieces[start : start + BATCH]), training=False)
        most = [np.maximum(known, np.abs(of).max(axis=0)) for known, of in zip(most, outputs, strict=True)]
    rows = []
    for name, of in zip(names, most, strict=True):  # of: (length, channels)
        place, channel = np.unravel_index(of.argmax(), of.shape)
        rows.append(
            {
                "layer": name,
                "largest": float(of.max()),
                "typical": float(np.median(of.max(axis=0))),
                "channel": int(channel),
                "place": int(place),
                "first": float(of[0].max()),
                "others": float(of[1:].max()),
            }
        )
    return pd.DataFrame(rows).set_index("layer")


def _within(operators, parts):
    """The rows of the operators that lie in some PARTS."""
    chosen = pd.Series(False, operators.index)
    for part in parts:
        inside = operators["layer"].str.fullmatch(PARTS[part])
        if not inside.any():
            raise InputError(
                f"part={part!r} ({PARTS[part]}) fits no layer of this model: it needs an encoder of `minilm`."
            )
        chosen |= inside
    return operators[chosen]
