"""The package as a stranger installs it: built as a wheel, in an environment where no repository is, working in another folder.

The environment has the packages of this one, and not the lab: those that no extra of the wheel brings can be hidden from it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers.base import extras, repository
from tests import absent

PACKAGE = "compression-lab"
PARTS = ("helpers", "data", "checkpoints", "results", "notebooks")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt")
COMMANDS = """
import contextlib, io, json, os, sys
from click.testing import CliRunner
from helpers.__main__ import main
answers = {}
for name, words in json.loads(sys.argv[1]).items():
    done = CliRunner().invoke(main, words)
    told = done.exception is None or isinstance(done.exception, SystemExit)
    answers[name] = [done.exit_code, done.output if told else f"{done.output}{done.exception!r}"]
print("ANSWERS", json.dumps(answers))
"""
FILES_OF_A_USER = """
import helpers
from helpers import checkpoints, data, models, repository, results
import numpy as np, shutil
shutil.copy(checkpoints.path("cnn_fashion_28"), "model.keras")
fashion = data.load("fashion8k")
np.savez("test.npz", x=models.network_input(fashion.x_test[:200], 28), y=fashion.y_test[:200])
print(helpers.__file__, repository.REPOSITORY, repository.output_root(), results.git_revision(), sep="\\n")
"""
GATED = ("int8.tflite", "--baseline", "float32.tflite", "--data", "test.npz", "--limit", "max_drop=0.2")
CURES = {
    "files": "sensitivity search",
    "models": "convert train rescue prune-channels",
    "lab": "tour sweep",
}


def environment(**more):
    """Of a process that knows nothing of this test, nor of the repository."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COMPRESSION_LAB", "PYTEST"))
    }
    return {**kept, "COMPRESSION_LAB_MOST_ROUNDS": "6", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more}


def run(*words, cwd, **more):
    return subprocess.run([*map(str, words)], cwd=cwd, env=environment(**more), capture_output=True, text=True)


def empty(folder):
    """An environment with the packages of this one and not the lab, whose editable install a path alone does not follow: its Python
    and its own folder of packages."""
    venv.create(folder, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin" / "python", own


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(repository.REPOSITORY / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in FILES:
        shutil.copy(repository.REPOSITORY / name, source)
    words = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", made, source)
    done = run(sys.executable, *words, cwd=source)
    assert done.returncode == 0, done.stderr
    [path] = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """The Python of an environment with the wheel, its command, and an empty working folder but for a helpers.py of the user's."""
    root = tmp_path_factory.mktemp("stranger")
    python, own = empty(root / "environment")
    done = run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        own,
        wheel,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    work = root / "work"
    work.mkdir()
    (work / "helpers.py").write_text("raise RuntimeError('of the user')\n")
    return python, own / "bin" / "compression-lab", work


def asked(stranger, commands, **more):
    """What commands answer, all in one process: name -> (exit code, output)."""
    python, _, work = stranger
    done = run(python, "-P", "-c", COMMANDS, json.dumps(commands), cwd=work, **more)
    assert "ANSWERS" in done.stdout, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("ANSWERS")[2])


@pytest.fixture(scope="module")
def files(stranger):
    """A small model, test samples, and what the package says of itself; all made by the installed package in its working folder."""
    python, _, work = stranger
    done = run(python, "-P", "-c", FILES_OF_A_USER, cwd=work)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.fixture(scope="module")
def converted(stranger, files):
    at = ["model.keras", "--calibration", "test.npz"]
    commands = {
        recipe: ["convert", *at, "--recipe", recipe, "--output", f"{recipe}.tflite"] for recipe in ("float32", "int8")
    }
    model = ["float32.tflite"]
    commands |= {
        "train": ["train", *model, "--data", "test.npz", "--steps", "3", "--output", "trained.tflite"],
        "rescue": ["rescue", *model, "--calibration", "test.npz", "--without", "trained"],
        "prune-channels": ["prune-channels", "model.keras", "--ratio", "0.5"],
        "doctor": ["doctor"],
    }
    return asked(stranger, commands, PATH=os.environ["PATH"])


def test_it_knows_itself_and_no_repository(stranger, files):
    _, _, work = stranger
    package, shipped, output, revision, *_ = files
    assert Path(package).parent == Path(shipped).parent and not (Path(package).parents[1] / "pyproject.toml").exists()
    assert output == str(work / "runs") and revision == "None"  # it was built outside git


@pytest.mark.parametrize(
    ("name", "codes", "told"),
    [
        ("float32", {0}, "float32.tflite: "),
        ("int8", {0}, " dB against float32"),
        ("train", {0}, "trained.tflite: "),
        ("rescue", {0, 1}, "rescued.tflite: "),
        ("prune-channels", {0}, "Model and table: narrow.keras"),
        ("doctor", {0, 1}, "smoke test"),
    ],
)
def test_a_command_works(name, codes, told, converted):
    code, output = converted[name]
    assert code in codes and told in output and "Traceback" not in output, output


def test_the_command_gates_beside_the_users_own_helpers(stranger, converted):
    _, command, work = stranger
    done = run(command, "gate", *GATED, "--report", "gate.xml", cwd=work)
    assert done.returncode == 0 and "accepted: all" in done.stdout, done.stdout + done.stderr
    assert "latency_ratio" in done.stdout and (work / "gate.xml").is_file()


# --- with the packages of the extras hidden


def needed(name, extra=""):
    """The distributions that one needs, with those that these need, by their normalized names."""
    found, waiting = set(), [(name, extra)]
    while waiting:
        name, extra = waiting.pop()
        for text in metadata.requires(name) or ():
            each = Requirement(text)
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(each.name, inner) for inner in ("", *each.extras) if (each.name, inner) not in found]
                found |= {(each.name, inner) for inner in ("", *each.extras)}
    return {name.lower().replace("_", "-").replace(".", "-") for name, _ in found}


