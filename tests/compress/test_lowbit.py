"""The low-bit bench: its numbers are those of the files, and no file counts that did not do what it was asked for."""

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, kernels_held, lowbit, quantize, requantize
from helpers.compress.requantize import DYNAMIC, Format
from helpers.evidence import stats
from helpers.tflite import heads, inside, litert, runner

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
X = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
CALIBRATION, SAMPLES = X[:16], X[16:]
DENSE = "FULLY_CONNECTED"


@pytest.fixture(scope="module")
def network():
    """Convolutions, and dense layers that read tokens, behind operators which only move values: as in a ViT."""
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Reshape((-1, 32))(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(64)(layers.LayerNormalization()(x))
    return quantize.convert(tf.keras.Model(inputs, layers.Dense(9)(layers.GlobalAveragePooling1D()(x))))


@pytest.fixture(scope="module")
def correlated():
    """A dense layer whose inputs go together, of which a few are large, and weights of which few are large."""
    runtime_env.seed_everything(0)
    random = np.random.default_rng(0)
    mix = random.normal(size=(64, 64)) * np.exp(-np.arange(64) / 8)[:, None]
    x = (random.normal(size=(300, 64)) @ mix + 0.5).astype("float32")
    model = tf.keras.Sequential([layers.Input((64,)), layers.Dense(32)])
    model.layers[0].set_weights([random.standard_t(3, size=(64, 32)).astype("float32"), np.zeros(32, "float32")])
    return quantize.convert(model), x


def noise(file, float_file, x):
    return affine.sqnr(litert.predict(float_file, x), litert.predict(file, x))


def weights(float_file):
    """Of its only layer, (outputs, inputs)."""
    [kernel] = kernels_held.by_output(float_file).values()
    return np.frombuffer(kernel.content, "float32").reshape(kernel.shape)


def only(table, **wanted):
    [row] = table.loc[np.all([table[key] == value for key, value in wanted.items()], axis=0)].itertuples()
    return row


# --- numbers


@pytest.fixture(scope="module")
def table(network):
    labels = litert.predict(network, SAMPLES).argmax(1)
    labels[::4] = (labels[::4] + 1) % 9
    forms = [
        Format(4),
        Format(8, algorithm="gptq"),
        Format(4, DYNAMIC, algorithm="hadamard"),
        Format(2, DYNAMIC, algorithm="octav"),
        Format(8, None, algorithm="oscar"),
        Format(2, DYNAMIC, algorithm="mse"),
        Format(2, DYNAMIC, block=32),
        Format(2),
        Format(8, DYNAMIC, block=64),
    ]
    return labels, lowbit.bench(network, CALIBRATION, SAMPLES, lambda answers: answers.argmax(1) == labels, forms)


def test_a_row_tells_of_its_file(network, table):
    labels, table = table
    exact = litert.predict(network, SAMPLES)
    assert table.attrs["score"] == (exact.argmax(1) == labels).mean() == 18 / 24
    row, form = only(table, bits=4, activations="static"), Format(4)
    file = lowbit.quantized(network, form, CALIBRATION)
    assert file == requantize.apply(network, {"*": form}, requantize.calibrate(network, CALIBRATION))
    answers = litert.predict(file, SAMPLES)
    assert row.size == len(file) and row.seconds > 0 and row.refused == "" and row.outcome == lowbit.RUNS
    assert row.sqnr_db == pytest.approx(affine.sqnr(exact, answers), abs=0.1)
    assert row.agreement == (answers.argmax(1) == exact.argmax(1)).mean()
    change = stats.paired_difference(exact.argmax(1) == labels, answers.argmax(1) == labels)
    assert (row.change, row.low, row.high) == (change.value, change.low, change.high)
    assert np.isnan(row.gain)  # it is min-max itself


def test_a_row_tells_which_kernels_have_so_few_bits_and_which_by_the_algorithm(table):
    _, table = table
    dense, convolution, depthwise = 32 * 64 + 64 * 64 + 64 * 9, 32 * 27, 32 * 9
    every = dense + convolution + depthwise
    four = only(table, bits=4, activations="static")
    assert four.at_bits == four.by_algorithm == f"CONV_2D 1 of 1, DEPTHWISE_CONV_2D 0 of 1, {DENSE} 3 of 3"
    assert four.share == pytest.approx(1 - depthwise / every)
    eight = only(table, algorithm="gptq")
    assert eight.at_bits == f"CONV_2D 1 of 1, DEPTHWISE_CONV_2D 1 of 1, {DENSE} 3 of 3" and eight.share == 1
    assert eight.by_algorithm == f"CONV_2D 0 of 1, DEPTHWISE_CONV_2D 0 of 1, {DENSE} 3 of 3"
    assert (
        eight.sqnr_db > 25
    )  # its dense layers lie behind a RESHAPE, which must not lose what is known of their inputs
    two = only(table, algorithm="octav")
    assert two.at_bits == f"CONV_2D 0 of 1, DEPTHWISE_CONV_2D 0 of 1, {DENSE} 3 of 3"
    assert two.share == pytest.approx(dense / every) and two.outcome == lowbit.RUNS
    assert only(table, algorithm="hadamard").sqnr_db > 10  # of a file that leaves the number of samples open


def test_what_there_is_not_has_a_sentence_and_no_numbers(table):
    _, table = table
    rows = table[table["outcome"] != lowbit.RUNS]
    assert rows[["change", "sqnr_db", "agreement"]].isna().all(axis=None)
    told = {(row.algorithm, row.bits, row.block): (row.outcome, row.refused) for row in rows.itertuples()}
    assert told["oscar", 8, 0] == (lowbit.NO_KERNEL, f"oscar makes {DENSE} dynamic, whatever is asked for.")
    assert told["mse", 2, 0] == (lowbit.NOT_MADE, "mse has a factor for 8 and for 4 bits, and no blocks.")
    outcome, sentence = told["min_max", 2, 32]
    assert outcome == lowbit.NOT_RUN and "the interpreter does not run it: unsupported" in sentence
    kinds = f"CONV_2D, DEPTHWISE_CONV_2D, {DENSE}"
    assert told["min_max", 2, 0] == (
        lowbit.NO_KERNEL,
        f"litert-quantizer has no 2-bit weights (static) by min_max for {kinds}.",
    )
    assert told["min_max", 8, 64][0] == lowbit.NO_KERNEL
    assert len(told) == 5


def test_the_grid_is_every_algorithm_and_blocks():
    grid = lowbit.grid()
    assert len(grid) == len(set(grid)) == (6 + 2) * 3 * 3
    assert lowbit.grid(("gptq",), (4,), (DYNAMIC,), ()) == [Format(4, DYNAMIC, algorithm="gptq")]


# --- what each algorithm is for


def test_every_algorithm_changes_the_weights_and_gptq_and_octav_for_the_better(correlated):
    model, x = correlated
    exact, found, off = weights(model), {}, {}
    for name in ("min_max", "mse", "octav", "gptq"):
        file = lowbit.quantized(model, Format(4, None, algorithm=name), x[:200])
        [row] = litert.kernels_in(file).itertuples()
        found[name], off[name] = noise(file, model, x[200:]), ((row.integers * row.scales[:, None] - exact) ** 2).sum()
    assert len(set(found.values())) == 4
    assert found["gptq"] > found["min_max"] + 1 and off["gptq"] > off["min_max"] > off["octav"]
    finer = noise(lowbit.quantized(model, Format(4, DYNAMIC, block=32), x[:200]), model, x[200:])
    assert finer > noise(lowbit.quantized(model, Format(4, DYNAMIC), x[:200]), model, x[200:])


def test_oscar_is_that_of_the_dynamic_range(correlated):
    model, x = correlated
    ours = lowbit.quantized(model, Format(4, DYNAMIC, algorithm="oscar"), x[:50])
    assert ours == requantize.dynamic(model, 4, against="oscar", calibration=x[:50])


def test_a_dense_layer_of_2_bits_computes_what_its_weights_say(correlated):
    model, x = correlated
    kernel = weights(model)
    scales = np.abs(kernel).max(1, keepdims=True)
    rounded = np.clip(np.round(kernel / scales), -1, 1) * scales
    file = lowbit.quantized(model, Format(2, DYNAMIC), x)
    assert affine.sqnr(x @ rounded.T, litert.predict(file, x)) > 25  # but for 8 bits of activations


def test_a_convolution_of_2_bits_still_answers_nonsense(network, monkeypatch):
    """If not, `requantize.FEWEST_BITS` can do without it."""
    monkeypatch.setattr(requantize, "FEWEST_BITS", {requantize.DEPTHWISE: 8})
    [row] = lowbit.bench(network, CALIBRATION, SAMPLES, forms=[Format(2, DYNAMIC)]).itertuples()
    assert row.outcome in (lowbit.WRONG, lowbit.NOT_RUN) or row.sqnr_db < 0.5


# --- files that do not what they were asked for


def test_an_algorithm_that_silently_does_nothing_is_found_out(network, monkeypatch):
    monkeypatch.setattr(
        inside, "MOVING", ()
    )  # then static GPTQ finds nothing, and writes float32 under the name of int8
    with pytest.raises(StructureError, match="left 2 kernels in float32 and calls them integers"):
        lowbit.quantized(network, Format(8, algorithm="gptq"), CALIBRATION)
    monkeypatch.setattr(requantize, "known_to", lambda *_: {"nothing": {"mu2": np.ones(1)}})
    for name in ("gptq", "oscar"):
        with pytest.raises(StructureError, match="nothing is known of what 3 dense layers read"):
            lowbit.quantized(network, Format(8, DYNAMIC, algorithm=name), CALIBRATION)


def test_blocks_that_do_not_divide_a_layer_leave_it_as_it_was():
    model = quantize.convert(tf.keras.Sequential([layers.Input((20,)), layers.Dense(64), layers.Dense(5)]))
    x = np.random.default_rng(0).normal(size=(30, 20)).astype("float32")
    [row] = lowbit.bench(model, x, x, forms=[Format(4, DYNAMIC, block=64)]).itertuples()
    assert (row.at_bits, row.by_algorithm) == (f"{DENSE} 2 of 2", f"{DENSE} 1 of 2")
    assert np.isnan(row.change) and row.agreement > 0.5  # there were no labels
    small = quantize.convert(tf.keras.Sequential([layers.Input((20,)), layers.Dense(5)]))
    [row] = lowbit.bench(small, x, x, forms=[Format(4, DYNAMIC, block=64)]).itertuples()
    assert (row.outcome, row.refused[:34]) == (lowbit.NO_EFFECT, "min_max in blocks of 64 changed no")


def test_a_process_that_is_stopped_is_a_row(network):
    limits = {"seconds": 0.01, "bytes": 10**9}
    [row] = lowbit.bench(network, CALIBRATION, SAMPLES, forms=[Format(8, None)], limits=limits).itertuples()
    assert row.outcome == lowbit.NOT_RUN and "stopped after 0.01 s" in row.refused


# --- other models


def test_two_inputs_and_a_score_of_ones_own():
    left, right = layers.Input((8,), name="left"), layers.Input((8,), name="right")
    shared = layers.Dense(16, activation="relu")
    model = quantize.convert(tf.keras.Model([left, right], layers.Dense(4)(shared(left) - shared(right))))
    random = np.random.default_rng(0)
    x = {name: random.normal(size=(30, 8)).astype("float32") for name in ("left", "right")}
    table = lowbit.bench(
        model, x, x, lambda answers: -np.abs(answers).mean(1), lowbit.grid(("octav",), (8,), (None, 8), ())
    )
    assert (
        (table["outcome"] == lowbit.RUNS).all()
        and table["gain"].isna().all()
        and (table["at_bits"] == f"{DENSE} 3 of 3").all()
    )
    assert (table["low"] < table["change"]).all() and (table["change"] < table["high"]).all()


def test_what_is_gained_over_min_max_is_paired(correlated):
    model, x = correlated
    labels = litert.predict(model, x).argmax(1)
    forms = lowbit.grid(("min_max", "gptq"), (2,), (DYNAMIC,), ())
    table = lowbit.bench(model, x[:200], x[200:], lambda answers: answers.argmax(1) == labels[200:], forms)
    plain, gptq = (litert.predict(lowbit.quantized(model, form, x[:200]), x[200:]).argmax(1) for form in forms)
    gain = stats.paired_difference(plain == labels[200:], gptq == labels[200:])
    row = table.iloc[1]
    assert (row.gain, row.gain_low, row.gain_high) == (gain.value, gain.low, gain.high) and row.gain > 0


def test_weights_of_float16_are_widened_first(correlated):
    _, x = correlated
    half = quantize.convert(tf.keras.Sequential([layers.Input((64,)), layers.Dense(8)]), "float16")
    [row] = lowbit.bench(half, x, x, forms=[Format(4, None)]).itertuples()
    assert (row.outcome, row.at_bits) == (lowbit.RUNS, f"{DENSE} 1 of 1")


def test_convolutions_alone_and_a_batch_of_one():
    inputs = layers.Input((8, 8, 3), batch_size=1)
    model = quantize.convert(tf.keras.Model(inputs, layers.Conv2D(4, 3, activation="swish")(inputs)))
    forms = [Format(8), Format(8, algorithm="gptq"), Format(2, DYNAMIC)]
    first, second, third = lowbit.bench(model, CALIBRATION, SAMPLES, forms=forms).itertuples()
    assert first.outcome == lowbit.RUNS and first.sqnr_db > 20
    assert second.refused == "litert-quantizer has no 8-bit weights (static) by gptq for CONV_2D."
    assert third.refused == "kernels of 2 bits for CONV_2D run, and answer nonsense."


# --- refusals


def test_bad_input_is_refused(network, correlated):
    model, x = correlated
    with pytest.raises(InputError, match="quantized already: give the float32"):
        lowbit.bench(requantize.dynamic(model), x, x)
    with pytest.raises(InputError, match=r"right returned int64 of shape \(\): it must say of each of 300 samples"):
        lowbit.bench(model, x, x, lambda answers: answers.argmax(), [Format(8, None)])
    with pytest.raises(InputError, match="samples do not fit"):
        lowbit.bench(model, x, SAMPLES)
    with pytest.raises(InputError, match="no convolution or dense layer"):
        lowbit.bench(quantize.convert(tf.keras.Sequential([layers.Input((4,)), layers.ReLU()])), x, x)
    with pytest.raises(
        InputError, match=r"formats asks Format\(weights=2.* of \*, which has no such kernel: try 8 bits"
    ):
        requantize.apply(network, {"*": Format(2)}, requantize.calibrate(network, CALIBRATION))


def test_files_are_timed_if_asked_for(network):
    forms = [Format(8, 8), Format(2, 8), Format(8, None)]
    table = lowbit.bench(network, CALIBRATION, SAMPLES, forms=forms, rounds=6)
    for names in lowbit.SPEED.values():
        ratio, low, high = table[list(names)].to_numpy().T
        assert np.isnan(ratio[1])
        assert all(0 < low[row] <= ratio[row] <= high[row] for row in (0, 2))
    columns = [name for names in lowbit.SPEED.values() for name in names]
    assert lowbit.bench(network, CALIBRATION, SAMPLES, forms=forms[:1])[columns].isna().all(axis=None)


def test_only_those_that_are_named_are_timed(network, monkeypatch):
    asked = []
    monkeypatch.setattr(lowbit, "_speed", lambda source, files, *_: asked.append(list(files)) or {})
    forms = [Format(8, 8), Format(8, None)]
    for timed in (None, forms[1:]):
        lowbit.bench(network, CALIBRATION, SAMPLES, forms=forms, rounds=6, timed=timed)
    assert asked == [["0", "1"], ["1"]]


def test_all_files_are_timed_in_turn_against_float32_and_against_int8(network, monkeypatch):
    """Milliseconds of each, by what `runner` would tell: float32 8, int8 1, the first file 4, the third 2."""
    jobs, run = [], runner.run

    def told(job, folder):
        if job["task"] != "time":
            return run(job, folder)
        jobs.append(job)
        return {"blocks": [dict(zip(job["models"], ([8.0], [1.0], [4.0], [2.0]), strict=True))] * 6}

    monkeypatch.setattr(runner, "run", told)
    table = lowbit.bench(network, CALIBRATION, SAMPLES, forms=[Format(4), Format(2, 8), Format(8, None)], rounds=12)
    assert len(jobs) == 1 and jobs[0]["rounds"] == 12 and list(jobs[0]["models"]) == ["float32", "int8", "0", "2"]
    np.testing.assert_allclose(table["ratio"], [2, np.nan, 4])
    np.testing.assert_allclose(table["ratio_int8"], [0.25, np.nan, 0.5])


def test_only_so_many_files_are_timed_at_once_as_memory_holds(network, monkeypatch):
    jobs, run = [], runner.run

    def told(job, folder):
        if job["task"] != "time":
            return run(job | {"limits": lowbit.LIMITS}, folder)
        jobs.append(list(job["models"]))
        return {"blocks": [{name: [1.0] for name in job["models"]}] * 6}

    monkeypatch.setattr(runner, "run", told)
    limits = {"seconds": 60, "bytes": 4 * lowbit.TIMES_ITS_SIZE * (len(network) + 1000)}
    forms = [Format(8), Format(4), Format(8, None)]
    table = lowbit.bench(network, CALIBRATION, SAMPLES, forms=forms, limits=limits, rounds=6)
    assert jobs == [["float32", "int8", "0", "1"], ["float32", "int8", "2"]]
    assert (table[["ratio", "ratio_int8"]] == 1).all(axis=None)


def test_a_file_that_stops_while_it_is_timed_stops_no_other(network, monkeypatch):
    run = runner.run

    def told(job, folder):
        if job["task"] != "time":
            return run(job, folder)
        return {"error": "no"} if "1" in job["models"] else {"blocks": [{"float32": [8.0], "0": [4.0]}] * 6}

    monkeypatch.setattr(runner, "run", told)
    table = lowbit.bench(network, CALIBRATION, SAMPLES, forms=[Format(4), Format(8, None)], rounds=6)
    assert list(table["outcome"]) == [lowbit.RUNS, lowbit.NOT_RUN] and table["ratio"][0] == 2
    assert table["refused"][1] == "timed beside the float file, it stops: no." and table["ratio_int8"].isna().all()


def test_samples_of_a_group_count_as_one(correlated):
    model, x = correlated
    labels, groups, forms = litert.predict(model, x).argmax(1), np.arange(300) // 4, [Format(4, None)]
    [alone], [grouped] = (
        lowbit.bench(model, x, x, lambda answers: answers.argmax(1) == labels, forms, groups=each).itertuples()
        for each in (None, groups)
    )
    answers = litert.predict(lowbit.quantized(model, forms[0], x), x).argmax(1) == labels
    change = stats.score_difference(np.ones(75), answers.reshape(75, 4).mean(1))
    assert (grouped.change, grouped.low, grouped.high) == (change.value, change.low, change.high)
    assert grouped.change == pytest.approx(alone.change)


def test_the_same_answer_of_vectors_is_the_same_neighbour(correlated):
    model, x = correlated
    form = Format(4, None)
    [row] = lowbit.bench(model, x, x, forms=[form], purpose=heads.Purpose("embedding")).itertuples()
    one, other = (litert.predict(each, x) for each in (model, lowbit.quantized(model, form, x)))
    nearest = []
    for vectors in (one, other):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        nearest.append((unit @ unit.T - 2 * np.eye(len(unit))).argmax(1))
    assert row.agreement == np.mean(nearest[0] == nearest[1]) != np.mean(one.argmax(1) == other.argmax(1))
