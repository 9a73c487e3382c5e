"""Magnitude pruning: how many zeros, which ones, what the schedule asked for and the log recorded; event files read back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import sparsity
from helpers.networks import models

with runtime_env.quiet():
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot

pruning = tfmot.sparsity.keras


@pytest.fixture(scope="module")
def mlp():
    runtime_env.seed_everything(0)
    return models.mlp((16, 8), inputs=25, classes=3)


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers]


# --- one-shot pruning


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=40, deadline=None)
def test_one_shot_zeroes_exactly_the_smallest_share_of_every_kernel(mlp, share):
    before, biases = kernels(mlp), mlp.layers[0].bias.numpy()
    model = models.copy(mlp)
    assert sparsity.one_shot(model, share) is model
    for dense, pruned in zip(before, kernels(model), strict=True):
        gone = pruned == 0
        assert gone.sum() == round(share * dense.size)
        np.testing.assert_array_equal(pruned[~gone], dense[~gone])
        if gone.any() and not gone.all():
            assert np.abs(dense[gone]).max() <= np.abs(dense[~gone]).min()
    np.testing.assert_array_equal(model.layers[0].bias, biases)


def test_one_shot_reaches_into_pruning_wrappers(mlp):
    schedule = pruning.ConstantSparsity(0.5, begin_step=0)
    wrapped = pruning.prune_low_magnitude(models.copy(mlp), pruning_schedule=schedule)
    assert sparsity.kernel_sparsity(sparsity.one_shot(wrapped, 0.5)) == 0.5


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan"), 2, "false", None])
def test_an_impossible_sparsity_is_refused_before_anything_changes(mlp, share):
    with pytest.raises(InputError, match=rf"sparsity={share!r} must lie in \[0, 1\)"):
        sparsity.one_shot(mlp, share)
    assert sparsity.kernel_sparsity(mlp) == 0


# --- where the zeros are


def test_the_report_counts_the_zeros_of_each_kernel(mlp):
    model = models.copy(mlp)
    model.layers[1].kernel.assign(np.eye(16, 8))
    table = sparsity.report(model)
    assert table["layer"].tolist() == ["hidden_1", "hidden_2", "logits"]
    assert table["weights"].tolist() == [400, 128, 24]
    assert table["zeros"].tolist() == [0, 120, 0]
    assert table["sparsity"].tolist() == [0, 120 / 128, 0]
    assert sparsity.kernel_sparsity(model) == 120 / 552


# --- a real pruning run, small

STEPS, END = 16, 10
RAMP = {"initial_sparsity": 0.25, "final_sparsity": 0.75, "begin_step": 0, "end_step": END, "frequency": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after 4 epochs of 4 steps of pruning, wrappers left on, and the folder of its log."""
    folder = tmp_path_factory.mktemp("log")
    runtime_env.seed_everything(0)
    schedule = pruning.PolynomialDecay(**RAMP)
    model = pruning.prune_low_magnitude(models.mlp((16,), inputs=8, classes=2), pruning_schedule=schedule)
    x = np.random.default_rng(0).random((64, 8)).astype("float32")
    callbacks = [pruning.UpdatePruningStep(), pruning.PruningSummaries(log_dir=str(folder))]
    models.compile_classifier(model).fit(x, x[:, 0] > 0.5, 16, STEPS // 4, callbacks=callbacks, verbose=0)
    return model, folder


def test_the_report_is_the_same_with_wrappers_on_and_off(trained):
    model, _ = trained
    table = sparsity.report(model)
    assert table["layer"].tolist() == ["hidden_1", "logits"]
    assert table["zeros"].tolist() == [96, 24]
    assert sparsity.report(pruning.strip_pruning(model)).equals(table)


@pytest.mark.parametrize("power", [1, 3])
def test_the_schedules_curve_is_its_formula(power):
    steps = np.arange(STEPS)
    start, end = RAMP["initial_sparsity"], RAMP["final_sparsity"]
    expected = end + (start - end) * (1 - np.minimum(steps / END, 1)) ** power  # Zhu and Gupta (2017), equation 1
    table = sparsity.schedule_curve(pruning.PolynomialDecay(**RAMP, power=power), STEPS)
    assert table["step"].tolist() == steps.tolist()
    np.testing.assert_allclose(table["sparsity"], expected, atol=1e-6)


def test_a_constant_schedules_curve_is_flat():
    table = sparsity.schedule_curve(pruning.ConstantSparsity(0.5, begin_step=0), 5)
    np.testing.assert_allclose(table["sparsity"], 0.5)


def test_the_log_of_tensorboard_is_read_back(trained):
    _, folder = trained
    logged = sparsity.logged_curve(folder)
    asked = sparsity.schedule_curve(pruning.PolynomialDecay(**RAMP), STEPS).sparsity
    assert logged["layer"].unique().tolist() == ["hidden_1", "logits"]
    for layer, part in logged.groupby("layer"):
        assert part["step"].tolist() == [0, 4, 8, 12], "it is logged as each epoch begins"
        weights = {"hidden_1": 128, "logits": 32}[layer]
        np.testing.assert_allclose(part["sparsity"], [0, *asked[[4, 8, 12]]], atol=1 / weights)


def test_a_folder_without_a_log_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no log")
    with pytest.raises(InputError, match=f"folder='{tmp_path}' holds no TensorBoard event file"):
        sparsity.logged_curve(tmp_path)


# --- TensorBoard's event files


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    for run, factor in (("one", 1.0), ("two", 2.0)):
        with tf.summary.create_file_writer(str(folder / run)).as_default():
            for step in range(3):
                tf.summary.scalar("error", factor * step, step=step)
                tf.summary.histogram("weights", np.linspace(-factor, factor, 101), step=step, buckets=10)
            tf.summary.text("note", "not a number", step=0)
    return folder


def test_scalars_come_back(events):
    table = sparsity.scalars(events)
    assert list(table.columns) == ["run", "tag", "step", "value"]
    assert table[table.run == "two"].value.tolist() == [0, 2, 4]
    assert set(table.tag) == {"error"}


def test_histograms_come_back(events):
    table = sparsity.histograms(events)
    last = table[(table.run == "two") & (table.step == 2)]
    assert last["count"].sum() == 101 and (last.left.min(), last.right.max()) == (-2, 2)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="no TensorBoard event file"):
        sparsity.scalars(tmp_path)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        tf.summary.scalar("error", 1.0, step=0)
    assert sparsity.histograms(tmp_path).empty


