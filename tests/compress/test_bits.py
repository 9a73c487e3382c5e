"""Bits for each layer under a budget: what a file holds, the integer program, the search and its rivals, and the command."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

from helpers import __main__
from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import bits, bits_report, bits_rivals, kernels_held, quantize, requantize
from helpers.tflite import litert, measure

layers = tf.keras.layers
ONE = bits.ONE_SCALE


@pytest.fixture(scope="module")
def small():
    """A float `.tflite` with a residual branch and a depthwise layer, and its samples."""
    runtime_env.seed_everything(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.ReLU()(layers.Conv2D(16, 3, padding="same", name="stem")(inputs))
    y = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same", name="spread")(x))
    x = layers.Add()([x, layers.Conv2D(16, 1, name="mix")(y)])
    x = layers.ReLU()(layers.Conv2D(32, 3, strides=2, name="down")(x))
    model = tf.keras.Model(inputs, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x)))
    samples = np.random.default_rng(0).normal(size=(96, 12, 12, 3)).astype("float32")
    return quantize.convert(model), samples


@pytest.fixture(scope="module")
def trials(small):
    return bits.Trials(small[0], small[1][:32], small[1])


@pytest.fixture(scope="module")
def table(trials):
    return bits.sweep(trials)


# --- what a file holds


@pytest.mark.parametrize(
    "form, dtype, scales, stem, spread",
    [
        (None, "float32", 0, 4 * (432 + 16), 4 * (144 + 16)),
        (requantize.Format(), "int8", 16, 432 + 28 * 16, 144 + 28 * 16),
        (requantize.Format(4), "int4", 16, 216 + 28 * 16, 144 + 28 * 16),
        (requantize.Format(8, 8, False), "int8", 1, 432 + 4 * 16 + 24, 144 + 4 * 16 + 24),
        (requantize.Format(8, None), "int8", 16, 432 + 16 * 16, 144 + 16 * 16),
    ],
    ids=["float32", "int8", "int4", "one scale", "weights only"],
)
def test_the_bytes_of_a_layer_are_those_of_its_kernel_its_bias_and_their_scales(
    small, trials, form, dtype, scales, stem, spread
):
    file = requantize.apply(small[0], {"*": form}, trials.ranges) if form else small[0]
    found = kernels_held.held(file)
    assert list(found["inputs"]) == [27, 144, 16, 144, 32]
    assert found["dtype"][0] == dtype and found["scales"][0] == scales
    assert list(found["bytes"][:2]) == [stem, spread]


def test_layers_have_the_formats_that_there_are_kernels_for(trials):
    every = [bits.INT4, bits.INT8, bits.INT4 + ONE, bits.INT8 + ONE, bits.FLOAT]
    assert trials.choices == {
        layer: [form for form in every if layer != "spread" or not form.startswith(bits.INT4)]
        for layer in ("stem", "spread", "mix", "down", "logits")
    }
    assert trials.uniform(bits.INT4 + ONE)["spread"] == bits.INT8 + ONE


def test_depthwise_layers_in_dynamic_range_have_a_scale_for_each_channel(small):
    trials = bits.Trials(*small, small[1], forms=bits.formats(requantize.DYNAMIC))
    assert trials.choices["spread"] == [bits.INT8, bits.FLOAT]
    assert trials.uniform(bits.INT4 + ONE)["spread"] == bits.INT8
    with pytest.raises(
        InputError, match=r"layer spread has no kernel of 8 bits with one scale in dynamic range: take a scale"
    ):
        bits.Trials(*small, small[1], forms=bits.formats(requantize.DYNAMIC, "tensor"))


def test_blocks_of_weights_are_for_dense_layers_that_they_divide(small):
    runtime_env.seed_everything(0)
    dense = tf.keras.Sequential([layers.Input((64,)), layers.Dense(48, name="wide"), layers.Dense(8, name="odd")])
    x = np.random.default_rng(0).normal(size=(40, 64)).astype("float32")
    trials = bits.Trials(quantize.convert(dense), x, x, forms=bits.formats(scales="channel", blocks=(32,)))
    blocks = f"{bits.INT4}, blocks of 32"
    assert {layer: blocks in forms for layer, forms in trials.choices.items()} == {"wide": True, "odd": False}
    found = trials.held(trials.file({"wide": blocks}))
    assert list(found["dtype"]) == ["int4", "int8"] and found["scales"][0] == 96
    assert trials.measure(trials.uniform(blocks))["sqnr_db"] > trials.measure(trials.uniform(bits.INT4))["sqnr_db"]
    with pytest.raises(InputError, match="block=32 has kernels for weights=4 and activations='dynamic' alone"):
        requantize.apply(trials.model, {"FULLY_CONNECTED": requantize.Format(8, 8, block=32)}, trials.ranges)
    with pytest.raises(InputError, match="block=16 must be 32 or 64"):
        requantize.Format(4, requantize.DYNAMIC, block=16)


def test_a_kernel_that_two_operators_share_is_one_layer():
    shared = layers.Dense(24, name="shared")
    inputs = layers.Input((24,))
    model = tf.keras.Model(inputs, layers.Dense(4, name="end")(shared(tf.nn.relu(shared(inputs)))))
    x = np.random.default_rng(0).normal(size=(40, 24)).astype("float32")
    trials = bits.Trials(quantize.convert(model), x, x)
    assert len(trials.layers) == 2
    sizes = [trials.size(trials.uniform(form)) for form in (bits.INT4, bits.INT8, bits.FLOAT)]
    assert sizes[1] - sizes[0] < 24 * 24 < sizes[2] - sizes[1] < 4 * 24 * 24
    found = trials.held(trials.file({trials.layers["layer"][0]: bits.INT4}))
    assert list(found["dtype"]) == ["int4", "int8"]


# --- the integer program


@pytest.mark.parametrize("seed", range(5))
def test_the_first_guess_is_the_best_of_all_plans(seed):
    draw, forms = np.random.default_rng(seed), ("a", "b", "c")
    table = pd.DataFrame(
        [
            {"layer": layer, "format": form, "bytes": int(draw.integers(-500, 500)), "damage": float(draw.normal())}
            for layer in range(6)
            for form in forms
        ]
    )
    of = {(row.layer, row.format): np.array([row.bytes, row.damage]) for row in table.itertuples()}
    plans = [dict(enumerate(each)) for each in itertools.product(forms, repeat=6)]
    sums = [sum(of[place] for place in plan.items()) for plan in plans]
    limit = int(np.median([size for size, _ in sums])) - 300
    best = min(damage for size, damage in sums if size <= limit)
    found = bits.first_guess(table, limit)
    assert sums[plans.index(found)][0] <= limit
    assert sums[plans.index(found)][1] == pytest.approx(best, abs=2e-3 * abs(best))
    assert bits.first_guess(table, -10_000) is None


class Planted:
    """Trials of a made-up network: damages of layers add up, but for two that cancel each other's errors."""

    def __init__(self, bytes_of, damages, together=0.0):
        self.choices = {layer: [bits.INT4, bits.INT8] for layer in damages}
        self.forms = dict.fromkeys((bits.INT4, bits.INT8))
        self.layers = pd.DataFrame({"layer": list(damages)})
        self.bytes_of, self.damages, self.together, self.calls, self.seen = bytes_of, damages, together, 0, {}

    def uniform(self, form):
        return dict.fromkeys(self.choices, form if form in self.forms else bits.INT8)

    def size(self, plan):
        return 1000 + sum(self.bytes_of[layer] for layer, form in plan.items() if form == bits.INT8)

    def measure(self, plan):
        key = tuple(plan.values())
        if key not in self.seen:
            self.calls += 1
            low = [layer for layer, form in plan.items() if form == bits.INT4]
            damage = 0.01 + sum(self.damages[layer] for layer in low) + self.together * ({"a", "b"} <= {*low})
            self.seen[key] = {"bytes": self.size(plan), "damage": damage, "change": -damage / 10}
        return self.seen[key]

    def file(self, plan):
        return b""

    def measured(self):
        return pd.DataFrame(self.seen.values()).assign(
            plan=[dict(zip(self.choices, key, strict=True)) for key in self.seen]
        )


