"""Two of the zoo's architectures through every tool, as `benchmarks/zoo.py` does with all; and what it kept of the others."""

import runpy

import pandas as pd
import pytest

from helpers.base import repository
from helpers.evidence import results
from helpers.lab import readme
from tests import architectures

ZOO = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "zoo.py"))


@pytest.mark.parametrize("name", ["custom layer", "uint8 input"])
def test_no_tool_is_wrong_or_ends_in_a_traceback(name):
    row = ZOO["judged"](name, "3")
    assert {outcome for outcome, _ in row.values()} <= {"right", "refused"}, row
    assert row["load"][0] == row["int8"][0] == row["prune_channels"][0] == "right"


def test_what_was_kept_is_of_every_architecture_and_column():
    content = results.read("zoo", "zoo")
    for column in ZOO["COLUMNS"]:
        counts = [content["numbers"][f"zoo.{column}.{outcome}"].value for outcome in ZOO["OUTCOMES"]]
        assert sum(counts) == len(architectures.BUILDERS) == 36
    table = pd.read_csv(readme.zoo_file(), keep_default_na=False)
    assert len(table) == 36 * len(ZOO["COLUMNS"]) and not set(table["outcome"]) - set(ZOO["OUTCOMES"])
    refused = table[table["outcome"] == "refused"]
    assert (refused["why"] != "").all(), "a refusal without a reason"
