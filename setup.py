"""Builds the package. An installed one has no repository around it, so it brings along, in helpers/shipped/, what lessons and
commands read of one: see helpers/base/repository.py. Everything else about the package stands in pyproject.toml."""

import json
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = (
    "data/*",
    "checkpoints/*",
    "results/**/*.json",
    "notebooks/*.ipynb",
    "notebooks/quiz.yaml",
    "notebooks/profiles/*.yaml",
    "requirements.txt",
)


def shipped():
    """The files, relative to the repository."""
    return sorted(
        path.relative_to(ROOT).as_posix() for pattern in SHIPPED for path in ROOT.glob(pattern) if path.is_file()
    )


def without_outputs(notebook):
    """A notebook's text without what it printed and drew, which is most of it: lessons read their own parameters and settings there."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def revision():
    """The commit that is built, with "-modified" if helpers or notebooks were changed since; "" outside git."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    try:
        if not (ROOT / ".git").exists() or not (found := git("rev-parse", "HEAD")):
            return ""
    except OSError:
        return ""
    return f"{found}{'-modified' if git('status', '--porcelain', '--', 'helpers', 'notebooks') else ''}"


class WithShipped(build_py):
    """Not into an editable install, which leaves everything in the repository."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "helpers" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for name in shipped():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".ipynb"):
                (target / name).write_text(without_outputs((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
            else:
                shutil.copyfile(ROOT / name, target / name)
        if found := revision():
            (target / "revision").write_text(f"{found}\n")

    def get_source_files(self):
        """What a source distribution must hold for a wheel to be built of it."""
        return [*super().get_source_files(), *shipped()]


setup(cmdclass={"build_py": WithShipped})
