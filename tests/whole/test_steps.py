"""The shell of the workflows' and the action's steps, run as a hosted machine runs it, with planted faults."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers.base import repository
from tests import single_operator, workflows
from tests.workflows import ACTION

ROOT = repository.REPOSITORY
NIGHTLY = workflows.WORKFLOWS["nightly"]
pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")


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
    script = workflows.script(ACTION, "Judge")

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


def test_a_failure_of_python_is_no_rejection(judged, tmp_path):
    """As where the job's PYTHONPATH holds another package of this one's name."""
    (tmp_path / "other" / "helpers").mkdir(parents=True)
    (tmp_path / "other" / "helpers" / "__init__.py").touch()
    (tmp_path / "other" / "helpers" / "__main__.py").write_text("import nothing_of_this_name")
    judged("good.tflite")  # whose report is there yet
    done, output, _ = judged("good.tflite", PYTHONPATH=str(tmp_path / "other"))
    assert done.returncode == 3 and output.splitlines()[-1] == "decision=nothing judged"


def test_the_action_installs_the_versions_of_the_lock(tmp_path):
    script = next(line for line in workflows.script(ACTION, "Install").splitlines() if line.startswith("sed "))
    done = bash(script, tmp_path, GITHUB_ACTION_PATH=str(ROOT), place=str(tmp_path))
    versions = (tmp_path / "versions.txt").read_text().splitlines()
    assert done.returncode == 0 and len(versions) > 100
    assert all(re.fullmatch(r"[a-z0-9][\w.-]*==[^\s;\\]+(?: ; [^\\]+)?", line) for line in versions)


@pytest.mark.parametrize("open_issue", ["", "7"])
def test_a_failing_night_is_told_in_one_issue(tmp_path, open_issue):
    """With a `gh` that writes down what it was asked for."""
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$@" >> asked\nif [ "$2" = list ]; then echo "{open_issue}"; fi\n')
    (tmp_path / "gh").chmod(0o755)
    script = workflows.script(NIGHTLY, "Open an issue")
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
    script = workflows.script(NIGHTLY, "Write the report")
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
    assert done.returncode == 0 and (tmp_path / "summary").read_text(encoding="utf-8") == text, done.stderr
    assert "Failed: links." in text and "- `links::there`: 404 gone\n  on links-ubuntu-24.04" in text
    assert text.endswith("The run: https://host/some/where/actions/runs/5\n")
