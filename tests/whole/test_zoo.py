"""Two of the zoo's architectures through every tool, as `benchmarks/zoo.py` does with all; and what it kept of the others."""

import runpy

import pandas as pd
import pytest

from helpers.base import repository
from helpers.evidence import results
from helpers.lab import readme
from tests import architectures

ZOO = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "zoo.py"))


@pytest.mark.parametrize("name, library", [("custom layer", "2"), ("uint8 input", "3")])
def test_no_tool_is_wrong_or_ends_in_a_traceback(name, library):
    row = ZOO["judged"](name, library)
    assert {outcome for outcome, _ in row.values()} <= {"right", "refused"}, row
    assert row["load"][0] == row["int8"][0] == row["per_tensor"][0] == "right"


def test_what_was_kept_is_of_every_architecture_and_column():
    content = results.read("zoo", "zoo")
    for column in ZOO["COLUMNS"]:
        counts = [content["numbers"][f"zoo.{column}.{outcome}"].value for outcome in ZOO["OUTCOMES"]]
        assert sum(counts) == len(architectures.BUILDERS) == 36
    right = {column: content["numbers"][f"zoo.{column}.right"].value for column in ("load", "int8", "prune_channels")}
    assert content["numbers"]["zoo.sensitivity.right"].value >= 32 and content["numbers"]["zoo.gate.right"].value == 36
    assert right["load"] >= 34 and right["int8"] >= 34 and right["prune_channels"] >= 26
    table = pd.read_csv(readme.outcomes_file("zoo"), keep_default_na=False)
    assert len(table) == 36 * len(ZOO["COLUMNS"]) and set(table["outcome"]) == {"right", "refused"}
    refused = table[table["outcome"] == "refused"]
    assert (refused["why"] != "").all(), "a refusal without a reason"
