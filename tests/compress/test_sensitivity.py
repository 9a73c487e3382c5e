"""Which layers suffer from quantization: the sweep, its resumption, the order and the plan, and the command."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

from helpers import __main__
from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize, requantize, sensitivity
from helpers.networks import checkpoints, data, models
from helpers.tflite import heads, litert, replay

layers = tf.keras.layers


@pytest.fixture(scope="module")
def branched():
    """A float `.tflite` of a small net with a residual and a concatenated branch, its samples and the Keras model.

    One channel of the depthwise layer is a thousand times the others, so per-tensor quantization hurts there.
    """
    runtime_env.seed_everything(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="stem")(inputs))
    y = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same", name="spread")(x))
    x = layers.Add()([x, layers.Conv2D(8, 1, name="mix")(y)])
    x = layers.Concatenate()(
        [layers.Conv2D(4, 3, padding="same", name="left")(x), layers.Conv2D(4, 1, name="right")(x)]
    )
    model = tf.keras.Model(inputs, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x)))
    kernel, bias = model.get_layer("spread").get_weights()
    kernel[..., 0, :] *= 1000
    model.get_layer("spread").set_weights([kernel, bias])
    mix = model.get_layer("mix")
    kernel, bias = mix.get_weights()
    kernel[..., 0, :] /= 1000
    mix.set_weights([kernel, bias])
    samples = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype("float32")
    return quantize.convert(model), samples, model


PER_TENSOR = requantize.Format(per_channel=False)


@pytest.fixture(scope="module")
def table(branched):
    file, samples, _ = branched
    return sensitivity.sweep(file, samples, samples, form=PER_TENSOR)


def test_every_layer_alone_and_left_out_and_all(table):
    names = ["stem", "spread", "mix", "left", "right", "logits"]
    for mode in (sensitivity.ALONE, sensitivity.ALL_BUT):
        assert sorted(table[table["mode"] == mode].layer) == sorted(names)
    assert (table["mode"] == sensitivity.ALL).sum() == 1
    assert (table.low <= table.change).all() and (table.change <= table.high).all()


@pytest.mark.parametrize(
    "form, every",
    [
        (PER_TENSOR, True),
        (requantize.Format(4), False),
        (requantize.Format(8, None), False),
        (requantize.Format(8, requantize.DYNAMIC), False),
    ],
)
def test_what_variants_have_in_common_runs_once_and_the_numbers_are_the_same(branched, monkeypatch, form, every):
    file, samples, _ = branched
    monkeypatch.setattr(replay, "WORTH_BYTES", 0)
    runs, run = [], litert.run
    monkeypatch.setattr(litert, "run", lambda model, *given, **named: runs.append(model) or run(model, *given, **named))
    tables = []
    for kept in (replay.KEPT_BYTES, 500_000, 0):
        sensitivity.forget()
        runs.clear()
        table = sensitivity.sweep(file, samples, samples, form=form, every=every, kept_bytes=kept)
        tables.append((len(runs), table))
    (few, ours), (some, bounded), (many, exact) = tables
    pd.testing.assert_frame_equal(ours, exact, check_exact=True)
    pd.testing.assert_frame_equal(bounded, exact, check_exact=True)
    assert few <= some < many == len(exact) + 1 and few <= 6


def test_what_runs_in_no_time_runs_whole(branched, monkeypatch):
    file, samples, _ = branched
    monkeypatch.setattr(replay.Replay, "_rest", lambda *_: pytest.fail("in parts"))
    sensitivity.forget()
    assert len(sensitivity.sweep(file, samples, samples)) == 13


@pytest.mark.parametrize("worth", [0, replay.WORTH_BYTES])
def test_an_output_that_comes_early_and_is_read_again(monkeypatch, worth):
    """The quantizer gives it another name."""
    monkeypatch.setattr(replay, "WORTH_BYTES", worth)
    inputs = layers.Input((6,))
    early = layers.Dense(4, name="early")(inputs)
    both = layers.Concatenate()([early, layers.Dense(4, name="other")(inputs)])
    file = quantize.convert(tf.keras.Model(inputs, [layers.Dense(3, name="late")(both), early]))
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    sensitivity.forget()
    table = sensitivity.sweep(file, x, x)
    assert set(table["layer"]) == {"", "early", "other", "late"}
    assert (table[table["mode"] != "all_but"].damage > 0).all()


def test_known_ranges_are_not_measured_again(branched, table, monkeypatch):
    file, samples, _ = branched
    ranges = requantize.calibrate(file, samples)
    monkeypatch.setattr(requantize, "calibrate", lambda *_: pytest.fail("measured again"))
    again = sensitivity.sweep(file, samples, samples, form=PER_TENSOR, modes=(), ranges=ranges)
    assert again.iloc[0].equals(table.iloc[0])


def test_the_layer_with_the_spread_is_found(table):
    alone = table[table["mode"] == sensitivity.ALONE].set_index("layer")
    assert alone.damage.idxmax() == "spread" == alone.sqnr_db.idxmin()
    assert sensitivity.order(table).layer.iloc[0] == "spread"
    everything = table[table["mode"] == sensitivity.ALL].iloc[0]
    without = table[(table["mode"] == sensitivity.ALL_BUT) & (table.layer == "spread")].iloc[0]
    assert without.damage < 0.7 * everything.damage


def test_alone_means_alone(branched):
    file, samples, _ = branched
    scheme = requantize.Scheme(PER_TENSOR, requantize.calibrate(file, samples))
    name = sensitivity.weight_layers(file).set_index("layer").name["mix"]
    alone = litert.kernels_in(requantize.apply(file, {name: PER_TENSOR}, scheme.ranges))
    assert len(alone) == 1
    assert len(litert.kernels_in(sensitivity.protect(file, [name], scheme))) == 5


def test_the_plan_stops_when_the_target_is_reached(branched, table):
    file, samples, model = branched
    labels = model.predict(samples, verbose=0).argmax(axis=-1)
    names = sensitivity.order(table)["name"]
    scheme = requantize.Scheme(PER_TENSOR, requantize.calibrate(file, samples))
    steps = sensitivity.plan(file, names, scheme, samples, labels, target=0.05)
    assert (steps.change.iloc[:-1] < -0.05).all()
    assert steps.change.iloc[-1] >= -0.05 or steps.layers.iloc[-1] == 6
    assert steps["size"].is_monotonic_increasing


def test_a_plan_tries_the_numbers_of_layers_that_are_asked_for(branched, table):
    file, samples, model = branched
    labels = model.predict(samples, verbose=0).argmax(axis=-1)
    names = sensitivity.order(table)["name"]
    scheme = requantize.Scheme(PER_TENSOR, requantize.calibrate(file, samples))
    steps = sensitivity.plan(file, names, scheme, samples, labels, target=None, counts=[0, 2, 6])
    assert list(steps.layers) == [0, 2, 6]
    assert steps["size"].is_monotonic_increasing and steps.change.iloc[-1] == 0


def test_a_protected_layer_may_have_activations_of_16_bits(branched):
    file, samples, _ = branched
    ranges = requantize.calibrate(file, samples)
    names = sensitivity.weight_layers(file).set_index("layer").name
    scheme = requantize.Scheme(PER_TENSOR, ranges, instead=requantize.Format(8, 16, False))
    wide = sensitivity.protect(file, names[["mix"]], scheme)
    inputs = litert.operators(wide).query("op == 'CONV_2D'").input
    assert sorted(inputs.value_counts().items()) == [("int16", 1), ("int8", 3)]


def test_the_place_of_a_layer_has_an_interval(table):
    worst = sensitivity.rank(table, "spread")
    assert (worst.value, worst.low) == (1, 1) and worst.high <= 2
    unsure = sensitivity.rank(table.assign(damage_error=1e9), "spread")
    assert (unsure.low, unsure.high) == (1, 6)
    with pytest.raises(InputError, match="'spreat' is not one of stem"):
        sensitivity.rank(table, "spreat")


def test_order_by_damage_or_by_damage_per_byte():
    table = pd.DataFrame({"mode": "alone", "layer": ["large", "small"], "damage": [2.0, 1.0], "weights": [1000, 10]})
    assert list(sensitivity.order(table).layer) == ["small", "large"]
    assert list(sensitivity.order(table, per_byte=False).layer) == ["large", "small"]


def test_every_layer_has_a_part_in_its_network(branched, table):
    parts = dict(zip(table["layer"], sensitivity.kinds(table), strict=True))
    assert parts == {
        "": "",
        "stem": "stem",
        "spread": "depthwise",
        "mix": "convolution",
        "left": "convolution",
        "right": "convolution",
        "logits": "classifier",
    }


def test_depthwise_layers_keep_8_bits_where_the_others_have_4(branched):
    file, samples, _ = branched
    table = sensitivity.sweep(file, samples, samples, form=requantize.Format(weights=4), modes=("alone",))
    assert list(table["mode"]) == ["all", *["alone"] * 6]
    scheme = requantize.Scheme(requantize.Format(weights=4), requantize.calibrate(file, samples))
    everything = sensitivity.protect(file, [], scheme)
    kernels = litert.kernels_in(everything).set_index("op").integers
    assert np.abs(kernels["DEPTHWISE_CONV_2D"].astype(int)).max() > 7
    assert all(np.abs(kernel.astype(int)).max() <= 8 for kernel in kernels["CONV_2D"])


def test_an_operator_of_ones_own_is_refused(branched, tmp_path):
    """What the interpreter cannot run cannot be judged, and the message says so."""
    _, samples, _ = branched
    inputs = tf.keras.Input((12, 12, 3))
    signal = tf.keras.layers.Lambda(lambda x: tf.raw_ops.BesselI0(x=x))(layers.Conv2D(4, 1)(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.Model(inputs, layers.Flatten()(signal)))
    converter.allow_custom_ops = True
    with runtime_env.quiet():
        custom = converter.convert()
    with pytest.raises(InputError, match="BesselI0"):
        sensitivity.sweep(custom, samples, samples)


def test_a_stopped_sweep_resumes(branched, table, tmp_path, monkeypatch):
    file, samples, _ = branched
    cache = tmp_path / "sweep.csv"

    def stopping(variants):
        for number, variant in enumerate(variants):
            if number == 5:
                raise KeyboardInterrupt
            yield variant

    with pytest.raises(KeyboardInterrupt):
        sensitivity.sweep(file, samples, samples, form=PER_TENSOR, cache=cache, progress=stopping)
    made, apply = [], requantize.apply
    monkeypatch.setattr(requantize, "apply", lambda *given: made.append(1) or apply(*given))
    resumed = sensitivity.sweep(file, samples, samples, form=PER_TENSOR, cache=cache)
    assert len(made) == 13 - 5 + 1  # once more what all but one layer have in common
    np.testing.assert_allclose(resumed.damage, table.damage, rtol=1e-12)
    assert sensitivity.sweep(file, samples, samples, form=PER_TENSOR, cache=cache).damage.equals(resumed.damage)
    assert len(made) == 13 - 5 + 1
    sensitivity.sweep(file, samples[:32], samples, form=PER_TENSOR, cache=cache)  # other calibration: all anew
    assert len(made) == 13 - 5 + 1 + 13


@pytest.mark.parametrize("metric", [False, True])
def test_a_file_that_two_sweeps_have_in_common_is_run_once(branched, tmp_path, monkeypatch, metric):
    file, samples, _ = branched
    (tmp_path / "mine.py").write_text("def first(outputs, y):\n    return outputs[:, 0] > 0\n")
    purpose = heads.Purpose(metric=f"{tmp_path}/mine.py:first") if metric else None
    labels = np.zeros(len(samples)) if metric else None
    seen, run, answers = [], litert.run, replay.Replay.answers

    def asked(model):
        if seen[-1:] != [model]:  # a replay may run it as a whole
            seen.append(model)

    monkeypatch.setattr(sensitivity, "_known", {})
    monkeypatch.setattr(litert, "run", lambda model, *given, **named: asked(model) or run(model, *given, **named))
    monkeypatch.setattr(replay.Replay, "answers", lambda begun, model: asked(model) or answers(begun, model))
    tables = [
        sensitivity.sweep(
            file,
            samples,
            samples,
            labels,
            requantize.Format(bits),
            modes=("alone",),
            purpose=purpose,
        )
        for bits in (8, 4)
    ]
    ours = [table[table["layer"] == "spread"].iloc[0] for table in tables]
    assert ours[0].equals(ours[1]) and not tables[0]["damage"].equals(tables[1]["damage"])
    again = [model for model in {*seen} if seen.count(model) > 1 and model != file]
    assert len(again) == (1 if metric else 0) and seen.count(file) == 2


def test_a_metric_that_was_mended_is_measured_anew(branched, tmp_path):
    file, samples, _ = branched
    purpose, found = heads.Purpose(metric=f"{tmp_path}/mine.py:first"), []
    for times in (1, 100):
        (tmp_path / "mine.py").write_text(f"def first(outputs, y):\n    return {times}.0 * outputs[:, 0]\n")
        found.append(
            sensitivity.sweep(
                file,
                samples,
                samples,
                np.zeros(len(samples)),
                modes=("alone",),
                cache=tmp_path / "rows.csv",
                purpose=purpose,
            )
        )
    np.testing.assert_allclose(found[1]["change"], 100 * found[0]["change"], rtol=1e-4, atol=1e-9)


def keras_names(model):
    return [
        layer.name for layer in model.layers if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense))
    ]


@pytest.mark.parametrize(
    "make",
    [
        models.mlp,
        lambda: checkpoints.load("mobilenetv2_fashion_96"),
        lambda: checkpoints.load("resnet8_fashion_32"),
    ],
    ids=["mlp", "mobilenetv2", "resnet8"],
)
def test_layers_have_the_names_that_keras_gave_them(make):
    model = make()
    found = litert.weight_layers(quantize.convert(model))
    assert sorted(found.layer) == sorted(keras_names(model))
    sizes = {layer.name: layer.count_params() for layer in model.layers}
    assert all(row.weights <= sizes[row.layer] for row in found.itertuples())


def test_models_without_layers_or_already_quantized_are_refused(branched):
    file, samples, model = branched
    inputs = layers.Input((12, 12, 3))
    empty = quantize.convert(tf.keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(InputError, match="nothing to quantize"):
        sensitivity.sweep(empty, samples, samples)
    with pytest.raises(InputError, match="quantized already"):
        sensitivity.sweep(quantize.convert(model, "int8", samples), samples, samples)
    with pytest.raises(InputError, match="shape"):
        sensitivity.sweep(file, samples[:, :8], samples)


@pytest.mark.parametrize("name", ["net.tflite", "saved_model"])
def test_the_command(branched, tmp_path, name):
    file, samples, model = branched
    (tmp_path / "net.tflite").write_bytes(file)
    model.save(tmp_path / "saved_model", save_format="tf")
    np.savez(tmp_path / "samples.npz", x=samples)
    arguments = ["sensitivity", str(tmp_path / name), "--calibration", str(tmp_path / "samples.npz")]
    result = CliRunner().invoke(__main__.main, [*arguments, "--per-tensor", "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "spread" in result.output
    assert (tmp_path / "out" / "sensitivity.csv").is_file() and (tmp_path / "out" / "sensitivity.svg").is_file()


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"y": np.zeros(3)}, "holds no samples (it holds y): add x"),
        ({"x": np.zeros((3, 12, 12, 3), int)}, "x is int64: it must be float32"),
    ],
)
def test_the_command_wants_float_samples(branched, tmp_path, arrays, message):
    (tmp_path / "net.tflite").write_bytes(branched[0])
    np.savez(tmp_path / "samples.npz", **arrays)
    result = CliRunner().invoke(
        __main__.main,
        ["sensitivity", str(tmp_path / "net.tflite"), "--calibration", str(tmp_path / "samples.npz")],
    )
    assert result.exit_code == 2 and message in result.output


def test_a_softmax_at_the_end_is_no_logits():
    digits = data.load("mnist5k")
    x = data.unit_rows(digits.x_test[:50])
    logits = models.mlp()
    softmax = tf.keras.Sequential([*logits.layers, layers.Softmax()])
    softmax.build((None, 784))
    kl = [sensitivity.sweep(quantize.convert(model), x, x).damage.iloc[0] for model in (logits, softmax)]
    assert kl[0] == pytest.approx(kl[1], abs=0.01)


def test_operators_without_weights_stand_in_the_same_table(branched):
    """The tensor between `spread` and `mix` has one channel a thousand times the others: what reads and writes it suffers."""
    file, samples, _ = branched
    every = sensitivity.sweep(file, samples, samples, modes=(sensitivity.ALONE,), every=True)
    found = every[every["mode"] == sensitivity.ALONE].set_index("op")
    assert {"ADD", "MEAN", "CONCATENATION"} <= set(found.index)
    assert (found.loc[["ADD", "MEAN"], "weights"] == 0).all() and (found.loc[["ADD", "MEAN"], "damage"] > 0).all()
    weighted = sensitivity.sweep(file, samples, samples, modes=(sensitivity.ALONE,))
    pd.testing.assert_frame_equal(every[every["weights"] > 0].reset_index(drop=True), weighted)
    kinds = dict(zip(every["op"], sensitivity.kinds(every), strict=True))
    assert kinds["ADD"] == "without weights" and sensitivity.kinds(weighted)[1] == "stem"
    assert set(sensitivity.order(every)["layer"]) == set(every["layer"]) - {""}


@pytest.mark.parametrize("labels", [None, "numbers"])
def test_a_regression_of_two_inputs_is_swept(labels):
    one, two = layers.Input((6,), name="one"), layers.Input((4,), name="two")
    x = layers.Concatenate()([layers.Dense(12, "relu", name="left")(one), layers.Dense(12, "relu", name="right")(two)])
    file = quantize.convert(tf.keras.Model([one, two], layers.Dense(2, name="answer")(x)))
    random = np.random.default_rng(0)
    x = {"one": random.normal(size=(80, 6)).astype("float32"), "two": random.normal(size=(80, 4)).astype("float32")}
    y = None if labels is None else litert.run(file, x)[next(iter(litert.run(file, x)))] + 0.1
    purpose = heads.Purpose("regression")  # without labels two numbers might be two classes
    table = sensitivity.sweep(file, x, x, y, purpose=purpose)
    assert set(table["layer"]) == {"", "left", "right", "answer"} and (table["damage"] > 0).all()
    by = "labels" if labels else "the baseline's own answers"
    assert table.attrs["judged"] == f"regression, judged by {by}" and "variance" in table.attrs["unit"]
    scheme = requantize.Scheme(ranges=requantize.calibrate(file, x))
    steps = sensitivity.plan(file, sensitivity.order(table).name, scheme, x, y, target=None, purpose=purpose)
    assert list(steps["layers"]) == [0, 1, 2, 3] and steps["change"].iloc[-1] == pytest.approx(0, abs=1e-3)


def test_numbers_that_tell_uses_of_a_layer_apart_are_no_other_layers_names():
    a, b, shared = layers.Input((6,), name="a"), layers.Input((6,), name="b"), layers.Dense(8, "relu", name="dense")
    model = tf.keras.Model([a, b], layers.Dense(3, name="dense_1")(layers.Concatenate()([shared(a), shared(b)])))
    file, known = quantize.convert(model), ("dense", "dense_1")
    x = {name: np.random.default_rng(0).normal(size=(60, 6)).astype("float32") for name in "ab"}
    table = sensitivity.weight_layers(file, known)
    assert table["layer"].tolist() == ["dense_0", "dense_2", "dense_1"]
    swept = sensitivity.sweep(file, x, x, known=known, modes=("alone",)).query("mode == 'alone'")
    assert swept["layer"].tolist() == table["layer"].tolist() and swept["name"].is_unique
    assert swept["damage"].nunique() == 3