BYTES = {"a": 100, "b": 100, "c": 90, "d": 400}
DAMAGES = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 3.0}


def planted(together):
    trials = Planted(BYTES, DAMAGES, together)
    rows, base = [], trials.uniform(bits.INT8)
    start = trials.measure(base)
    for layer in base:
        for form in (bits.INT4, bits.INT8):
            row = trials.measure({**base, layer: form})
            rows.append({"layer": layer, "format": form} | {k: row[k] - start[k] for k in ("bytes", "damage")})
    return trials, pd.DataFrame(rows)


@pytest.mark.parametrize("together", [0.0, 5.0, -0.9])
def test_whole_files_correct_the_sum_of_their_layers(together):
    """There is room for d and one of the others: what a and b do together, only their file shows."""
    trials, table = planted(together)
    found = bits.search(trials, table, bits.Budget(bytes=1000 + 400 + 100))
    every = [dict(zip(BYTES, each, strict=True)) for each in itertools.product((bits.INT4, bits.INT8), repeat=4)]
    best = min(trials.measure(plan)["damage"] for plan in every if trials.size(plan) <= 1500)
    assert found.numbers["damage"] == pytest.approx(best)
    assert found.numbers["bytes"] <= 1500 and found.numbers["damage"] <= found.guess["damage"]


