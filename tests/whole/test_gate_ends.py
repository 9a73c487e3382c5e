"""The gate and the ends of files as converters make them: several inputs and outputs, other names, integers, open sizes."""

import shlex
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.deploy import gate, gate_report
from helpers.deploy.policy import Policy
from helpers.tflite import interpreting

with runtime_env.quiet():
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

N = 400
RANDOM = np.random.default_rng(0)
W, V = RANDOM.normal(size=(8, 3)).astype("float32"), RANDOM.normal(size=(4, 1)).astype("float32")
VECTORS = RANDOM.normal(size=(50, 8)).astype("float32")
IMAGE, TABLE = RANDOM.normal(size=(N, 8)).astype("float32"), RANDOM.normal(size=(N, 4)).astype("float32")
BOTH = {"image": IMAGE, "table": TABLE}
TOKENS = RANDOM.integers(0, 50, (N, 16))
BYTES = RANDOM.integers(0, 256, (N, 8), np.uint8)
KIND, PRICE = (IMAGE @ W).argmax(axis=1), TABLE @ V
LABELS = {"kind": KIND, "price": PRICE}
FLOAT, OPEN = ((1, 8), tf.float32), ((None, None), tf.int32)


def converted(function, **ends):
    """A `.tflite` of a function. ends: name of an input -> shape, dtype."""
    specs = [tf.TensorSpec(*end, name=name) for name, end in ends.items()]
    return quantize.convert(tf.function(function, input_signature=specs).get_concrete_function())


def two_ends(kind="kind", price="price", batch=1, wrong=False):
    def function(image, table):
        return {kind: tf.nn.softmax(image @ (-W if wrong else W)), price: table @ V}

    return converted(function, image=((batch, 8), tf.float32), table=((batch, 4), tf.float32))


def reversed_ends(model, side):
    """The file with its inputs or outputs in another order; its signature says which is which."""
    content = schema.ModelT.InitFromPackedBuf(model, 0)
    setattr(content.subgraphs[0], side, getattr(content.subgraphs[0], side)[::-1])
    return packed(content)


def packed(content):
    builder = flatbuffers.Builder()
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def by_token(length=None, batch=None):
    return converted(
        lambda tokens: tf.reduce_mean(tf.gather(VECTORS, tokens), 1) @ W, tokens=((batch, length), tf.int32)
    )


def judged(candidate, baseline, x, y=None, policy=None, **settings):
    return gate.judge(candidate, baseline, x, y, policy, **{"speed": False, **settings})


def because(decision):
    assert decision.outcome == gate.REJECTED
    assert "\n" not in gate_report.summary(decision)
    return decision.checks[-1].because


def names(model, side):
    return [each["name"] for each in interpreting.declared(interpreting.opened(model, 1))[side]]


@pytest.fixture(scope="module")
def baseline():
    return two_ends()


# --- several inputs and outputs


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_the_order_of_inputs_and_outputs_does_not_matter(baseline, side):
    other, place = reversed_ends(baseline, side), ("inputs", "outputs").index(side)
    assert names(other, place) == names(baseline, place)[::-1]
    decision = judged(other, baseline, BOTH, LABELS)
    assert decision.outcome == gate.ACCEPTED
    scores = [decision.measured[name].value for name in ("top1.kind.candidate", "r2.price.candidate")]
    assert scores == pytest.approx([1, 1])


def test_each_output_is_judged_by_itself(baseline):
    decision = judged(two_ends(wrong=True), baseline, BOTH, LABELS)
    found = {check.name: check.outcome for check in decision.checks[3:]}
    assert found == {"R² drop of price": "pass", "accuracy drop of kind": "fail"}


def test_the_names_of_outputs_count_and_not_their_shapes(baseline):
    """What is called price has the kinds."""
    swapped = two_ends(kind="price", price="kind")
    assert because(judged(swapped, baseline, BOTH)).endswith("the baseline's output price is float32 (1, 1)")


