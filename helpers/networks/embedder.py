"""A face camera in miniature: a network that puts pictures of one identity near each other, also of one that it never saw."""

from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.evidence import stats, verification
from helpers.networks import data, glyphs

with runtime_env.quiet():
    import tensorflow as tf

WIDTHS = ((16, 2), (32, 1), (48, 2), (64, 1), (96, 2))  # channels and stride of each convolution
SCALE, MARGIN = 16.0, 0.25  # of the cosines in training
TEST_PICTURES = 6  # of each identity
RATES = (0.01, 0.001)  # of false accepts, by which a card tells


@dataclass(frozen=True)
class Recipe:
    """How an embedder is trained: to tell the training part of `glyphs` apart by cosines with a margin (Wang et al. 2018,
    *CosFace*), by Adam with a cosine-decayed learning rate, every batch of pictures new."""

    size: int = glyphs.SIDE
    numbers: int = 32
    steps: int = 1500
    learning_rate: float = 3e-3
    batch_size: int = 128
    seed: int = 0

    def train(self, report):
        """The trained model, and what its card says of it: a dict. report: takes a line of progress now and then."""
        parts = glyphs.parts(glyphs.load())
        runtime_env.seed_everything(self.seed)
        model = network(self.size, self.numbers)
        known, random = parts["train"].pictures, np.random.default_rng(self.seed)
        centres = tf.Variable(tf.random.normal((self.numbers, len(known)), seed=self.seed))
        adam = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps))

        @tf.function(autograph=False)
        def step(x, who):
            with tf.GradientTape() as tape:
                near = tf.matmul(model(x, training=True), tf.math.l2_normalize(centres, axis=0))
                logits = SCALE * (near - MARGIN * tf.one_hot(who, len(known)))
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(who, logits))
            trained = [*model.trainable_variables, centres]
            adam.apply_gradients(zip(tape.gradient(loss, trained), trained, strict=True))
            return loss

        for number in range(1, self.steps + 1):
            who = random.integers(0, len(known), self.batch_size)
            pictures = known[who, random.integers(0, len(glyphs.FACES), self.batch_size)]
            loss = step(glyphs.taken(pictures, random), who)
            if number % max(1, self.steps // 8) == 0:
                report(f"step {number} of {self.steps}, loss {float(loss):.3f}")
        x, who = glyphs.photographs(parts["test"], TEST_PICTURES, seed=0)
        vectors, scores = model.predict(x, verbose=0), {}
        for rate in RATES:
            reached = stats.score(verification.true_accepts(vectors, who, rate))
            scores[f"tar_at_{rate:g}_test"] = {
                "value": reached.value,
                "low": reached.low,
                "high": reached.high,
                "identities": len(parts["test"]),
                "pictures": len(x),
            }
        return model, {
            "model": f"Embedder, {self.size} px, {self.numbers} numbers of length 1, one seed",
            "data": {
                "name": "glyphs",
                "sha256": data.fingerprint({"pictures": glyphs.load().pictures}),
                "trained_on": f"{len(known)} characters in {len(glyphs.FACES)} typefaces of DejaVu",
            },
            **scores,
            "licence": "Trained from scratch; MIT, as this repository. The typefaces come with matplotlib",
        }


def network(size, numbers):
    """Five convolutions and a dense layer, whose output is brought to length 1: one flat functional model with random weights.

    size: input pixels, a multiple of 8; one channel. Raises InputError for another size, or for fewer than two numbers.
    """
    if size % 8 or size < 8 or numbers < 2:
        raise InputError(f"size={size} must be a multiple of 8 and numbers={numbers} at least 2.")
    layers = tf.keras.layers
    x = inputs = layers.Input((size, size, 1), name="picture")
    for number, (width, stride) in enumerate(WIDTHS, 1):
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x))
    x = layers.Dense(numbers, name="vector")(layers.Flatten(name="flat")(x))
    return tf.keras.Model(inputs, layers.UnitNormalization(name="unit")(x), name="embedder")
