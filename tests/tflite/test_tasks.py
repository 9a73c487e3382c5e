"""Which task outputs and labels fit; numbers, vectors and the user's own scores; and that every task is the better the nearer."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.tflite import tasks
from helpers.tflite.tasks import Embedding, Own, Regression

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "shape, y, name",
    [
        ((5,), np.array([0, 4]), "classification"),
        ((5,), np.eye(5)[[0, 4]], "classification"),
        ((5,), np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]), "multi-label"),
        ((5,), RANDOM.normal(size=(2, 5)), "regression"),
        ((2,), np.array([[3, 40], [0, 7]]), "regression"),
        ((5,), np.array([0.0, 4.0]), "classification"),
        ((1,), np.array([0, 1]), "binary"),
        ((1,), np.array([0.0, 1.0]), "binary"),
        ((1,), np.array([0.2, 1.0]), "regression"),
        ((), np.array([3, 7]), "regression"),
        ((4, 4, 3), np.zeros((2, 4, 4), int), "segmentation"),
        ((4, 4, 1), RANDOM.normal(size=(2, 4, 4)), "regression"),
        ((4, 4, 1), np.eye(4)[[[0, 1, 2, 3], [3, 3, 0, 1]]][..., None], "segmentation"),
        ((4, 4, 1), np.eye(4)[[[0, 1, 2, 3], [3, 3, 0, 1]]], "segmentation"),
        ((1, 4, 4), np.eye(4)[[[0, 1, 2, 3], [3, 3, 0, 1]]][:, None], "segmentation"),
        ((1, 4, 4), np.eye(4)[[[0, 1, 2, 3], [3, 3, 0, 1]]], "segmentation"),
        ((3, 5, 4), np.zeros((2, 1, 5, 4), int), "segmentation"),
        ((3, 5, 4), np.zeros((2, 5, 4, 1), int), "segmentation"),
        ((7, 3), np.zeros((2, 7), int), "segmentation"),
        ((30, 7), np.array([[[0, 1, 2, 3, 4]], [[2, 5, 5, 9, 9]]]), "detection"),
        ((30, 7), np.array([[[0, 0.1, 0.2, 0.3, 0.4]], [[-1, -1, -1, -1, -1]]]), "detection"),
        ((5,), None, "classification"),
        ((2, 2), None, "regression"),
    ],
)
def test_the_task_follows_from_outputs_and_labels(shape, y, name):
    answers = {"out": RANDOM.normal(size=(2, *shape)).astype("float32")}
    task = tasks.choose({"out": shape}, answers, y)
    assert task.name == name
    truth = task.own(answers) if y is None else task.truth(y, 2)
    assert len(task.settled(answers, truth).scores(answers, truth)) == 2


@pytest.mark.parametrize(
    "shape, y",
    [((2,), RANDOM.normal(size=20)), ((2,), RANDOM.normal(size=(20, 3))), ((3, 5), RANDOM.normal(size=(20, 3, 4)))],
)
def test_numbers_in_another_shape_are_told_the_shape_of_the_outputs_and_not_how_classes_are_written(shape, y):
    task = tasks.choose({"out": shape}, {"out": RANDOM.normal(size=(20, *shape)).astype("float32")}, y)
    with pytest.raises(InputError) as refused:
        task.truth(y, 20)
    assert str(refused.value) == f"y has shape {y.shape}: the model answers with {(20, *shape)}."
    task.truth(RANDOM.normal(size=(20, *shape)), 20)


def test_without_labels_probabilities_tell_classes_from_numbers():
    logits = RANDOM.normal(size=(3, 4, 4, 2))
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert tasks.choose({"out": (4, 4, 2)}, {"out": chances}).name == "segmentation"
    assert tasks.choose({"out": (4, 4, 2)}, {"out": logits}).name == "regression"
    assert tasks.choose({"out": (1,)}, {"out": chances[:, 0, 0, :1]}).name == "binary"
    assert tasks.choose({"out": (1,)}, {"out": logits[:, 0, 0, :1]}).name == "regression"


@pytest.mark.parametrize(
    "asked, message",
    [
        ("ranking", "task='ranking' is unknown: choose one of classification, binary"),
        ("detection", "this is no model of task detection: its outputs have shapes"),
        ("regression:loud", "'loud' is no option of regression: it has none"),
        ("embedding:threshold=high", "write threshold as a number, as in embedding:threshold=0.5"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(asked, message):
    with pytest.raises(InputError, match=message):
        tasks.choose({"out": (5,)}, asked=asked)


def test_masks_of_a_model_without_an_axis_of_classes_are_told_what_fits():
    y = RANDOM.integers(0, 2, (9, 8, 7))
    task = tasks.choose({"out": (8, 7)}, None, y)
    with pytest.raises(
        InputError, match=r"give the class of each place, \(9, 8\) or \(9, 7\), or say --task regression"
    ):
        task.truth(y, 9)
    assert tasks.choose({"out": (8, 7)}, None, y, "regression").truth(y, 9).shape == (9, 8, 7)


def test_a_number_that_never_changes_does_not_count_beside_others():
    y = np.array([[0, 0.1], [1, 0.1], [2, 0.1]])  # whose mean is rounded, so that its variance is not 0
    task = Regression({"out": (2,)})
    assert task.scores({"out": y + np.array([0, 1e-3])}, task.truth(y, 3)).mean() == 1


def test_options_are_read():
    assert tasks.choose({"out": (5,)}, asked="embedding:threshold=0.5").threshold == 0.5
    task = tasks.choose({"out": (30, 8)}, asked="detection:cxcywh,objectness")
    assert (task.form, task.objectness, task.classes) == ("cxcywh", True, 3)


def test_the_mean_score_of_a_regression_is_its_coefficient_of_determination():
    y = RANDOM.normal(size=(500, 3)) * [1, 10, 100]
    answers = {"out": (y + RANDOM.normal(size=y.shape) * [0.1, 5, 80]).astype("float32")}
    task = Regression({"out": (3,)})
    wanted = np.mean([1 - ((answers["out"][:, j] - y[:, j]) ** 2).mean() / y[:, j].var() for j in range(3)])
    assert task.scores(answers, task.truth(y, 500)).mean() == pytest.approx(wanted)


def test_a_column_that_never_changes_explains_nothing_and_is_left_out():
    y = np.column_stack([np.arange(4.0), np.ones(4)])
    task = Regression({"out": (2,)})
    assert task.scores({"out": y + np.array([0, 5])}, task.truth(y, 4)).tolist() == [1, 1, 1, 1]
    with pytest.raises(InputError, match="is the same for all 4 samples"):
        task.truth(np.ones((4, 2)), 4)


def test_a_column_that_never_changes_counts_where_the_model_is_its_own_judge():
    before = np.column_stack([np.arange(4.0), np.full(4, 5.0), np.zeros(4)]).astype("float32")
    task = Regression({"out": (3,)})
    task = task.settled({"out": before}, task.own({"out": before}))
    after = {"out": before + np.array([0, 1, 0.5], "float32")}
    wanted = [1 - (1 / 25 + 0.25) / 3] * 4  # in units of 5², and of 1 for zeros
    assert task.scores(after, task.own({"out": before})) == pytest.approx(wanted)
    assert task.damage({"out": before}, after) == pytest.approx(1 - np.array(wanted))
    labelled = task.settled({"out": before}, before + np.array([1, 0, 0]))
    assert labelled.scores(after, before.astype(float)).tolist() == [1, 1, 1, 1]


def test_damage_is_in_the_units_of_each_number():
    """A price beside two shares: zeros for the shares are not alike because the price is right."""
    before = {"out": (RANDOM.normal(size=(64, 3)) * [1000, 1, 1]).astype("float32")}
    after = {"out": before["out"] * np.array([1, 0, 0], "float32")}
    task = Regression({"out": (3,)})
    wanted = (
        sum((before["out"][:, place].astype(float) ** 2 / before["out"][:, place].var() for place in (1, 2)), 0) / 3
    )
    assert task.damage(before, after) == pytest.approx(wanted, rel=1e-4)
    assert task.alike(before, after).mean() < 0.1


@pytest.mark.parametrize("y", [np.arange(4), np.arange(4.0)[:, None]])
def test_numbers_in_any_form(y):
    assert Regression({"out": (1,)}).truth(y, 4).shape == (4, 1)


def test_numbers_that_are_none_are_refused():
    task = Regression({"out": (1,)})
    for y, message in (
        (np.array(["1", "2"]), r"as in y.astype\('float32'\)"),
        (np.array([1.0, np.nan]), "NaN or infinity"),
        (np.array([1.0, 2.0, 3.0]), r"has shape \(3,\): the model answers with \(2, 1\)"),
    ):
        with pytest.raises(InputError, match=message):
            task.truth(y, 2)
    assert task.truth(np.array(["1", "2"]).astype("float32"), 2).ravel().tolist() == [1, 2]


VECTORS = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], "float32")


def test_the_nearest_neighbour_shows_the_same():
    task, answers = Embedding({"out": (2,)}), {"out": VECTORS}
    assert task.scores(answers, task.truth(np.array(["a", "a", "b", "b"]), 4)).tolist() == [True] * 4
    assert task.scores(answers, task.truth(np.array([7, 9, 9, 7]), 4)).tolist() == [False] * 4
    assert task.damage(answers, {"out": 3 * VECTORS}) == pytest.approx([0] * 4, abs=1e-6)
    with pytest.raises(InputError, match="shows c once only"):
        task.truth(np.array(["a", "a", "b", "b", "c"]), 5)


def test_pairs_are_told_apart_by_the_baselines_threshold():
    task, pairs = Embedding({"out": (2,)}), np.array([[0, 1, 1], [2, 3, 1], [0, 2, 0], [1, 3, 0]])
    truth = task.truth(pairs, 4)
    task = task.settled({"out": VECTORS}, truth)
    assert task.scores({"out": VECTORS}, truth).tolist() == [True] * 4
    blurred = {"out": VECTORS + 5}  # all are near: every pair passes for the same
    assert task.scores(blurred, truth).tolist() == [True, True, False, False]
    with pytest.raises(InputError, match="two samples of 0 to 3"):
        task.truth(np.array([[0, 4, 1]]), 4)


def test_a_metric_of_the_users(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def near(out, y):\n    return abs(out[:, 0] - y) < 1\n\ndef broken(out, y):\n    return 1 / 0\n"
    )
    task = tasks.metric(f"{tmp_path}/mine.py:near", {"out": (1,)})
    assert isinstance(task, Own)
    scores = task.scores({"out": np.array([[1.0], [5.0]])}, task.truth([1.5, 1.5], 2))
    assert scores.tolist() == [True, False] and scores.dtype == bool
    for asked, message in ((f"{tmp_path}/mine.py:far", "has no function far"), ("far", "must read FILE.py:FUNCTION")):
        with pytest.raises(InputError, match=message):
            tasks.metric(asked, {"out": (1,)})
    with pytest.raises(InputError, match="ZeroDivisionError: division by zero"):
        tasks.metric(f"{tmp_path}/mine.py:broken", {"out": (1,)}).scores({"out": np.zeros((2, 1))}, [1, 1])
    with pytest.raises(InputError, match="must give a finite score for each sample"):
        Own({"out": (1,)}, lambda out, y: 1.0).scores({"out": np.zeros((2, 1))}, [1, 1])
    with pytest.raises(InputError, match="add y to the data"):
        task.own({})


def kinds():
    """Each task with answers and labels: (task, answers, truth)."""
    n = 80
    y = RANDOM.integers(0, 4, n)
    yield tasks.choose({"o": (4,)}, asked="classification"), {"o": 4 * np.eye(4)[y] + RANDOM.normal(size=(n, 4))}, y
    yes = y > 1
    yield tasks.choose({"o": (1,)}, asked="binary"), {"o": 4.0 * yes[:, None] - 2 + RANDOM.normal(size=(n, 1))}, yes
    several = RANDOM.random((n, 5)) < 0.4
    yield tasks.choose({"o": (5,)}, asked="multi-label"), {"o": 4.0 * several - 2 + RANDOM.normal(size=(n, 5))}, several
    values = RANDOM.normal(size=(n, 2))
    yield tasks.choose({"o": (2,)}, asked="regression"), {"o": values + 0.1 * RANDOM.normal(size=(n, 2))}, values
    places = RANDOM.integers(0, 3, (n, 4, 4))
    yield (
        tasks.choose({"o": (4, 4, 3)}, asked="segmentation"),
        {"o": 4 * np.eye(3)[places] + RANDOM.normal(size=(n, 4, 4, 3))},
        places,
    )
    boxes = np.tile(np.array([0.0, 0, 10, 10]), (n, 12, 1)) + 20 * np.arange(12)[None, :, None]
    where = RANDOM.integers(0, 12, n)
    sure = np.zeros((n, 12, 2))
    sure[np.arange(n), where, y % 2] = 0.9
    found = np.concatenate([boxes, sure], axis=-1)
    truth = np.concatenate([(y % 2)[:, None, None], boxes[np.arange(n), where][:, None]], axis=-1)
    yield tasks.choose({"o": (12, 6)}, asked="detection"), {"o": found}, truth
    yield tasks.choose({"o": (6,)}, asked="embedding"), {"o": np.eye(6)[y] + 0.1 * RANDOM.normal(size=(n, 6))}, y


@pytest.mark.parametrize("task, answers, truth", list(kinds()), ids=list(tasks.TASKS))
def test_worse_answers_score_less_and_damage_more(task, answers, truth):
    """For every task: what is added to the answers costs score and is damage; the more, the worse; nothing costs nothing."""
    task, random = task.settled(answers, truth), np.random.default_rng(1)
    noise = random.normal(size=answers["o"].shape) * (1.0 if task.name == "detection" else answers["o"].std())
    found = [
        (stats.score(task.scores(worse, truth)).value, task.damage(answers, worse).mean())
        for worse in ({"o": answers["o"] + size * noise} for size in (0, 0.3, 3))
    ]
    scores, damages = zip(*found, strict=True)
    assert scores[0] >= scores[1] > scores[2]
    assert abs(damages[0]) < 1e-9 and damages[0] < damages[1] < damages[2]
    assert stats.score_difference(task.scores(answers, truth), task.scores(answers, truth)).value == 0
    own = task.own(answers)
    assert stats.score(task.scores(answers, own)).value == 1
    uninformed = stats.score(task.uninformed(answers, truth)).value
    assert uninformed < scores[0] - 0.2
    same = task.same(answers, answers)
    assert (same is not None and (same == 1).all()) if task.discrete else same is None
