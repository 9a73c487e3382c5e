"""What a notebook declares, and which values it takes."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import parameters

DECLARES = """\
dataset = "mnist5k"  # one of mnist5k, mnist, or an .npz file
initial_sparsity = 0.5  # share of zeros at the start; in [0, 1)
final_sparsity = 0.8  # share of zeros at the end; in [initial_sparsity, 1)
epochs = 2  # in [1, )
seeds = [0, 1]  # one training each; in [0, 1000]
rates = [0.001]  # in (0, 1)
optimizer = "adam"  # one of adam, sgd; how steps are made
plot = True  # draw the figures
"""
DEFAULTS = {
    "dataset": "mnist5k",
    "initial_sparsity": 0.5,
    "final_sparsity": 0.8,
    "epochs": 2,
    "seeds": [0, 1],
    "rates": [0.001],
    "optimizer": "adam",
    "plot": True,
}


def write(path, *cells):
    tagged = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in cells]
    nbformat.write(new_notebook(cells=[new_code_cell("import os"), *tagged]), path)
    return path


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path)
    return write(tmp_path / "01_small.ipynb", DECLARES)


def refusal(notebook, **given):
    with pytest.raises(InputError) as caught:
        parameters.check(notebook, given)
    return str(caught.value)


@pytest.mark.parametrize("name", ["01", "01_small", "01_small.ipynb"])
def test_declared_with_defaults_and_comments(notebook, name):
    assert parameters.defaults(name) == DEFAULTS
    assert parameters.declared(name)["epochs"] == parameters.Parameter("epochs", 2, "in [1, )")


def test_values_laid_over_the_defaults(notebook, tmp_path):
    own = tmp_path / "own.npz"
    own.touch()
    given = {"final_sparsity": 0.95, "seeds": [7], "dataset": str(own), "initial_sparsity": 0}
    checked = parameters.check(notebook, given)
    assert checked == {**DEFAULTS, **given}
    assert type(checked["initial_sparsity"]) is float


def test_unknown_name(notebook):
    told = refusal(notebook, final_sparsty=0.9)
    assert "'final_sparsty'" in told and "final_sparsity" in told and "01_small" in told


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("plot", "false", "of type bool"),
        ("plot", 1, "of type bool"),
        ("epochs", "3", "of type int"),
        ("epochs", True, "of type int"),
        ("epochs", 2.5, "of type int"),
        ("final_sparsity", "0.9", "of type float"),
        ("dataset", 5, "of type str"),
        ("seeds", 3, "a non-empty list of int"),
        ("seeds", [], "a non-empty list of int"),
        ("seeds", [1, 2.5], "a non-empty list of int"),
        ("rates", ["1e-4"], "a non-empty list of float"),
    ],
)
def test_wrong_type(notebook, name, value, wanted):
    assert f"{name}={value!r} must be {wanted}" in refusal(notebook, **{name: value})


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"initial_sparsity": 1.0}, "initial_sparsity=1.0 must lie in [0, 1)."),
        ({"initial_sparsity": -0.1}, "initial_sparsity=-0.1 must lie in [0, 1)."),
        ({"initial_sparsity": float("nan")}, "initial_sparsity=nan must lie in [0, 1)."),
        (
            {"final_sparsity": 1.0},
            "final_sparsity=1.0 must lie in [initial_sparsity, 1), where initial_sparsity is 0.5.",
        ),
        (
            {"final_sparsity": 0.3},
            "final_sparsity=0.3 must lie in [initial_sparsity, 1), where initial_sparsity is 0.5.",
        ),
        (
            {"initial_sparsity": 0.9},
            "final_sparsity=0.8 must lie in [initial_sparsity, 1), where initial_sparsity is 0.9.",
        ),
        ({"epochs": 0}, "epochs=0 must lie in [1, )."),
        ({"seeds": [1, -1]}, "seeds=-1 must lie in [0, 1000]."),
        ({"rates": [0.5, 0]}, "rates=0 must lie in (0, 1)."),
    ],
)
def test_outside_the_range(notebook, given, wanted):
    assert refusal(notebook, **given).endswith(wanted)


def test_both_ends_of_a_range(notebook):
    parameters.check(notebook, {"final_sparsity": 0.5, "seeds": [0, 1000], "epochs": 10**6})


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("dataset", "cifar", "one of mnist5k, mnist, or an .npz file."),
        ("dataset", "", "one of mnist5k, mnist, or an .npz file."),
        ("optimizer", "own.npz", "one of adam, sgd."),
    ],
)
def test_outside_the_choices(notebook, name, value, wanted):
    assert refusal(notebook, **{name: value}).endswith(wanted)


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("final_sparsity", "0.95", 0.95),
        ("rates", "1e-4", [1e-4]),
        ("seeds", "1,2,3", [1, 2, 3]),
        ("seeds", "[1, 2]", [1, 2]),
        ("plot", "False", False),
        ("plot", "true", True),
        ("dataset", "5", "5"),
        ("epochs", "4", 4),
        ("epochs", "four", "four"),
        ("plot", "perhaps", "perhaps"),
    ],
)
def test_parse_what_is_typed(notebook, name, text, value):
    parsed = parameters.parse(notebook, name, text)
    assert parsed == value and type(parsed) is type(value)


def test_parse_an_unknown_name(notebook):
    with pytest.raises(InputError, match="'nosuch' is unknown"):
        parameters.parse(notebook, "nosuch", "1")


def test_used_takes_the_notebooks_own_values(notebook):
    assert parameters.used("01", {"epochs": 5, "x_train": object()}) == {**DEFAULTS, "epochs": 5}
    with pytest.raises(InputError, match="epochs=0"):
        parameters.used("01", {"epochs": 0})


def test_profiles(notebook, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "full.yaml").write_text("01_small: {epochs: 20}\n02_other: {n: 1}\n")
    (tmp_path / "profiles" / "else.yaml").write_text("02_other: {n: 1}\n")
    (tmp_path / "own.yml").write_text("01_small: {epochs: 3}\n")
    (tmp_path / "list.yaml").write_text("- epochs\n")
    assert parameters.profiles("01") == {"quick": DEFAULTS, "full": {**DEFAULTS, "epochs": 20}}
    assert parameters.load_profile("quick", "01_small") == {}
    assert parameters.load_profile("full", "01_small") == {"epochs": 20}
    assert parameters.load_profile(str(tmp_path / "own.yml"), "01_small") == {"epochs": 3}
    with pytest.raises(InputError, match="one of quick, else, full"):
        parameters.load_profile("nosuch", "01_small")
    with pytest.raises(InputError, match="must map"):
        parameters.load_profile(str(tmp_path / "list.yaml"), "01_small")


@pytest.mark.parametrize("cells", [(), ("a = 1", "b = 2")])
def test_not_one_parameters_cell(notebook, tmp_path, cells):
    write(tmp_path / "02_bare.ipynb", *cells)
    with pytest.raises(InputError, match=re.escape(f"02_bare.ipynb has {len(cells)} cells tagged")):
        parameters.declared("02")


def test_a_changed_notebook_is_read_again(notebook):
    assert parameters.defaults("01")["epochs"] == 2
    write(notebook, "epochs = 9")
    assert parameters.defaults("01") == {"epochs": 9}


@pytest.mark.parametrize(
    "changes, profile",
    [
        ({}, "quick"),
        ({"seeds": [0, 1, 2, 3]}, "full"),
        ({"final_sparsity": 0.81}, "custom"),
        ({"seeds": [1, 0]}, "custom"),
    ],
)
def test_only_a_profiles_own_parameters_pass_for_it(notebook, tmp_path, changes, profile):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "full.yaml").write_text("01_small:\n  seeds: [0, 1, 2, 3]\n")
    assert parameters.profile_of("01", {**DEFAULTS, **changes}) == profile


def test_fewer_parameters_than_declared_are_no_profile(notebook):
    assert parameters.profile_of("01", {"epochs": 2}) == "custom"


@pytest.mark.parametrize("text", ["one,two", "one, two", "['one', 'two']", '["one", "two"]', "[one,two]"])
def test_a_list_of_words_is_read_with_and_without_quotes(tmp_path, monkeypatch, text):
    """As the help tells it, as a refusal shows it, and as JSON has it."""
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path)
    write(tmp_path / "01_small.ipynb", 'ways = ["one"]  # one of one, two\nseeds = [0]  # in [0, )')
    assert parameters.check("01", {"ways": parameters.parse("01", "ways", text)})["ways"] == ["one", "two"]
    assert parameters.parse("01", "ways", "two") == ["two"]
    with pytest.raises(InputError, match="must be a non-empty list of int"):
        parameters.check("01", {"seeds": parameters.parse("01", "seeds", "one,two")})
    with pytest.raises(InputError, match="must be one of one, two"):
        parameters.check("01", {"ways": parameters.parse("01", "ways", "three")})
