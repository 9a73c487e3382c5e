"""`benchmarks/search_unseen.py`: its rule, and what it kept of the flowers."""

import runpy

import pytest

from helpers.base import repository
from helpers.evidence import results, stats

UNSEEN = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "search_unseen.py"))


def test_the_rule_reads_the_interval():
    gains = {"random": (0.02, 0.01, 0.03), "ends": (0.02, -0.01, 0.05), "greedy": (-0.02, -0.03, -0.01)}
    numbers = {f"gain.search_over_{rival}_int4": stats.Estimate(*gain, "share") for rival, gain in gains.items()}
    numbers["gain.search_over_random_ends"] = stats.Estimate(-1.0, -1.0, -1.0, "share")  # of another budget
    found = UNSEEN["decided"](numbers, "int4")
    assert found == {"random": "better than", "ends": "level with", "greedy": "worse than"}


@pytest.mark.parametrize("checkpoint", UNSEEN["CHECKPOINTS"])
def test_what_was_kept_holds_what_is_said_of_it(checkpoint):
    """At the bytes of 4 bits throughout it beats every rival; with a tenth more, at 224 px, it is level with the greedy search."""
    content = results.read(checkpoint, "search")
    assert content["parameters"]["tries"] == 100 and content["provenance"]["data"]["name"] == "flowers"
    numbers = content["numbers"]
    found = {budget: UNSEEN["decided"](numbers, budget) for budget in UNSEEN["BUDGETS"]}
    assert {len(of) for of in found.values()} == {5} and {*found["int4"].values()} == {"better than"}
    others = {rival: word for rival, word in found["ends"].items() if rival != "greedy"}
    assert {*others.values()} == {"better than"}
    assert found["ends"]["greedy"] == ("level with" if checkpoint.endswith("224") else "better than")
    for budget in UNSEEN["BUDGETS"]:
        limit = max(of.value for name, of in numbers.items() if name.startswith(f"size.search_{budget}"))
        assert numbers[f"size.search_{budget}_search"].value <= limit
