"""Two files trained as `benchmarks/trainable.py` does it with all; and what it kept of the others."""

import runpy

import pandas as pd
import pytest

from helpers.base import repository
from helpers.evidence import results
from helpers.lab import readme
from helpers.networks import checkpoints
from tests import architectures

TRAINABLE = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "trainable.py"))

# From the file's own integers each operator of it makes the same, but for ties. It is so deep, with random weights, that these
# are multiplied: its simulation and the file are as far apart as LiteRT's two kinds of kernels, within 2 dB.
KNOWN = {("NASNet", "simulation")}


@pytest.mark.parametrize("name", ["1-D CNN", checkpoints.CHECKPOINTS / "pytorch_fashion_28.tflite"])
def test_a_file_is_trained_whatever_made_it(name):
    assert TRAINABLE["judged"](name) == dict.fromkeys(TRAINABLE["COLUMNS"], ("right", ""))


@pytest.mark.skipif(readme.outcomes_file("trainable") is None, reason="not recorded yet")
def test_what_was_kept_is_of_every_file_and_column():
    table = pd.read_csv(readme.outcomes_file("trainable"), keep_default_na=False)
    models = table.drop_duplicates("model")["made_by"].value_counts()
    assert models["Keras 3"] == len(architectures.BUILDERS) and models["PyTorch"] == 1 and models["a product"] >= 4
    assert len(table) == models.sum() * len(TRAINABLE["COLUMNS"])
    wrong = table[~table["outcome"].isin(["right", "refused"])]
    assert set(zip(wrong["model"], wrong["column"], strict=True)) <= KNOWN, wrong
    assert not table["why"].str.contains(r"[ ']/\w").any(), "a path of one machine"
    assert (table[table["outcome"] == "refused"]["why"] != "").all(), "a refusal without a reason"
    numbers = results.read("trainable", "trainable")["numbers"]
    for column in TRAINABLE["COLUMNS"]:
        right = (table[table["column"] == column]["outcome"] == "right").sum()
        assert numbers[f"trainable.{column}.right"].value == right >= 40
    assert readme.outcomes_table("trainable") in readme.RESULTS.read_text(encoding="utf-8")
