"""What strangers and hosted machines read: workflows, the action, hooks, forms, the citation. Each check is shown to catch a fault.

None of this runs on a hosted machine here: schemas and shellcheck read it, and test_steps.py runs the shell of the steps.
"""

import json
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from check_jsonschema.cli import main as check_jsonschema
from click.testing import CliRunner
from packaging.specifiers import SpecifierSet

from helpers.__main__ import main as commands
from helpers.base import repository
from tests.workflows import ACTION, GITHUB, WORKFLOWS, scripts, steps

ROOT = repository.REPOSITORY
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCHEMAS = [
    *((path, "vendor.github-workflows") for path in WORKFLOWS.values()),
    *((path, "custom.github-workflows-require-timeout") for path in WORKFLOWS.values()),
    *((path, "vendor.github-issue-forms") for path in FORMS),
    (GITHUB / "ISSUE_TEMPLATE" / "config.yml", "vendor.github-issue-config"),
    (ACTION, "vendor.github-actions"),
    (GITHUB / "dependabot.yml", "vendor.dependabot"),
    (ROOT / "CITATION.cff", "vendor.citation-file-format"),
]
# What each job may do beyond reading.
MAY_WRITE = {"nightly.report": {"issues"}, "pages.deploy": {"pages", "id-token"}}
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = re.compile(r"uses: ([\w./-]+)@([0-9a-f]{40})  # v\d+\.\d+\.\d+$")
SHELLCHECK = pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")


def schema_fault(path, schema):
    """What check-jsonschema says against a file, or ""."""
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, "--force-filetype", "yaml", str(path)])
    return "" if done.exit_code == 0 else done.output


def shell_faults(script):
    """What shellcheck says against a script of bash, or ""."""
    return subprocess.run(["shellcheck", "-s", "bash", "-"], input=script, capture_output=True, text=True).stdout


def pasted(path):
    """Scripts into which an expression is pasted: whatever it holds would be run."""
    return [script for script in scripts(path) if "${{" in script]


def loose(path):
    """Lines that take an action from elsewhere by a tag that may move, or without saying its version."""
    lines = [line.strip().removeprefix("- ") for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.startswith("uses:") and not PINNED.match(line)]


def versions(paths):
    """Action -> in which versions it is taken."""
    taken = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := PINNED.match(line.strip().removeprefix("- ")):
                taken.setdefault(found[1], set()).add(line.partition("@")[2])
    return taken


def powers(name, path):
    """Jobs that may do more than they are known to need, and what."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {} if content.get("permissions") == {"contents": "read"} else {name: content.get("permissions")}
    for job, settings in content["jobs"].items():
        given = settings.get("permissions", {})
        given = given if isinstance(given, dict) else {given: "write"}
        more = {what for what, how in given.items() if how == "write"} - MAY_WRITE.get(f"{name}.{job}", set())
        if more:
            found[f"{name}.{job}"] = more
    return found


def supported(requires):
    """The minor versions of Python 3 that a requirement admits, as "3.11"."""
    return [f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in SpecifierSet(requires)]


def matrices(path):
    """The Pythons of each job that runs on several."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    found = {job: settings.get("strategy", {}).get("matrix", {}) for job, settings in jobs.items()}
    return {job: matrix["python"] for job, matrix in found.items() if "python" in matrix}


def readme_commands(text):
    """The commands that README names, in code or in a block, without their comments."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return {line.split("#")[0].strip() for line in blocks.splitlines()} | set(re.findall(r"`([^`\n]+)`", text))


def strange(path, readme):
    """Commands of a workflow that README does not know."""
    return [line for script in scripts(path) for line in script.splitlines() if line not in readme_commands(readme)]


def entries(path):
    """The hooks of a manifest or of a configuration."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, list) else [hook for repo in content["repos"] for hook in repo["hooks"]]


def unknown(path):
    """Entries of hooks that name no command of the lab."""
    words = [hook["entry"].split() for hook in entries(path)]
    return [" ".join(each) for each in words if each[0] not in PROJECT["scripts"] or each[1] not in commands.commands]


def larger(paths, most):
    """Files of more than `most` bytes."""
    return [path for path in paths if path.is_file() and path.stat().st_size > most]