def asked_for(extra):
    """As `needed`, from pyproject.toml: what is installed here may be of an older one."""
    import tomllib

    project = tomllib.loads((repository.REPOSITORY / "pyproject.toml").read_text())["project"]
    texts, found = list(project["dependencies"]), set()
    waiting = [extra] if extra else []
    while waiting:
        texts += project["optional-dependencies"][waiting.pop()]
    while texts:
        each = Requirement(texts.pop())
        if each.name == PACKAGE:
            texts += [text for inner in each.extras for text in project["optional-dependencies"][inner]]
            continue
        found |= {each.name.lower()} | needed(each.name)
    return found


def modules_without(distributions):
    """The modules that are installed here and come with none of some distributions."""
    return sorted(
        name
        for name, owners in metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-").replace(".", "-") for owner in owners}
        & {*distributions, PACKAGE, "pip"}
    )


@pytest.fixture(scope="module")
def hiding(tmp_path_factory):
    """Extra -> a folder which, on Python's path, hides all modules that the package with this extra does not need."""

    def folder(extra):
        made = tmp_path_factory.mktemp("hidden")
        hidden = modules_without(asked_for(extra))
        (made / "sitecustomize.py").write_text(absent.program(hidden))
        return str(made)

    return folder


def test_the_core_alone_gates_and_says_what_else_it_needs(stranger, converted, hiding):
    words = {
        "gate": ["gate", *GATED, "--no-speed"],
        "measure": ["measure", "float32.tflite", "int8.tflite", "--rounds", "6"],
        "targets": ["target", "list"],
        "doctor": ["doctor"],
        "sensitivity": ["sensitivity", "float32.tflite", "--calibration", "test.npz"],
        "search": ["search", "float32.tflite", "--calibration", "test.npz", "--budget", "80%"],
        "convert": ["convert", "model.keras"],
        "train": ["train", "float32.tflite", "--data", "test.npz"],
        "rescue": ["rescue", "float32.tflite", "--calibration", "test.npz"],
        "prune-channels": ["prune-channels", "model.keras", "--ratio", "0.5"],
        "tour": ["tour"],
        "sweep": ["sweep", "01", "--grid", "seed=0,1"],
    }
    answers = asked(stranger, words, PYTHONPATH=hiding(""))
    assert answers["gate"][0] == 0 and "accepted: all 4 checks passed" in answers["gate"][1], answers["gate"][1]
    assert answers["measure"][0] == answers["targets"][0] == 0, answers["measure"][1]
    assert answers["doctor"][0] in (0, 1) and "without TensorFlow" in answers["doctor"][1], answers["doctor"][1]
    for extra, names in CURES.items():
        for name in names.split():
            code, output = answers[name]
            assert code == 2 and output.count("\n") == 1, output
            assert (
                output.startswith(f"Error: compression-lab {name} needs ") and f'"compression-lab[{extra}]"' in output
            )


