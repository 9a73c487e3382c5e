"""Reading TensorBoard's event files back."""

import numpy as np
import pytest
import tensorflow as tf

from helpers import events


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for run, factor in (("one", 1.0), ("two", 2.0)):
        with tf.summary.create_file_writer(str(folder / run)).as_default():
            for step in range(3):
                tf.summary.scalar("error", factor * step, step=step)
                tf.summary.histogram("weights", np.linspace(-factor, factor, 101), step=step, buckets=10)
            tf.summary.text("note", "not a number", step=0)
    return folder


def test_scalars_come_back(folder):
    table = events.scalars(folder)
    assert list(table.columns) == ["run", "tag", "step", "value"]
    assert table[table.run == "two"].value.tolist() == [0, 2, 4]
    assert set(table.tag) == {"error"}


def test_histograms_come_back(folder):
    table = events.histograms(folder)
    last = table[(table.run == "two") & (table.step == 2)]
    assert last["count"].sum() == 101 and (last.left.min(), last.right.max()) == (-2, 2)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no TensorBoard event file"):
        events.scalars(tmp_path)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        tf.summary.scalar("error", 1.0, step=0)
    assert events.histograms(tmp_path).empty
