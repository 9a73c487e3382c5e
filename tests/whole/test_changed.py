"""`--changed` runs what a change can reach, and no more."""

import json
import os
import shutil
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import helpers
from helpers.base import repository
from tests import changed


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of what keys are made of, to be changed."""
    for name in ("helpers", "tests", "benchmarks", "notebooks/profiles"):
        shutil.copytree(repository.REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "README.md"):
        shutil.copy(repository.REPOSITORY / name, tmp_path)
    monkeypatch.setattr(changed, "ROOT", tmp_path)
    monkeypatch.setattr(changed, "STORE", tmp_path / "passed.json")
    monkeypatch.setattr(repository, "HELPERS", tmp_path / "helpers")
    changed._lock.cache_clear()
    yield tmp_path
    changed._lock.cache_clear()


def append(path, text="\n# changed\n"):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_a_change_reaches_those_who_use_it_even_through_others(copy):
    files = {
        name: copy / "tests" / f"{name}.py"
        for name in ("compress/test_affine", "compress/test_equalization", "evidence/test_stats")
    }
    before = {name: changed.key(path) for name, path in files.items()}
    append(copy / "helpers" / "compress" / "affine.py")
    after = {name: changed.key(path) for name, path in files.items()}
    assert [name for name in files if before[name] != after[name]] == [
        "compress/test_affine",
        "compress/test_equalization",
    ]


@pytest.mark.parametrize("changes", ["requirements.txt", "tests/conftest.py", "tests/evidence/test_stats.py"])
def test_the_lock_the_conftest_and_its_own_text_reach_a_test(copy, changes):
    path = copy / "tests" / "evidence" / "test_stats.py"
    before = changed.key(path)
    append(copy / changes)
    changed._lock.cache_clear()
    assert changed.key(path) != before


def test_a_guide_reaches_the_tests_that_name_it(copy):
    reader, other = copy / "tests" / "lab" / "test_readme.py", copy / "tests" / "compress" / "test_affine.py"
    before = changed.key(reader), changed.key(other)
    append(copy / "README.md")
    assert changed.key(reader) != before[0] and changed.key(other) == before[1]


def test_whoever_starts_the_commands_uses_all_modules():
    assert len(changed.modules("from helpers.__main__ import main")) == len(list(repository.HELPERS.rglob("*.py")))


def test_the_front_door_leads_to_the_module():
    assert set(helpers.__all__) >= {"measure", "lab"}
    assert repository.HELPERS / "tflite" / "measure.py" in changed.modules("from helpers import measure")
    assert repository.HELPERS / "lab" / "run.py" in changed.modules("from helpers import lab")


def notebook(path, prose="Read.", code="from helpers import stats", printed="1"):
    cell = new_code_cell(code, id="code", outputs=[new_output("stream", text=printed)])
    nbformat.write(new_notebook(cells=[new_markdown_cell(prose, id="text"), cell]), path)
    return changed.key(path)


def test_of_a_notebook_code_and_outputs_count_and_prose_does_not(copy):
    path = copy / "notebooks" / "09_x.ipynb"
    before = notebook(path)
    assert notebook(path, prose="Read again.") == before
    assert notebook(path, code="from helpers import stats\n") != before
    assert notebook(path, printed="2") != before
    notebook(path)
    append(copy / "helpers" / "evidence" / "stats.py")
    assert changed.key(path) != before


def lesson(path, prose="Read.", share="0.5", code="1 + 1"):
    cells = [
        new_markdown_cell(prose, id="text"),
        new_code_cell(f"share = {share}  # in (0, 1)", id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(code, id="code"),
    ]
    nbformat.write(new_notebook(cells=cells), path)


def test_a_notebook_s_change_reaches_the_tests_that_read_what_changed(copy):
    path = copy / "notebooks" / "09_x.ipynb"
    names = ("whole/test_notebooks", "whole/test_site", "lab/test_recorded", "lab/test_exercises", "lab/test_tour")

    def reached(**changes):
        lesson(path)
        before = [changed.key(copy / "tests" / f"{name}.py") for name in names]
        lesson(path, **changes)
        return [name for name, key in zip(names, before, strict=True) if changed.key(copy / f"tests/{name}.py") != key]

    assert reached(prose="Read again.") == list(names[:2])
    assert reached(code="2 + 2") == list(names[:3])
    assert reached(share="0.6") == list(names[:4])
    assert reached() == []


def test_what_is_said_of_notebooks_is_of_files_that_exist():
    for name, read in changed.OF_NOTEBOOKS.items():
        assert (repository.REPOSITORY / name).is_file(), name
        assert all(list(repository.REPOSITORY.glob(pattern)) for pattern in read), name


@pytest.mark.parametrize(
    "name, file",
    [
        ("evidence/test_verdicts", "helpers/evidence/claims.py"),  # loaded by its name
        ("whole/test_rules", "helpers/evidence/claims.py"),
        ("whole/test_rules", "benchmarks/rules.py"),  # run
        ("whole/test_gate_errors", "benchmarks/gate_errors.py"),
        ("whole/test_gate_errors", "helpers/compress/quantize.py"),  # which that imports
        ("whole/test_rules", "results/rules/x.json"),
        ("lab/test_quiz", "notebooks/quiz.yaml"),
        ("lab/test_quiz", "results/quick/x.json"),
        ("lab/test_readme", "results/zoo/x.csv"),
    ],
)
def test_what_is_run_or_loaded_or_read_by_name_reaches_a_test(copy, name, file):
    (copy / file).parent.mkdir(parents=True, exist_ok=True)
    if not (copy / file).exists():
        (copy / file).write_text("{}")
    path = copy / "tests" / f"{name}.py"
    before = changed.key(path)
    append(copy / file)
    assert changed.key(path) != before


def test_what_was_written_while_tests_ran_is_not_what_ran(copy):
    path, module = copy / "tests" / "evidence" / "test_stats.py", copy / "helpers" / "evidence" / "stats.py"
    now = time.time() + 10
    assert changed.older(path, now)
    os.utime(module, (now + 1, now + 1))
    assert not changed.older(path, now)


def test_what_failed_is_forgotten(copy):
    changed.store({"a": "1", "b": "2"})
    changed.store({"a": None, "c": "3"})
    assert changed.passed() == {"b": "2", "c": "3"}
    changed.STORE.write_text("{")
    assert changed.passed() == {}
    changed.store({"d": "4"})
    assert json.loads(changed.STORE.read_text()) == {"d": "4"}


def test_a_recording_reaches_the_notebooks_that_read_recordings(copy):
    ledger, plain = copy / "notebooks" / "07_x.ipynb", copy / "notebooks" / "08_x.ipynb"
    result = copy / "results" / "full" / "here" / "01_x.json"
    result.parent.mkdir(parents=True)
    keys = []
    for content in ("{}", "{} "):
        result.write_text(content)
        keys.append((notebook(ledger, code="from helpers import verdicts\n"), notebook(plain)))
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]