# --- budgets


@pytest.mark.parametrize(
    "text, budget",
    [
        ("60%", bits.Budget(share=0.6)),
        ("450000", bits.Budget(bytes=450_000)),
        ("450kB", bits.Budget(bytes=450_000)),
        (" .5 MB", bits.Budget(bytes=500_000)),
        ("1point", bits.Budget(points=1.0)),
        ("0.5 points", bits.Budget(points=0.5)),
        ("0points", bits.Budget(points=0.0)),
    ],
)
def test_a_budget_is_read(text, budget):
    assert bits.Budget.read(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0%", "-5%", "half", "60 percent", "1e5", "5 pints", "0.01", "0kB"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match="must read like 60%"):
        bits.Budget.read(text)


def test_too_small_a_budget_names_the_smallest_which_works(trials, table):
    with pytest.raises(InputError, match="the smallest file that there are kernels for has ") as refused:
        bits.search(trials, table, bits.Budget.read("1%"))
    bytes_, share = str(refused.value).split(" has ")[1].split("% of")[0].split(", ")
    for named in (bytes_.replace(",", ""), f"{share}%"):
        found = bits.search(trials, table, bits.Budget.read(named), tries=5)
        assert len(found.file) == int(bytes_.replace(",", ""))


def test_formats_may_be_left_out(trials, table):
    found = bits.search(trials, table[~table["format"].str.endswith(ONE)], bits.Budget(share=0.95), tries=5)
    assert {*found.plan.values()} <= {bits.INT4, bits.INT8, bits.FLOAT}
    assert found.numbers["bytes"] <= 0.95 * trials.size(trials.uniform(bits.INT8))


@pytest.mark.parametrize("share", [0.8, 1.0, 1.5])
def test_a_search_keeps_its_budget_and_beats_what_fits(trials, table, share):
    budget = bits.Budget(share=share)
    limit = bits.limit_of(trials, table, budget)
    found = bits.search(trials, table, budget, tries=30)
    assert len(found.file) == found.numbers["bytes"] <= limit
    fitting = [trials.measure(trials.uniform(form)) for form in trials.forms]
    assert found.numbers["damage"] <= min(
        [each["damage"] for each in fitting if each["bytes"] <= limit], default=np.inf
    )
    held = trials.held(found.file)
    for layer, dtype, scales in zip(trials.layers["layer"], held["dtype"], held["scales"], strict=True):
        form = found.plan[layer]
        assert form.startswith(dtype) and (scales == 1) == form.endswith(ONE)
    tried = trials.measured()
    front = tried[tried["front"]]
    assert front["bytes"].is_monotonic_increasing and front["damage"].is_monotonic_decreasing


def test_the_smallest_file_that_loses_so_few_points(trials, table):
    free = bits.search(trials, table, bits.Budget(points=100.0), tries=24)
    assert free.reached and len(free.file) == trials.measured()["bytes"].min()
    strict = bits.search(trials, table, bits.Budget(points=2.0), tries=24)
    assert strict.reached and strict.numbers["change"] >= -0.02
    assert len(free.file) < len(strict.file) <= trials.size(trials.uniform(bits.FLOAT))


def test_a_front_has_files_of_all_sizes(small):
    trials = bits.Trials(small[0], small[1][:32], small[1])
    table = bits.sweep(trials)
    before = trials.measured()
    bits.trace(trials, table, steps=8)
    after = trials.measured()
    assert after["bytes"].min() == trials.size(bits.smallest(table))
    assert after["front"].sum() > before["front"].sum()
    sizes = after["bytes"][after["front"]]
    assert (sizes.to_numpy()[1:] / sizes.to_numpy()[:-1]).max() < 1.5


def test_the_luck_of_a_choice_is_left_out():
    tried = pd.DataFrame({"damage": [0.1, 0.2, 0.3, 0.4], "change": [-0.01, -0.05, -0.01, -0.06]})
    assert bits.expected(tried, tried.iloc[2]) == pytest.approx(-0.03)  # the mean of the two that are out of order
    assert bits.expected(tried, tried.iloc[1]) == pytest.approx(-0.05)
    assert bits.expected(tried, tried.iloc[0]) == pytest.approx(-0.01)


# --- rivals


def test_rivals_keep_the_budget_too(trials, table):
    limits = [trials.size(trials.uniform(form)) for form in (bits.INT4, bits.INT8)]
    for limit in (*limits, sum(limits) // 2):
        for plan in bits_rivals.plans(trials, table, limit, seed=1).values():
            assert trials.size(plan) <= limit and not any(form.endswith(ONE) for form in plan.values())
    assert set(bits_rivals.plans(trials, table, limits[0] - 1).values()) == {None}


def test_rivals_do_as_they_are_described():
    trials, table = planted(0.0)

    def high(plan):
        return {layer for layer, form in plan.items() if form == bits.INT8}

    assert high(bits_rivals.uniform(trials, 1500)) == set()
    assert high(bits_rivals.ends(trials, 1500)) == {"a", "d"}
    assert high(bits_rivals.per_byte(trials, table, 1190)) == {"c", "b"}  # 7.8 and 6.0 a kilobyte; d does not fit
    assert high(bits_rivals.greedy(trials, table, 1500)) == {"d"} | {"c"}  # a and b are the most robust
    assert {name: high(plan) for name, plan in bits_rivals.plans(trials, table, 1500).items() if name != "random"} == {
        "uniform": set(),
        "ends": {"a", "d"},
        "per_byte": high(bits_rivals.per_byte(trials, table, 1500)),
        "greedy": {"c", "d"},
    }
    assert {*map(tuple, (high(bits_rivals.shuffled(trials, 1100, seed)) for seed in range(9)))} == {
        ("a",),
        ("b",),
        ("c",),
    }


# --- the command


def command(tmp_path, small, *more, labels=True):
    (tmp_path / "net.tflite").write_bytes(small[0])
    exact = litert.predict(small[0], small[1])
    np.savez(tmp_path / "data.npz", x=small[1], **({"y": exact.argmax(1)} if labels else {}))
    words = ["search", str(tmp_path / "net.tflite"), "--calibration", str(tmp_path / "data.npz"), "--tries", "5"]
    return CliRunner().invoke(__main__.main, [*words, "--output", str(tmp_path / "out"), *more])


@pytest.mark.parametrize("labels", [True, False])
def test_the_command(tmp_path, small, labels):
    test = ["--test", str(tmp_path / "data.npz")] if labels else []
    done = command(tmp_path, small, "--budget", "85%", *test, "--csv", str(tmp_path / "table.csv"), labels=labels)
    assert done.exit_code == 0, done.output
    file = (tmp_path / "out" / "model.tflite").read_bytes()
    assert f"Found: {len(file):,} bytes" in done.output and ("top1" if labels else "same") in done.output
    assert ("which flatters it" in done.output) == (not labels)
    judged = "labels" if labels else "the baseline's own answers"
    assert f"judged by {judged}. Damage: KL divergence of the outputs, nats." in done.output
    ratio, low, high = _told_of_speed(done.output)
    assert 0 < low <= ratio <= high
    written = pd.read_csv(tmp_path / "out" / "layers.csv")
    assert list(written["bytes"]) == list(kernels_held.held(file)["bytes"])
    assert (
        list(written["layer"])
        == ["stem", "spread", "mix", "down", "logits"]
        == list(pd.read_csv(tmp_path / "table.csv")["layer"])
    )
    front = pd.read_csv(tmp_path / "out" / "front.csv").fillna("")
    assert front.set_index("name")["bytes"]["found"] == len(file) and (tmp_path / "out" / "front.svg").is_file()


def _told_of_speed(output):
    """Ratio, low and high of the file found, against int8."""
    found = re.search(r"Speed here.*: ([\d.]+) \[([\d.]+), ([\d.]+)\] times int8's, so", output)
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize(
    "interval, so",
    [
        ((0.7, 0.6, 0.8), "so slower: its fewer bits save bytes"),
        ((1.2, 1.1, 1.3), "so faster."),
        ((1, 0.9, 1.1), "so neither"),
    ],
)
def test_what_is_said_of_speed_is_what_its_interval_allows(interval, so):
    speed = pd.DataFrame([(0.5, 0.4, 0.6), interval], ["float32", "found"], ["ratio", "low", "high"])
    assert so in bits_report.faster(speed) and "float32's: 0.50 [0.40, 0.60] times int8's" in bits_report.faster(speed)


def test_the_speed_is_that_of_the_files_at_hand(tmp_path, small, monkeypatch):
    """Against int8: a file found that is int8 itself is as fast, whatever the machine does; and float32 is timed with it."""
    seen = []

    def latency(models, baseline, x, rounds):
        seen.append((models, baseline, rounds))
        return pd.DataFrame(1.0, models, ["ratio", "low", "high"])

    monkeypatch.setattr(measure, "latency", latency)
    done = command(tmp_path, small, "--budget", "85%", "--rounds", "12")
    [(models, baseline, rounds)] = seen
    assert (baseline, rounds) == ("int8", 12) and models["found"] == (tmp_path / "out" / "model.tflite").read_bytes()
    assert models["int8"] == requantize.apply(
        small[0], {"*": requantize.Format()}, requantize.calibrate(small[0], small[1])
    )
    assert models["float32"] == small[0] and "neither faster nor slower" in done.output


def test_the_command_does_not_write_over_its_model(tmp_path, small):
    (tmp_path / "model.tflite").write_bytes(small[0])
    np.savez(tmp_path / "x.npz", x=small[1])
    words = ["search", f"{tmp_path}/model.tflite", "--calibration", f"{tmp_path}/x.npz", "--budget", "85%", "--output"]
    done = CliRunner().invoke(__main__.main, [*words, str(tmp_path)])
    assert done.exit_code == 2 and "holds the model itself, as model.tflite: name another folder" in done.output
    assert (tmp_path / "model.tflite").read_bytes() == small[0]


def test_a_budget_below_the_smallest_file_is_refused_by_the_command(tmp_path, small):
    done = command(tmp_path, small, "--budget", "10%")
    assert done.exit_code == 2 and "the smallest file that there are kernels for has" in done.output
    assert not (tmp_path / "out").exists()


def test_a_target_that_no_plan_reaches_is_exit_code_1_and_the_best_is_written(tmp_path, small):
    (tmp_path / "mine.py").write_text("def near(outputs, y):\n    return -abs(outputs - y).sum(axis=1)\n")
    exact = litert.predict(small[0], small[1])
    np.savez(tmp_path / "judged.npz", x=small[1], y=exact)
    metric = ["--metric", f"{tmp_path}/mine.py:near", "--selection", str(tmp_path / "judged.npz")]
    done = command(tmp_path, small, "--budget", "0points", *metric)
    assert done.exit_code == 1, done.output
    assert "No file that was found loses so few points" in done.output and (tmp_path / "out" / "model.tflite").is_file()


def test_a_regression_of_two_inputs_in_dynamic_range():
    one, two = layers.Input((32,), name="one"), layers.Input((8,), name="two")
    x = layers.Concatenate()([layers.Dense(64, "relu", name="left")(one), layers.Dense(16, "relu", name="right")(two)])
    file = quantize.convert(tf.keras.Model([one, two], layers.Dense(1, name="answer")(x)))
    draw = np.random.default_rng(0)
    x = {"one": draw.normal(size=(80, 32)).astype("float32"), "two": draw.normal(size=(80, 8)).astype("float32")}
    trials = bits.Trials(file, x, x, forms=bits.formats(requantize.DYNAMIC))
    found = bits.search(trials, bits.sweep(trials), bits.Budget(share=0.9), tries=20)
    assert found.numbers["bytes"] <= 0.9 * trials.size(trials.uniform(bits.INT8)) and found.numbers["sqnr_db"] > 10


def test_a_search_is_no_worse_than_where_it_begins(trials, table):
    limit = round(0.8 * trials.size(trials.uniform(bits.INT8)))
    starts = bits_rivals.starts(trials, table)(limit)
    found = bits.search(
        trials, table, bits.Budget(bytes=limit), 3, lambda _: [None, trials.uniform(bits.FLOAT), *starts]
    )
    assert found.numbers["bytes"] <= limit  # float32 throughout is too large, and None is no plan
    assert found.numbers["damage"] <= min(trials.measure(plan)["damage"] for plan in starts if plan)
