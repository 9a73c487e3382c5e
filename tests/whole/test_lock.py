"""The lock, and the conda environment made from it."""

import re

import yaml
from packaging.requirements import Requirement

from helpers.base import repository

TAUGHT = {
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "jupyterlab",
    "matplotlib",
    "papermill",
    "nbval",
    "mlxtend",
}
LOCK = (repository.REPOSITORY / "requirements.txt").read_text()
CONDA = (repository.REPOSITORY / "environment.yml").read_text()


def pins(lines):
    """name -> (version, marker) of requirement lines, each of which must pin one version."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        [specifier] = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        assert requirement.name not in found, f"{requirement.name} is pinned twice"
        found[requirement.name] = (specifier.version, str(requirement.marker))
    return found


def locked():
    """The lock's entries: requirement -> its hashes."""
    entries = re.split(r"^(?=\w)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    parts = (entry.replace("\\\n", " ").partition("--hash=") for entry in entries)
    return {requirement.strip(): f"{mark}{hashes}".split() for requirement, mark, hashes in parts}


def test_conda_gets_the_pins_of_the_lock():
    environment = yaml.safe_load(CONDA)
    assert environment["name"] == "compression-lab" and environment["channels"] == ["conda-forge"]
    assert environment["dependencies"][:2] == ["python=3.11", "pip"]
    assert pins(environment["dependencies"][2]["pip"]) == pins(locked())


def test_what_the_lab_teaches_is_pinned():
    assert not TAUGHT - pins(locked()).keys()


def test_every_pin_has_hashes():
    assert all(
        hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes)
        for hashes in locked().values()
    )


def test_no_index_is_named():
    for text in (LOCK, CONDA):
        assert not re.search(r"https?:|://|--(extra-)?index-url|--find-links", text)