def differing(citation, changes):
    """What the citation or the changelog says otherwise than pyproject.toml."""
    cited = yaml.safe_load(citation.read_text(encoding="utf-8"))
    heading = rf"^## .*\b{re.escape(PROJECT['version'])}\b"
    same = {
        "version": str(cited["version"]) == PROJECT["version"],
        "licence": cited["license"] == PROJECT["license"],
        "changes": bool(re.search(heading, changes.read_text(encoding="utf-8"), re.MULTILINE)),
    }
    return [name for name, holds in same.items() if not holds]


def not_as_made(script):
    """Lines of a script that install other than the Makefile does."""
    made = {line.partition(" -m pip install -q ")[2] for line in MAKEFILE.splitlines()} - {""}
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if "pip install" in line]
    return [line for line in lines if line.partition(" --no-cache-dir ")[2] not in made]


def planted(tmp_path, path, old, new):
    """A copy of a file with a fault in it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    copy = tmp_path / path.name
    copy.write_text(text.replace(old, new), encoding="utf-8")
    return copy


@pytest.mark.parametrize(("path", "schema"), SCHEMAS, ids=lambda value: getattr(value, "name", value))
def test_a_file_has_the_form_that_is_asked_of_it(path, schema):
    assert not schema_fault(path, schema)


@pytest.mark.parametrize(
    ("path", "schema", "old", "new"),
    [
        (WORKFLOWS["test"], "vendor.github-workflows", "runs-on:", "runs_on:"),
        (WORKFLOWS["pages"], "custom.github-workflows-require-timeout", "    timeout-minutes: 10\n", ""),
        (FORMS[0], "vendor.github-issue-forms", "type: textarea", "type: essay"),
        (ACTION, "vendor.github-actions", "using: composite", "using: magic"),
        (GITHUB / "dependabot.yml", "vendor.dependabot", "monthly", "now and then"),
        (ROOT / "CITATION.cff", "vendor.citation-file-format", "authors:", "writers:"),
        (GITHUB / "ISSUE_TEMPLATE" / "config.yml", "vendor.github-issue-config", "true", "perhaps"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_wrong_form_is_noticed(tmp_path, path, schema, old, new):
    assert schema_fault(planted(tmp_path, path, old, new), schema)


@SHELLCHECK
@pytest.mark.parametrize("path", [*WORKFLOWS.values(), ACTION], ids=lambda path: path.name)
def test_the_shell_of_the_steps_is_sound(path):
    assert scripts(path)
    assert not "".join(map(shell_faults, scripts(path)))


@SHELLCHECK
def test_scripts_are_sound_and_a_fault_is_noticed(tmp_path):
    for path in (ROOT / ".ci" / "run", ROOT / ".binder" / "postBuild"):
        assert not shell_faults(path.read_text(encoding="utf-8"))
    faulty = planted(tmp_path, ACTION, 'cat "$RUNNER_TEMP/gate.txt"', "cat $RUNNER_TEMP/gate.txt")
    assert any("SC2086" in shell_faults(script) for script in scripts(faulty))


@pytest.mark.parametrize("path", [*WORKFLOWS.values(), ACTION], ids=lambda path: path.name)
def test_steps_take_nothing_that_may_change_under_them(path):
    assert not pasted(path) and not loose(path)


def test_what_may_change_under_a_step_is_noticed(tmp_path):
    assert pasted(planted(tmp_path, ACTION, '"$CANDIDATE"', '"${{ inputs.candidate }}"'))
    used = re.findall(r"uses: \S+", ACTION.read_text(encoding="utf-8"))[-1]
    assert loose(planted(tmp_path, ACTION, used, "uses: actions/setup-python@v6"))


def test_an_action_has_one_version_everywhere(tmp_path):
    everywhere = [*WORKFLOWS.values(), ACTION]
    taken = versions(everywhere)
    assert len(taken) >= 5 and all(len(found) == 1 for found in taken.values())
    other = planted(tmp_path, ACTION, next(iter(taken["actions/setup-python"])), "0" * 40 + "  # v6.9.9")
    assert len(versions([*everywhere, other])["actions/setup-python"]) == 2


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_may_do_what_they_need(name):
    assert not powers(name, WORKFLOWS[name])
    assert yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))["concurrency"]["group"]


def test_more_power_is_noticed(tmp_path):
    assert powers("pages", planted(tmp_path, WORKFLOWS["pages"], "contents: read", "contents: write")) == {
        "pages": {"contents": "write"}
    }
    wider = planted(tmp_path, WORKFLOWS["nightly"], "      issues: write", "      issues: write\n      packages: write")
    assert powers("nightly", wider) == {"nightly.report": {"packages"}}


def test_pythons_are_those_of_the_package(tmp_path):
    pythons = supported(PROJECT["requires-python"])
    assert pythons == ["3.11", "3.12", "3.13"] == supported(">=3.11,<3.14") and "3.14" in supported(">=3.11")
    assert matrices(WORKFLOWS["test"]) == {"test": pythons} and matrices(WORKFLOWS["nightly"]) == {"canary": pythons}
    fewer = planted(tmp_path, WORKFLOWS["test"], '"3.12", "3.13"]', '"3.12"]')
    assert matrices(fewer) == {"test": pythons[:2]}
    named = [
        step["with"]["python-version"]
        for path in WORKFLOWS.values()
        for step in steps(path)
        if "python-version" in step.get("with", {})
    ]
    named.append(yaml.safe_load(ACTION.read_text(encoding="utf-8"))["inputs"]["python-version"]["default"])
    named.append((ROOT / ".binder" / "runtime.txt").read_text().strip().removeprefix("python-"))
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    named.append(container["image"].partition(":")[2])
    assert len(named) > 5 and set(named) <= {*pythons, "${{ matrix.python }}"}


def test_the_workflows_run_readme_commands_and_nothing_else(tmp_path):
    first = re.search(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    promised = {line.split("#")[0].strip() for line in first.splitlines()}
    assert promised == {"make run", "make test"} <= set(scripts(WORKFLOWS["test"]))
    for name in ("test", "pages"):
        assert not strange(WORKFLOWS[name], README)
    assert strange(planted(tmp_path, WORKFLOWS["test"], "make test", "make it pass"), README) == ["make it pass"]
    assert strange(WORKFLOWS["test"], README.replace("`make doctor`", "")) == ["make doctor"]


def test_the_hook_for_others_calls_the_gate_when_its_files_change(tmp_path):
    manifest = ROOT / ".pre-commit-hooks.yaml"
    assert not unknown(manifest)
    assert unknown(planted(tmp_path, manifest, "compression-lab gate\n", "compression-lab gat\n")) == [
        "compression-lab gat"
    ]
    [gate] = entries(manifest)
    for name in ("models/int8.tflite", "test.npz", "policy.yaml", "ci/policy.yml"):
        assert re.search(gate["files"], name)
    assert not re.search(gate["files"], "notes.md") and not re.search(gate["files"], "my_policy.yaml")


def test_our_own_hooks_agree_with_the_repository(tmp_path):
    hooks = {hook["id"]: hook for hook in entries(ROOT / ".pre-commit-config.yaml")}
    assert hooks.keys() == {"ruff", "ruff-format", "notebooks", "large-files"}
    test = next(word for word in hooks["notebooks"]["entry"].split() if word.endswith(".py"))
    assert "never_run" in (ROOT / test).read_text(encoding="utf-8")
    most = int(re.search(r"--maxkb=(\d+)", hooks["large-files"]["entry"])[1]) * 1024
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    assert not larger([ROOT / name for name in tracked if name], most)
    (tmp_path / "big").write_bytes(bytes(most + 1))
    assert larger([tmp_path / "big"], most) == [tmp_path / "big"]


def test_a_version_and_a_licence_are_said_alike(tmp_path):
    citation, changes = ROOT / "CITATION.cff", ROOT / "CHANGELOG.md"
    assert not differing(citation, changes)
    version = PROJECT["version"]
    assert differing(planted(tmp_path, citation, f"version: {version}", "version: 9.9"), changes) == ["version"]
    assert differing(planted(tmp_path, citation, "license: MIT", "license: GPL-3.0"), changes) == ["licence"]
    assert differing(citation, planted(tmp_path, changes, version, "9.9")) == ["changes"]


def test_binder_and_the_container_install_as_make_does(tmp_path):
    script = ROOT / ".binder" / "postBuild"
    assert not not_as_made(script)
    loose_pins = planted(tmp_path, script, "--require-hashes ", "")
    assert [line.split("install")[1] for line in not_as_made(loose_pins)] == [" -q --no-cache-dir -r requirements.txt"]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert re.search(rf"^{container['postCreateCommand'].removeprefix('make ')}:", MAKEFILE, re.MULTILINE)
