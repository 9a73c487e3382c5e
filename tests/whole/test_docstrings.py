"""Public functions say what they take, give and raise: what a machine can check of it. That a docstring is there is checked by ruff (D)."""

import ast

import pytest

from helpers.base import errors, repository

ERRORS = {"ValueError", *(name for name, it in vars(errors).items() if isinstance(it, type))}
MODULES = sorted(repository.HELPERS.rglob("*.py"))


def untold(source):
    """Errors that a public function of a module raises itself, and that its docstring does not name: ["function: Error"]."""
    found = []
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_") or _is_command(function):
            continue
        told = ast.get_docstring(function) or ""
        found += [f"{function.name}: {error}" for error in sorted(_raised(function)) if error not in told]
    return found


def _raised(node):
    """Names of the error classes that are raised in a function, those of functions within it included."""
    calls = (each.exc for each in ast.walk(node) if isinstance(each, ast.Raise))
    return {call.func.id for call in calls if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ERRORS}


def _is_command(function):
    """Whether click shows the docstring to users, who see the error itself."""
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_is_raised_is_told(path):
    assert not untold(path.read_text(encoding="utf-8"))


def test_an_error_that_is_not_told_is_found():
    body = "    raise InputError('no')"
    assert untold(f'def f(x):\n    """Half of x."""\n{body}') == ["f: InputError"]
    assert not untold(f'def f(x):\n    """Half of x. Raises InputError for text."""\n{body}')
    assert not untold(f'def _f(x):\n    """Half of x."""\n{body}')
    assert not untold(f'@main.command()\ndef f(x):\n    """Halve x."""\n{body}')
