"""The house keeps its order: floors, rooms without TensorFlow, private names, the front door, guesses that come true."""

import ast
import subprocess
import sys

import pytest

import helpers
from helpers.base import errors, repository

MODULES = sorted(repository.HELPERS.rglob("*.py"))
LIGHT = ("base", "evidence", "lab", "tflite", "deploy")
# Upper bound of a module; a list of claims is read entry by entry.
LONGEST, LISTS = 400, ("claims.py",)


def run(*words, **settings):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **settings)


def test_import_contracts_hold():
    done = run("-c", "from importlinter.cli import lint_imports_command as main; main()", cwd=repository.REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_contract_is_noticed(tmp_path):
    (tmp_path / "helpers").mkdir()
    for room in ("base", "evidence", "lab", "tflite", "networks", "targets", "compress", "deploy"):
        (tmp_path / "helpers" / room).mkdir()
        (tmp_path / "helpers" / room / "__init__.py").touch()
    for name in (
        "__init__",
        "__main__",
        "doctor",
        "model_commands",
        "judging_commands",
        "options",
        "base/runtime_env",
        "tflite/runner",
        "tflite/interpreting",
        "tflite/accelerated",
        "tflite/packing",
        "compress/qat",
        "compress/keras_pruning",
    ):
        (tmp_path / "helpers" / f"{name}.py").touch()
    (tmp_path / "helpers" / "base" / "runtime_env.py").write_text("import tensorflow\nfrom helpers.lab import tour\n")
    (tmp_path / "helpers" / "lab" / "tour.py").touch()
    (tmp_path / "pyproject.toml").write_text((repository.REPOSITORY / "pyproject.toml").read_text())
    done = run("-c", "from importlinter.cli import lint_imports_command as main; main()", cwd=tmp_path)
    assert done.returncode == 1 and "Floors import downwards only BROKEN" in done.stdout


def test_rooms_that_need_no_tensorflow_load_none():
    names = [
        ".".join(path.relative_to(repository.REPOSITORY).with_suffix("").parts)
        for path in MODULES
        if path.parent.name in LIGHT and path.name != "__init__.py"
    ]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('tensorflow' in sys.modules)"
    done = run("-c", code, cwd=repository.REPOSITORY)
    assert len(names) > 25 and done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(repository.HELPERS).as_posix())
def test_a_module_keeps_to_the_house_rules(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if path.parent != repository.HELPERS or path.name != "__init__.py":
        assert not text or ast.get_docstring(tree), "says what it is for"
    assert len(text.splitlines()) <= LONGEST or path.name in LISTS, "ask what it is really about"
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers")
        for alias in node.names
    }
    foreign = [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in imported
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    ]
    assert not foreign and not any(name.startswith("_") for name in imported), "reaches into another's private names"


def test_refusals_are_few_and_share_a_base():
    own = [
        f"{path.stem}.{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    assert {name.split(".")[0] for name in own} == {"errors"} and len(own) <= 7
    assert all(issubclass(getattr(errors, name.split(".")[1]), errors.LabError) for name in own)


def test_the_front_door_hands_out_what_it_names():
    code = "import sys, helpers\nlight = 'tensorflow' not in sys.modules\nfor name in helpers.__all__: getattr(helpers, name)\nprint(light)"
    done = run("-c", code, cwd=repository.REPOSITORY)
    assert done.stdout == "True\n" and done.stderr == ""
    with pytest.raises(AttributeError, match="no 'nosuch': it hands out across, affine, bench"):
        helpers.nosuch  # noqa: B018


def test_tests_stand_where_their_module_does():
    rooms = {path.parent.name for path in MODULES}
    for path in (repository.REPOSITORY / "tests").glob("*/test_*.py"):
        room = path.parent.name
        if room != "whole":
            assert room in rooms and (repository.HELPERS / room / f"{path.stem.removeprefix('test_')}.py").is_file(), (
                path
            )
