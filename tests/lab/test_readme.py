"""README, RESULTS.md, the notebooks' glossary and the recorded results say the same."""

import dataclasses
import json
import re

import pytest

import helpers
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import language, results, verdicts
from helpers.evidence.stats import Estimate
from helpers.lab import claim_tables, readme, telling

README_ZH, RESULTS_ZH = readme.IN_CHINESE
EACH_README = pytest.mark.parametrize("page", (readme.README, README_ZH), ids=lambda page: page.name)
MARK = re.compile(r"^<!-- english \w+ -->\n", re.MULTILINE)  # below a heading of a page in Chinese; nobody sees it
RECORDED = [it for it in results.recordings() if (repository.NOTEBOOKS / f"{it.notebook}.ipynb").is_file()]
MOST_LINES = 120


@pytest.mark.parametrize("page", (readme.README, *readme.IN_CHINESE), ids=lambda page: page.name)
def test_generated_parts_are_current(page):
    current = readme.render(page.read_text(), language.of(page))
    assert current == page.read_text(), f"{page.name} is not current: run `make record`, or readme.update()"


def test_the_results_page_is_current():
    assert readme.results_page() == readme.RESULTS.read_text(), "RESULTS.md is not current: run readme.update()"


@EACH_README
def test_readme_is_short(page):
    assert len(MARK.sub("", page.read_text()).splitlines()) <= MOST_LINES


def off_by_one(found):
    """A marked number with its first digit changed."""
    text = found.group()
    place = re.search(r"-->[^<]*?(\d)", text).start(1)
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


@EACH_README
def test_a_changed_digit_is_noticed(page):
    text = page.read_text()
    changed = readme.VALUE.sub(off_by_one, text)
    numbers = [[found.group() for found in readme.VALUE.finditer(each)] for each in (text, changed)]
    assert len(numbers[0]) >= 5 and all(before != after for before, after in zip(*numbers, strict=True))
    assert readme.render(changed, language.of(page)) == text


@EACH_README
def test_no_number_of_a_result_is_typed_by_hand(page):
    text = readme.VALUE.sub("", page.read_text())
    for name in readme.PARTS:
        text = re.sub(rf"<!-- begin {name} -->.*?<!-- end {name} -->", "", text, flags=re.S)
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    assert not re.search(r"\d(\.\d+)?( ?%| kB| MB| ms\b| points| ?个百分点|x faster)", text)