# --- a network for sparse kernels


def test_pointwise_cnn_is_what_tfmots_policy_for_xnnpack_prunes():
    policy, schedule = pruning.PruneForLatencyOnXNNPack(), pruning.ConstantSparsity(0.8, begin_step=0)
    model = models.pointwise_cnn(32, 10)
    wrapped = pruning.prune_low_magnitude(model, schedule, pruning_policy=policy)
    pruned = [layer.layer.name for layer in wrapped.layers if hasattr(layer, "layer")]
    assert pruned == [f"block_{number}_pointwise" for number in range(1, 6)]
    table = sparsity.report(model).set_index("layer")["weights"]
    assert table[pruned].sum() > 0.85 * model.count_params()
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize("size, classes", [(8, 10), (32, 1)])
def test_a_pointwise_cnn_that_cannot_be_is_refused(size, classes):
    with pytest.raises(InputError, match=f"size={size} must be at least 16 and classes={classes} at least 2"):
        models.pointwise_cnn(size, classes)


def test_models_within_a_model_are_pruned_and_counted():
    layers = models.tf.keras.layers
    inner = models.tf.keras.Sequential([layers.Input((8,)), layers.Dense(99)])
    model = models.tf.keras.Sequential([layers.Input((8,)), inner, layers.Dense(2)])
    table = sparsity.report(sparsity.one_shot(model, 0.5))
    assert table["weights"].tolist() == [8 * 99, 99 * 2] and table["sparsity"].tolist() == [0.5, 0.5]
