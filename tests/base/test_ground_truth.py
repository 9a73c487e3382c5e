"""Labels: every form that says one class a sample is read right, every other refused, and the cure, when followed, works."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from helpers.base import ground_truth
from helpers.base.errors import InputError

Y = np.array([0, 3, 1, 2, 0])


@pytest.mark.parametrize(
    "form",
    [
        Y,
        Y.tolist(),
        Y.astype("uint8"),
        Y.astype("int32")[:, None],
        Y / 1.0,
        Y.astype("float32")[:, None],
        np.eye(4)[Y],
        np.eye(4, dtype=bool)[Y],
        np.eye(4, dtype="uint8")[Y],
    ],
)
def test_what_says_one_class_a_sample_is_read(form):
    found = ground_truth.labels(form, 5, 4)
    assert found.dtype == np.int64 and found.tolist() == Y.tolist()


def test_two_classes_as_booleans():
    assert ground_truth.labels(Y > 0, 5, 2).tolist() == [0, 1, 1, 1, 0]


def test_uint8_labels_do_not_wrap_around():
    with pytest.raises(InputError, match=r"y has labels from 1 to 4: the model answers 0 to 3\. .*give y - 1"):
        ground_truth.labels((Y + 1).astype("uint8"), 5, 4)


MULTI_HOT = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
SOFT = np.array([[0.7, 0.3, 0, 0], [0.1, 0.1, 0.1, 0.7], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
UNLABELLED, MISSING = np.array([0, -1, 1, 2, -1]), np.array([0, np.nan, 1, 2, 0])


@pytest.mark.parametrize(
    "y, message, cured",
    [
        (Y + 1, "labels from 1 to 4: the model answers 0 to 3", Y),
        (UNLABELLED, "labels from -1 to 2", [0, 1, 2]),
        (MISSING, "is NaN or infinity for 1 of 5 samples", [0, 1, 2, 0]),
        (MULTI_HOT, "several classes for 1 of 5 samples and none for 1", [1, 2, 0]),
        (SOFT, "not only zeros and ones", [0, 3, 1, 2, 0]),
    ],
)
def test_a_refusal_names_a_cure_that_works(y, message, cured):
    with pytest.raises(InputError, match=f"^data: y.*{message}") as refused:
        ground_truth.labels(y, 5, 4, "data: y")
    told = re.search(r"give (?:(keep) = (.+) and )?(y.*)$", str(refused.value), re.IGNORECASE)
    names = {"y": y, "np": np}
    if told.group(1):
        names["keep"] = eval(told.group(2), names)
    made = eval(told.group(3).rstrip("."), names)
    assert ground_truth.labels(made, len(made), 4).tolist() == list(cured)


def test_words_become_labels_by_the_order_of_the_models_outputs():
    y, names = np.array(["cat", "bee", "ant", "cat"]), ["cat", "ant", "bee"]
    with pytest.raises(InputError, match=r"y holds words \(<U3\): give .*, as in \[(.*)\]") as refused:
        ground_truth.labels(y, 4, 3)
    made = eval(re.search(r"\[.*\]", str(refused.value)).group(), {"names": names, "y": y})
    assert ground_truth.labels(made, 4, 3).tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize(
    "y, message",
    [
        (Y[:3], "y has 3 labels for 5 samples"),
        (np.int64(3), "y has 1 labels for 5 samples"),
        (Y / 2, "y holds 1.5: classes are whole numbers"),
        (Y + 2, "y has labels from 2 to 5: the model answers 0 to 3.$"),
        (np.eye(6)[Y], "y has rows of 6: the model has 4 classes"),
        (np.eye(4)[Y][:, :, None], r"y is float64 of shape \(5, 4, 1\): it must be integers of shape \(5,\)"),
        (np.array([None] * 5), r"y holds words \(object\)"),
    ],
)
def test_what_has_no_cure_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        ground_truth.labels(y, 5, 4)


def test_a_cure_calls_the_array_by_its_name():
    with pytest.raises(InputError, match=r"^own.npz: y_train has labels from 1 to 4: .*, give y_train - 1\.$"):
        ground_truth.labels(Y + 1, 5, 4, "own.npz: y_train")


def test_without_the_number_of_classes_they_count_from_0():
    assert ground_truth.labels(Y + 7, 5).tolist() == (Y + 7).tolist()
    with pytest.raises(InputError, match="labels from -2 to 1: classes are counted from 0"):
        ground_truth.labels(Y - 2, 5)


@given(
    hypothesis_numpy.arrays(
        st.sampled_from(["int8", "uint8", "int64", "float32", "bool", "U2"]),
        hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4),
    )
)
def test_whatever_is_given_is_read_as_n_labels_or_refused(y):
    n = len(y) if y.ndim else 1
    try:
        found = ground_truth.labels(y, n, 4)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert found.shape == (n,) and ((found >= 0) & (found < 4)).all()
        assert (y.ndim == 2 and y.shape[1] > 1) or (found == y.ravel()).all()