@pytest.mark.parametrize("page", (readme.README, readme.RESULTS, *readme.IN_CHINESE), ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (repository.REPOSITORY / target).exists(), target


def fresh(it):
    """The verdicts of a recording whose rules are those that were fixed before its numbers: claim -> verdict."""
    content = results.read(it.notebook, it.profile, it.machine)
    fixed, known = content["provenance"].get("rule", {}), verdicts.catalogue()
    return content, {
        name: of for name, of in content["verdicts"].items() if name in known and fixed.get(name) == known[name].hash
    }


@pytest.mark.parametrize("it", RECORDED, ids=lambda it: f"{it.profile}/{it.machine}/{it.notebook}")
def test_recorded_verdicts_follow_from_recorded_numbers(it):
    content, recorded = fresh(it)
    assert verdicts.judge(content["numbers"], *recorded).verdict.to_dict() == recorded
    if recorded:  # their rules were committed before the run
        assert not content["provenance"]["git_revision"].endswith("-modified")


@pytest.mark.parametrize("page", (readme.RESULTS, RESULTS_ZH), ids=lambda page: page.name)
def test_no_verdict_on_the_pages_has_a_rule_younger_than_its_numbers(page):
    ledger = verdicts.ledger()
    listed = re.findall(r"^\| (C\d+[a-z]?) \|.*\((\w+), ([\w-]+)\) \|$", page.read_text(), flags=re.M)
    assert listed
    younger = ledger.set_index(["claim", "profile", "machine"])["younger"]
    assert not younger.loc[listed].any()


def test_a_changed_rule_makes_its_verdicts_younger(monkeypatch):
    name = verdicts.decisive(verdicts.ledger()).index[0]
    known = verdicts.catalogue()
    changed = dataclasses.replace(known[name], statement="Something else")
    monkeypatch.setattr(verdicts, "catalogue", lambda: known | {name: changed})
    ledger = verdicts.ledger()
    assert ledger.query("claim == @name")["younger"].all()
    assert name not in verdicts.decisive(ledger).index
    assert f"| {name} |" not in claim_tables.claims_table(ledger[~ledger["younger"]])


def test_quick_does_not_contradict_full():
    """On the reference machine of each; where machines differ, RESULTS.md says so."""
    ledger = verdicts.ledger().query("not younger and profile in ('quick', 'full')")
    ledger = ledger.drop_duplicates(["claim", "profile"])
    decided = ledger[~ledger["verdict"].isin([verdicts.UNDECIDED, verdicts.NOT_TESTABLE])]
    apart = decided.groupby("claim").filter(lambda part: part["verdict"].nunique() > 1)
    assert apart.empty, apart[["claim", "profile", "machine", "verdict"]]


def test_glossary_names_exist():
    named = re.findall(r"`helpers\.(\w+)\.(\w+)`", (repository.NOTEBOOKS / "00_start_here.ipynb").read_text())
    assert len(named) > 8
    for module, name in named:
        assert hasattr(getattr(helpers, module), name), f"helpers.{module}.{name}"


@pytest.mark.parametrize(
    "name, form",
    [
        ("delta_top1.int8", "points"),
        ("top1.float32", ".1%"),
        ("size.int8", "kB"),
        ("latency_ratio.int8", ".2f"),
        ("sensitivity.rank.first_conv.int4", ".0f"),
        ("sensitivity.layers", ".3g"),
    ],
)
def test_a_number_is_told_by_its_name(name, form):
    assert telling.form_of(name) == form


def entry(value, tolerance):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "unit": "", "tolerance": tolerance}


def test_tables_follow_from_labels(monkeypatch, tmp_path):
    machine = {"cpu": "a chip", "cpu_features": ["AVX2"], "cores": 2, "system": "Linux x86_64"}
    monkeypatch.setattr(results, "RECORDED", tmp_path / "results")
    labels = {"latency_ratio.a": "a: times as fast", "delta_top1.a": "a: change in top-1", "nosuch": "never measured"}
    numbers = {
        "delta_top1.a": entry(-0.02, 0.01),
        "latency_ratio.a": entry(2.0, None),
        "top1.hidden": entry(0.9, 0.01),
    }
    for where, year in (("here", 2026), ("there", 2025)):
        content = {
            "notebook": "09_x",
            "profile": "quick",
            "reference": where == "here",
            "numbers": numbers,
            "labels": labels,
            "verdicts": {},
        }
        content["provenance"] = {"recorded": f"{year}", "machine": machine, "data": {"name": "d", "sha256": "0"}}
        repository.write(tmp_path / "results" / "quick" / where / "09_x.json", json.dumps(content))
    accuracy, latency, where = readme.notebook_tables("09_x")
    assert "| a: change in top-1 | -2.0 points [-3.0, -1.0] |" in accuracy and "hidden" not in accuracy
    assert accuracy.startswith("|  | quick: d |")
    assert "| quick, here | 2.00 [1.99, 2.01] |" in latency and "| quick, there | 2.00" in latency
    assert "quick, here: a chip (AVX2), 2 cores" in where


def test_another_machines_number_can_be_cited(monkeypatch):
    found = {"x86-64-vnni": Estimate(1.5), None: Estimate(0.9)}

    def read(notebook, profile, machine=None):
        return {"numbers": {"latency_ratio.int8": found[machine]}}

    monkeypatch.setattr(results, "read", read)
    assert readme.value("quick", "03", "latency_ratio.int8", ".1f") == "0.9"
    assert readme.value("quick/x86-64-vnni", "03", "latency_ratio.int8", ".1f") == "1.5"
    with pytest.raises(InputError, match=r"latency_ratio\.misspelt"):
        readme.value("quick", "03", "latency_ratio.misspelt", ".1f")
