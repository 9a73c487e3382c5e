"""WORKSHOP.md and CONTRIBUTING.md say what the results, the commands and the files say; the template runs."""

import ast
import copy
import os
import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbval.plugin import coalesce_streams

from helpers.__main__ import main
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import results
from helpers.lab import readme, telling
from helpers.lab.recorded import difference

WORKSHOP = readme.WORKSHOP.read_text()
CONTRIBUTING = (repository.REPOSITORY / "CONTRIBUTING.md").read_text()
GUIDES = {"WORKSHOP.md": WORKSHOP, "CONTRIBUTING.md": CONTRIBUTING}
GUIDE = pytest.mark.parametrize("text", GUIDES.values(), ids=GUIDES)
MARKED = re.compile(r"<!-- value .*?<!-- end -->")


def test_the_numbers_are_those_of_the_results():
    assert readme.render(WORKSHOP) == WORKSHOP, "WORKSHOP.md is not current: run `make record`, or readme.update()"


def test_a_changed_digit_is_noticed():
    """In every number at once: each is written anew by itself."""
    places = [
        number.start() + re.search(r"-->[^<]*?(\d)", number.group()).start(1) for number in MARKED.finditer(WORKSHOP)
    ]
    changed = list(WORKSHOP)
    for place in places:
        changed[place] = str((int(WORKSHOP[place]) + 1) % 10)
    assert places and readme.render("".join(changed)) == WORKSHOP


def test_no_number_of_a_result_is_typed():
    typed = re.sub(r"```.*?```|<!-- begin quiz -->.*<!-- end quiz -->", "", MARKED.sub("", WORKSHOP), flags=re.S)
    assert not re.search(r"\d(\.\d+)?( ?%| kB| MB| ms\b| points|x faster)", typed)


def test_every_cited_number_was_recorded():
    cited = readme.VALUE.findall(WORKSHOP)
    assert len(cited) > 25
    assert telling.NOT_RECORDED not in [readme.value(*number) for number in cited]


def test_a_notebook_that_has_not_run_leaves_a_dash():
    assert readme.value("quick", "99", "top1.float32", ".1%") == telling.NOT_RECORDED
    assert readme.value("no_such_profile", "01", "top1.float32", ".1%") == telling.NOT_RECORDED


def test_a_number_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"top1\.misspelt"):
        readme.value("quick", "01", "top1.misspelt", ".1%")


def test_the_minutes_of_all_notebooks_are_the_sum():
    single = [
        results.read(path.stem)["provenance"]["seconds"] / 60 for path in repository.NOTEBOOKS.glob("[0-9]*.ipynb")
    ]
    assert float(readme.value("quick", "all", "minutes", ".6f")) == pytest.approx(sum(single))


def test_the_plans_leave_no_gap_and_no_overlap():
    rows = re.findall(r"^\| (\d+):(\d\d) \| (\d+) \|", WORKSHOP, re.MULTILINE)
    assert len(rows) > 15
    end = None
    for hours, minutes, lasts in rows:
        begin = 60 * int(hours) + int(minutes)
        assert begin in (0, end)
        end = begin + int(lasts)


@GUIDE
def test_links_lead_somewhere(text):
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (repository.REPOSITORY / target).exists(), target


@GUIDE
def test_files_that_are_named_exist(text):
    for target in re.findall(r"`((?:helpers|notebooks|tests|benchmarks)/[\w./]+)`", text):
        assert target.startswith("notebooks/NN") or (repository.REPOSITORY / target).exists(), target


@GUIDE
def test_commands_and_make_targets_exist(text):
    named = re.findall(r"compression-lab ([a-z-]+)((?: [^`\n#]+)?)", text)
    assert named
    for command, arguments in named:
        options = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", arguments)) <= {*options, "--help"}
    makefile = (repository.REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@GUIDE
def test_python_in_it_is_python(text):
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        ast.parse(code)


def test_contributing_fits_on_a_page():
    assert len(CONTRIBUTING.split()) < 750


def test_the_template_runs_and_gives_what_it_recorded(tmp_path):
    recorded = nbformat.read(repository.NOTEBOOKS / "template.ipynb", as_version=4)
    fresh = copy.deepcopy(recorded)
    client = NotebookClient(
        fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": repository.REPOSITORY}}
    )
    client.execute(env={**os.environ, repository.OUTPUT_VARIABLE: str(tmp_path)})
    for before, now in zip(recorded.cells, fresh.cells, strict=True):
        if before.cell_type == "code" and "nbval-ignore-output" not in before.metadata.get("tags", []):
            outputs = (coalesce_streams(cell.outputs) for cell in (before, now))
            why = difference(*outputs, before.metadata.get("tolerance"))
            assert why is None, why
    assert results.read("template", root=tmp_path)["numbers"]
