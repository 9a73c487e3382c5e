"""The workflows and the action, and the shell of their steps, for the tests that read and run them."""

import yaml

from helpers.base import repository

GITHUB = repository.REPOSITORY / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*.yml"))}
ACTION = repository.REPOSITORY / "action.yml"


def steps(path):
    """The steps of a workflow or of the action, in order."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step for job in jobs for step in job["steps"]]


def scripts(path):
    """The shell of each step that has some."""
    return [step["run"] for step in steps(path) if "run" in step]


def script(path, start):
    """The shell of the step whose name begins so."""
    [found] = [step["run"] for step in steps(path) if step.get("name", "").startswith(start)]
    return found
