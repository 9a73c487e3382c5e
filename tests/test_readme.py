"""README, the notebooks' glossary and the recorded results say the same."""

import importlib
import re

import pytest

from helpers import claims, files, readme, results

RECORDED = sorted(results.RECORDED.glob("*/*.json"))


def test_generated_parts_are_current():
    assert readme.render() == readme.README.read_text(), "README is not current: run `make record`, or readme.update()"


def test_a_changed_digit_is_noticed():
    text = readme.README.read_text()
    begin = text.index("<!-- begin pruning -->")
    digit = re.search(r"\d(?=%)", text[begin:])
    where = begin + digit.start()
    changed = text[:where] + str((int(text[where]) + 1) % 10) + text[where + 1 :]
    assert readme.render(changed) != changed


def test_no_number_of_a_result_is_typed_by_hand():
    text = readme.README.read_text()
    for name in readme.PARTS:
        text = re.sub(rf"<!-- begin {name} -->.*?<!-- end {name} -->", "", text, flags=re.S)
    assert not re.search(r"\d(\.\d+)?( ?%| kB| MB| ms\b|x faster)", text)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", readme.README.read_text()):
        assert (files.REPOSITORY / target).exists(), target


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recorded_verdicts_follow_from_recorded_numbers(path):
    content = results.read(path.stem, path.parent.name)
    assert claims.judge(content["numbers"], *content["verdicts"]).verdict.to_dict() == content["verdicts"]


def test_glossary_names_exist():
    named = re.findall(r"`helpers\.(\w+)\.(\w+)`", (files.NOTEBOOKS / "00_start_here.ipynb").read_text())
    assert len(named) > 8
    for module, name in named:
        assert hasattr(importlib.import_module(f"helpers.{module}"), name), f"helpers.{module}.{name}"