def test_layers_of_a_tflite_need_no_tensorflow(stranger, converted, hiding):
    words = {
        "sensitivity": ["sensitivity", "float32.tflite", "--calibration", "test.npz", "--output", "light"],
        "search": ["search", "float32.tflite", "--calibration", "test.npz", "--budget", "80%", "--tries", "2"],
        "keras": ["sensitivity", "model.keras", "--calibration", "test.npz"],
    }
    answers = asked(stranger, words, PYTHONPATH=hiding("files"))
    code, output = answers["sensitivity"]
    assert code == 0 and "Table and figure: light/sensitivity.csv, light/sensitivity.svg" in output, output
    assert answers["search"][0] in (0, 1) and "search/model.tflite" in answers["search"][1], answers["search"][1]
    code, output = answers["keras"]
    assert code == 2 and "model='model.keras' needs TensorFlow, which is not installed: pip install" in output, output
    assert (stranger[2] / "light" / "sensitivity.svg").is_file()


def test_what_works_on_the_repository_says_so(stranger):
    commands = {name: [name] for name in ("record", "exercises", "site")} | {
        "checkpoint": ["checkpoint", "cnn_fashion_28"]
    }
    for name, (code, output) in asked(stranger, commands).items():
        assert code == 2 and output.count("\n") == 1, output
        assert output.startswith(f"Error: compression-lab {name} works on the repository") and "clone it" in output


def test_each_module_of_an_extra_comes_with_it_and_not_without():
    owners = metadata.packages_distributions()
    with_former = asked_for("")
    for extra, modules in extras.MODULES.items():
        brought = asked_for(extra)
        for module in modules:
            if module in owners:  # the site's own may not be installed
                names = {owner.lower().replace("_", "-") for owner in owners[module]}
                assert names & brought and not names & with_former, module


# --- one click


def test_a_notebook_alone_installs_what_it_needs_and_runs(wheel, tmp_path):
    notebook = json.loads((repository.NOTEBOOKS / "template.ipynb").read_text(encoding="utf-8"))
    python, own = empty(tmp_path / "environment")
    work = tmp_path / "content"
    work.mkdir()
    (work / "template.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells[0]["metadata"]["tags"] == ["one-click"]
    code = "\n".join("".join(cell["source"]) for cell in cells[:4])
    assert 'lab.begin("template", globals())' in code
    after = f"{code}\nimport helpers\nprint(helpers.__file__)\n"
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_TARGET": str(own)}
    without = run(python, "-c", after, cwd=work, **offline)
    assert without.returncode == 1 and "set COMPRESSION_LAB_SOURCE, as in" in without.stderr
    done = run(python, "-c", after, cwd=work, COMPRESSION_LAB_SOURCE=f"{wheel}[lab]", **offline)
    assert done.returncode == 0, done.stderr
    digits, package, *_ = done.stdout.split("\n")
    assert digits.startswith("mnist5k: 4,000 training and 1,000 test images") and package.startswith(str(own))


def test_it_brings_what_lessons_read_and_notebooks_without_outputs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        lessons = [name for name in names if name.endswith(".ipynb")]
        outputs = [cell for name in lessons for cell in json.loads(archive.read(name))["cells"] if cell.get("outputs")]
        told = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    shipped = {name.removeprefix("helpers/shipped/") for name in names}
    for pattern in (
        "data/*.npz",
        "checkpoints/*",
        "results/quick/*/*.json",
        "notebooks/*.ipynb",
        "notebooks/profiles/*",
    ):
        for path in repository.REPOSITORY.glob(pattern):
            assert path.relative_to(repository.REPOSITORY).as_posix() in shipped, path
    assert "helpers/targets/counter.c" in names and not outputs and not any(name.startswith("tests") for name in names)
    assert (
        "Requires-Dist: tensorflow" in told
        and 'extra == "models"' in told
        and "Description-Content-Type: text/markdown" in told
    )
    assert sum(path.stat().st_size for path in [wheel]) < 15_000_000
