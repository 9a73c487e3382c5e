"""What strangers and hosted machines read: workflows, the action, hooks, forms, the citation. Each check is shown to catch a fault.

None of this runs on a hosted machine here: schemas and shellcheck read it, and the shell of the steps that are ours is run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from check_jsonschema.cli import main as check_jsonschema
from click.testing import CliRunner
from packaging.specifiers import SpecifierSet

from helpers.base import repository
from tests import single_operator

ROOT = repository.REPOSITORY
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*.yml"))}
ACTION = ROOT / "action.yml"
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


def steps(path):
    """The steps of a workflow or of the action: (job, step)."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = content.get("jobs") or {"action": content["runs"]}
    return [(job, step) for job, settings in jobs.items() for step in settings["steps"]]


def scripts(path):
    """The shell of each step that has some."""
    return [step["run"] for _, step in steps(path) if "run" in step]


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


def test_an_action_has_one_version_everywhere():
    taken = {}
    for path in (*WORKFLOWS.values(), ACTION):
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := PINNED.match(line.strip().removeprefix("- ")):
                taken.setdefault(found[1], set()).add(line.partition("@")[2])
    assert len(taken) >= 5 and all(len(versions) == 1 for versions in taken.values())


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


def test_pythons_are_those_of_the_package():
    pythons = supported(PROJECT["requires-python"])
    assert pythons == ["3.11", "3.12", "3.13"] == supported(">=3.11,<3.14") and "3.14" in supported(">=3.11")
    assert matrices(WORKFLOWS["test"]) == {"test": pythons} and matrices(WORKFLOWS["nightly"]) == {"canary": pythons}
    named = [
        step["with"]["python-version"]
        for path in WORKFLOWS.values()
        for _, step in steps(path)
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


def test_hooks_call_what_there_is():
    [gate] = entries(ROOT / ".pre-commit-hooks.yaml")
    command, verb = gate["entry"].split()
    assert command in PROJECT["scripts"] and gate["language"] == "python"
    assert (
        subprocess.run([sys.executable, "-m", "helpers", verb, "--help"], capture_output=True, cwd=ROOT).returncode == 0
    )
    for name in ("models/int8.tflite", "test.npz", "policy.yaml", "ci/policy.yml"):
        assert re.search(gate["files"], name)
    assert not re.search(gate["files"], "notes.md") and not re.search(gate["files"], "my_policy.yaml")
    hooks = {hook["id"]: hook for hook in entries(ROOT / ".pre-commit-config.yaml")}
    assert hooks.keys() == {"ruff", "ruff-format", "notebooks", "large-files"}
    test = next(word for word in hooks["notebooks"]["entry"].split() if word.endswith(".py"))
    assert "never_run" in (ROOT / test).read_text(encoding="utf-8")
    most = int(re.search(r"--maxkb=(\d+)", hooks["large-files"]["entry"])[1]) * 1024
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    assert all((ROOT / name).stat().st_size <= most for name in tracked if name and (ROOT / name).is_file())


def test_a_version_and_a_licence_are_said_alike():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert re.search(rf"^## .*{re.escape(PROJECT['version'])}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_binder_and_the_container_install_as_make_does():
    script = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
    for words in ("--require-hashes -r requirements.txt", "--no-deps --no-build-isolation -e ."):
        assert words in script and words in MAKEFILE
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert re.search(rf"^{container['postCreateCommand'].removeprefix('make ')}:", MAKEFILE, re.MULTILINE)


def bash(script, folder, **variables):
    """Run the shell of a step as a hosted machine does."""
    words = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def judged(tmp_path):
    """A folder of a stranger's models, and the action's step that judges one: (candidate, further inputs) -> process, outputs."""
    x = np.random.default_rng(0).random((400, 5), np.float32)
    for name, kind in (("float32", "ABS"), ("good", "ABS"), ("bad", "NEG")):
        (tmp_path / f"{name}.tflite").write_bytes(single_operator.build(kind, None, [x[:1]]))
    np.savez(tmp_path / "test data.npz", x=x, y=x.argmax(axis=1))
    program = tmp_path / "compression-lab" / "bin" / "compression-lab"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m helpers "$@"\n')
    program.chmod(0o755)
    script = next(step["run"] for _, step in steps(ACTION) if step.get("id") == "gate")

    def run(candidate, **given):
        asked = {
            "BASELINE": "float32.tflite",
            "DATA": "test data.npz",
            "POLICY": "",
            "LIMITS": "",
            "OPTIONS": "--no-speed\n",
        }
        files = {name: str(tmp_path / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        done = bash(
            script,
            tmp_path,
            CANDIDATE=candidate,
            REPORT="gate.xml",
            RUNNER_TEMP=str(tmp_path),
            **{**asked, **files, **given},
        )
        return done, (tmp_path / "github_output").read_text(), (tmp_path / "github_step_summary").read_text()

    return run


def test_the_action_accepts_and_rejects(judged, tmp_path):
    done, output, summary = judged("good.tflite", LIMITS="max_drop=0.02\nmax_size=100000\n")
    assert done.returncode == 0 and output == "decision=accepted\n", done.stderr
    assert "size" in done.stdout and done.stdout in summary
    assert 'tests="' in (tmp_path / "gate.xml").read_text()
    done, output, _ = judged("bad.tflite")
    assert done.returncode == 1 and output.splitlines()[-1] == "decision=rejected"
    done, output, _ = judged("nosuch.tflite; touch planted")
    assert done.returncode == 3 and output.splitlines()[-1] == "decision=nothing judged"
    assert not (tmp_path / "planted").exists()


def test_the_action_installs_the_versions_of_the_lock(tmp_path):
    script = next(line for script in scripts(ACTION) for line in script.splitlines() if line.startswith("sed "))
    done = bash(script, tmp_path, GITHUB_ACTION_PATH=str(ROOT), place=str(tmp_path))
    versions = (tmp_path / "versions.txt").read_text().splitlines()
    assert done.returncode == 0 and len(versions) > 100
    assert all(re.fullmatch(r"[a-z0-9][\w.-]*==[^\s;\\]+(?: ; [^\\]+)?", line) for line in versions)


@pytest.mark.parametrize("open_issue", ["", "7"])
def test_a_failing_night_is_told_in_one_issue(tmp_path, open_issue):
    """With a `gh` that writes down what it was asked for."""
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$@" >> asked\nif [ "$2" = list ]; then echo "{open_issue}"; fi\n')
    (tmp_path / "gh").chmod(0o755)
    script = next(
        step["run"] for _, step in steps(WORKFLOWS["nightly"]) if step.get("name", "").startswith("Open an issue")
    )
    done = bash(script, tmp_path, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    asked = [" ".join(line.split()[:2]) for line in (tmp_path / "asked").read_text().splitlines()]
    assert done.returncode == 0, done.stderr
    assert asked == (["issue list", "issue comment"] if open_issue else ["issue list", "label create", "issue create"])


def test_the_report_step_tells_a_planted_fault(tmp_path):
    place = tmp_path / "told" / "links-ubuntu-24.04"
    place.mkdir(parents=True)
    (place / "links.xml").write_text(
        '<testsuites><testsuite><testcase classname="links" name="there"><failure message="404 gone"/></testcase></testsuite></testsuites>'
    )
    (tmp_path / ".ci").symlink_to(ROOT / ".ci")
    script = next(step["run"] for _, step in steps(WORKFLOWS["nightly"]) if step.get("name") == "Write the report")
    done = bash(
        script,
        tmp_path,
        JOBS='{"links": {"result": "failure", "outputs": {}}}',
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
        GITHUB_SERVER_URL="https://host",
        GITHUB_REPOSITORY="some/where",
        GITHUB_RUN_ID="5",
    )
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert done.returncode == 0 and Path(tmp_path / "summary").read_text(encoding="utf-8") == text, done.stderr
    assert "Failed: links." in text and "- `links::there`: 404 gone\n  on links-ubuntu-24.04" in text
    assert text.endswith("The run: https://host/some/where/actions/runs/5\n")