def unsigned(model):
    """The file without its signature, and so with the names of its tensors, such as PartitionedCall:0."""
    content = schema.ModelT.InitFromPackedBuf(model, 0)
    content.signatureDefs = None
    return packed(content)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        lambda: two_ends("a", "b"),
        lambda: two_ends("kind", "cost"),
        lambda: two_ends("x;y z", "price"),
        lambda: unsigned(two_ends()),
    ],
)
def test_other_names_are_rejected_with_the_options_that_cure_it(tmp_path, monkeypatch, baseline, other, turned):
    monkeypatch.chdir(tmp_path)
    files = (baseline, other())[:: -1 if turned else 1]
    for name, file in zip(("baseline.tflite", "candidate.tflite"), files, strict=True):
        (tmp_path / name).write_bytes(file)
    np.savez(tmp_path / "test.npz", **BOTH)
    words = ["gate", "candidate.tflite", "--baseline", "baseline.tflite", "--data", "test.npz", "--no-speed"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and "say which is which, as in --output " in result.output.splitlines()[-1]
    cure = shlex.split(result.output.splitlines()[-1].rstrip(".").partition("as in ")[2])
    result = CliRunner().invoke(main, [*words, *cure])
    assert result.exit_code == 0, result.output


def test_a_tensor_that_is_put_out_twice_has_both_names():
    def function(image):
        found = image @ W
        return {"one": found, "other": found}

    twice = converted(function, image=FLOAT)
    assert sorted(names(twice, 1)) == ["one", "other"]
    decision = judged(twice, twice, IMAGE, {"one": KIND, "other": KIND})
    assert decision.outcome == gate.ACCEPTED and decision.measured["top1.other.candidate"].value == 1


def test_long_names_that_begin_alike_are_told_apart():
    long = converted(lambda image: {999 * "a" + "1": image @ W, 999 * "a" + "2": image[:, :3]}, image=FLOAT)
    assert judged(long, long, IMAGE).outcome == gate.ACCEPTED


@pytest.mark.parametrize(
    "function, told",
    [
        (lambda image: image @ W, "the baseline has 2 outputs: float32 (1, 1), float32 (1, 3)"),
        (lambda image: {"kind": image @ W, "price": tf.cast(image[:, :1], tf.complex64)}, "is complex64: numbers are"),
        (lambda image: {"kind": image @ W, "price": tf.cast(image[:, :1], tf.int64)}, "is int64 without a scale"),
        (lambda image: {"kind": image @ W, "price": image[:, 0]}, "the baseline's output price is float32 (1, 1)"),
        (lambda image: {"kind": image @ W, "price": tf.reduce_sum(image)}, "output price is float32 (1, 1)"),
        (lambda image: {"kind": (image @ W)[:, None], "price": image[:, :1]}, "output kind is float32 (1, 3)"),
    ],
)
def test_outputs_of_another_kind_are_rejected_in_a_sentence(function, told):
    wanted = converted(lambda image: {"kind": image @ W, "price": image[:, :1]}, image=FLOAT)
    assert told in because(judged(converted(function, image=FLOAT), wanted, IMAGE))


# --- samples


def test_tokens_are_whole_numbers_and_an_open_length_is_that_of_the_samples():
    y = (VECTORS[TOKENS].mean(axis=1) @ W).argmax(axis=1)
    files = [by_token(), by_token(batch=1), by_token(length=16), by_token(length=16, batch=1)]
    for candidate in files:
        decision = judged(candidate, files[0], TOKENS, y)
        assert decision.outcome == gate.ACCEPTED and decision.measured["top1.candidate"].value == 1
    assert judged(files[0], files[-1], TOKENS, y).outcome == gate.ACCEPTED
    assert judged(files[-1], files[0], TOKENS, y, rounds=6, speed=True).measured["latency_ratio"].value > 0
    told = because(judged(by_token(length=12), files[0], TOKENS, y))
    assert told.endswith("its input has shape (1, 12), one sample has (1, 16)")


@pytest.mark.parametrize(
    "x, message, cured",
    [
        (TOKENS.astype("float32"), "its input is int32 without a scale, the samples are float32: give whole", TOKENS),
        (
            TOKENS + 2**32,
            r"is int32, which holds -2147483648 to 2147483647: the samples go from 42949672\d\d to",
            TOKENS,
        ),
        (TOKENS + 50, "gather index out of bounds", TOKENS),
    ],
)
def test_samples_that_are_no_tokens_are_refused(x, message, cured):
    with pytest.raises(InputError, match=message):
        judged(by_token(), by_token(), x)
    assert judged(by_token(), by_token(), cured).outcome == gate.ACCEPTED


def test_bytes_are_not_wrapped_around():
    of_bytes = converted(lambda x: tf.cast(x, tf.float32) / 255 @ W, x=((1, 8), tf.uint8))
    y = (BYTES / 255 @ W).argmax(axis=1)
    for x in (BYTES, BYTES.astype(int)):
        assert judged(of_bytes, of_bytes, x, y).measured["top1.candidate"].value == 1
    for x in (BYTES.astype(int) + 1, BYTES.astype(int) - 1):
        with pytest.raises(InputError, match=r"its input is uint8, which holds 0 to 255: the samples go from -?\d+ to"):
            judged(of_bytes, of_bytes, x, y)


def test_an_input_of_uint8_with_a_scale_takes_the_floats_of_the_baseline():
    layers = tf.keras.layers
    net = tf.keras.Sequential([layers.Input(8), layers.Dense(16, "relu"), layers.Dense(3)])
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations, converter.representative_dataset = (
        [tf.lite.Optimize.DEFAULT],
        lambda: ([x[None]] for x in IMAGE),
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    with runtime_env.quiet():
        quantized = converter.convert()
    decision = judged(quantized, quantize.convert(net), IMAGE, policy=Policy(max_drop=0.2, min_sqnr=15))
    assert decision.outcome == gate.ACCEPTED and decision.candidate["inputs"][0]["dtype"] == "uint8"


def test_samples_laid_end_to_end_in_another_axis_are_judged_one_by_one():
    laid = converted(lambda x: tf.reshape(x @ W, (1, -1, 3)), x=((None, 8), tf.float32))
    each = converted(lambda x: tf.reshape(x @ W, (1, 1, 3)), x=FLOAT)
    for candidate, other in ((laid, each), (each, laid)):
        decision = judged(candidate, other, IMAGE, (IMAGE @ W)[:, None])
        assert decision.outcome == gate.ACCEPTED and decision.measured["r2.candidate"].value > 0.999


# --- what answers for a candidate


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(bytes(99)), lambda path: path.write_bytes(path.read_bytes()[:-4])],
)
def test_what_its_process_wrote_is_checked(monkeypatch, baseline, damage):
    real = gate.runner.run

    def run(job, folder):
        answer = real(job, folder)
        if job["write"] == "candidate":
            damage(Path(folder) / "candidate1.npy")
        return answer

    monkeypatch.setattr(gate.runner, "run", run)
    assert because(judged(baseline, baseline, BOTH, LABELS)) == gate.outputs.NONSENSE


@pytest.mark.parametrize("lie", [{"blocks": []}, {"blocks": [[{"it": 1}]]}, {"blocks": 3}, {}, {"blocks": [["x"]]}])
def test_nonsense_in_the_place_of_times_is_rejected(monkeypatch, baseline, lie):
    real = gate.runner.run
    monkeypatch.setattr(gate.runner, "run", lambda job, folder: lie if job["task"] == "time" else real(job, folder))
    decision = judged(baseline, baseline, BOTH, LABELS, speed=True, rounds=6)
    assert decision.checks[-1].name == "speed and memory" and because(decision) == gate.outputs.NONSENSE
