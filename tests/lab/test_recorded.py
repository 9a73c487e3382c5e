"""The comparison of recorded outputs bites: on texts, in a run of pytest, and on the notebooks themselves."""

import copy
import os
import re
import runpy
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import IPyNbCell, coalesce_streams

from helpers.base import repository
from helpers.evidence import verdicts
from helpers.lab.recorded import NUMBER, allowed, compared, difference, number, text_difference

NOTEBOOKS = sorted(repository.NOTEBOOKS.glob("*.ipynb"))
PIXEL = "iVBORw0KGgo="


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def display(**data):
    """display(text_plain="a") shows "a" as text/plain."""
    return new_output("display_data", data={kind.replace("_", "/"): data[kind] for kind in data})


# --- what is a number


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("top-1 is 0.94 [0.92, 0.95]", ["0.94", "0.92", "0.95"]),
        ("-0.5 (+3) 1e-3 2.5E+08 .25 12% 3.", ["-0.5", "+3", "1e-3", "2.5E+08", ".25", "12", "3."]),
        ("1,234,567.5 kB, 12,34", ["1,234,567.5", "12", "34"]),
        ("It ends at 0.95. Then: [ 1. -2.]", ["0.95", "1.", "-2."]),
        ("(8, 784) a=3 |7|<td>41.5</td>", ["8", "784", "3", "7", "41.5"]),
        ("int8 C05 hidden_1 mnist5k 3.4x 1_000 0x7f 16x8 5µm", []),
        ("784-256-128-10 top-1 SHA-256 7e3060ff913d 7306e0913123 2024-01-02 3-bit", []),
        ("tensorflow 2.21.0 v1.2 0.8.1rc1 127.0.0.1", []),
        ("nan inf <NA> None", []),
    ],
)
def test_numbers_and_what_only_looks_like_them(text, numbers):
    assert NUMBER.findall(text) == numbers


# --- how numbers and words compare


@pytest.mark.parametrize(
    "recorded, new, tolerance",
    [
        ("0.94", "0.9433", None),
        ("5", "5.4", None),
        ("1,234 kB", "1234 kB", None),
        ("1.5e-05", "0.00001504", None),
        ("loss nan", "loss nan", 0.1),
        ("0.95", "0.94", 0.01),  # exact in decimals, not in binary
        ("-0.01", "0.01", 0.02),
        ("200", "212", {"relative": 0.05, "absolute": 2}),
        ("   a    b\n0  1.0  10.0", "    a  b\n0 1.00 9.99\n", 0.01),
        ("[ 0.1 -0.2]", "[-0.1  0.2]", 0.4),
        ("a | b\n----- | --", "a | b\n--- | --", None),
    ],
)
def test_these_texts_match(recorded, new, tolerance):
    assert text_difference(recorded, new, tolerance) is None


@pytest.mark.parametrize(
    "recorded, new, tolerance",
    [
        ("0.94", "0.946", None),
        ("0.9433", "0.94", None),
        ("0.95", "0.9399", 0.01),
        ("200", "213", {"relative": 0.05, "absolute": 2}),
        ("loss nan", "loss 0.3", 10),
        ("0.3", "nan", 10),
        ("0.3 0.4", "0.3", 10),
        ("0.3", "0.3 0.4", 10),
        ("5 6", "56", 100),
        ("int8", "int16", 100),
        ("784-256-128-10", "784-256-127-10", 100),
        ("SHA-256 7e3060ff913d", "SHA-256 7e3060ff913e", 100),
        ("2.21.0", "2.20.0", 100),
        ("C05 confirmed", "C05 refuted", 100),
        ("12%", "12", None),
    ],
)
def test_these_texts_differ(recorded, new, tolerance):
    assert text_difference(recorded, new, tolerance)


@pytest.mark.parametrize(
    "tolerance", ["0.1", -1, float("nan"), float("inf"), True, [], {}, {"abs": 1}, {"relative": None}]
)
def test_a_malformed_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"tolerance=.* must be a number of 0 or more, or a mapping"):
        text_difference("0.5", "0.5", tolerance)


def values():
    return st.integers(0, 6).flatmap(lambda places: st.decimals(-(10**6), 10**6, places=places))


def tolerances():
    absolute = st.decimals(0, 100, places=4).map(float)
    relative = st.decimals(0, 1, places=4).map(float)
    return st.none() | absolute | st.fixed_dictionaries({"absolute": absolute, "relative": relative})


def lines():
    """Texts as notebooks print them: a list of words and of Decimals."""
    words = st.sampled_from(
        [
            "top-1",
            "int8",
            "C05",
            "hidden_1",
            "784-256-128-10",
            "2.21.0",
            "7e3060ff913d",
            "confirmed",
            "kB",
            "%",
            "[",
            "]",
            "nan",
        ]
    )
    return st.lists(words | values(), min_size=1).filter(lambda parts: not all(type(p) is str for p in parts))


def written(parts):
    return " ".join(part if isinstance(part, str) else f"{part:,f}" for part in parts)


@settings(deadline=None)
@given(parts=lines(), tolerance=tolerances(), share=st.decimals(-1, 1, places=3), data=st.data())
def test_any_number_may_move_within_its_tolerance_and_no_further(parts, tolerance, share, data):
    moved = data.draw(st.sampled_from([i for i, part in enumerate(parts) if isinstance(part, Decimal)]))
    limit = allowed(parts[moved], tolerance)
    within, beyond = list(parts), list(parts)
    within[moved] += share * limit
    beyond[moved] += (limit + Decimal("1e-12")).copy_sign(share)
    assert text_difference(written(parts), written(within), tolerance) is None
    found = text_difference(written(parts), written(beyond), tolerance)
    assert f"was {parts[moved]:,f} and is now {beyond[moved]:,f}" in found


@settings(deadline=None)
@given(parts=lines(), data=st.data())
def test_padding_does_not_count(parts, data):
    padded = "".join(token + data.draw(st.text(" \t\n", min_size=1)) for token in written(parts).split())
    assert text_difference(written(parts), padded) is None


@settings(deadline=None)
@given(text=st.text(), place=st.integers(0), tolerance=tolerances())
def test_any_text_equals_itself_and_no_other(text, place, tolerance):
    place %= len(text) + 1
    assert text_difference(text, text, tolerance) is None
    assert text_difference(text, f"{text[:place]}x{text[place:]}", tolerance)
    assert text_difference(f"{text[:place]}x{text[place:]}", text, tolerance)


# --- how outputs compare

TABLE = display(text_plain="   top1\n0  0.94", text_html="<td>0.94</td>")
PICTURE = display(text_plain="<Figure size 640x480 with 1 Axes>", image_png=PIXEL)
NOTE = display(text_plain="<IPython.core.display.Markdown object>", text_markdown="top-1 is 0.94")


@pytest.mark.parametrize(
    "recorded, new",
    [
        ([TABLE], [display(text_plain="top1\n0 0.941", text_html="<td>0.941</td>")]),
        ([PICTURE], [display(text_plain="<Figure size 800x480 with 2 Axes>", image_png="another")]),
        ([NOTE], [display(text_plain="<IPython.core.display.Markdown object>", text_markdown="top-1 is 0.944")]),
        ([stream("a"), stream("b", "stderr")], [stream("b", "stderr"), stream("a")]),
        (
            [new_output("error", ename="E", evalue="m", traceback=["1"])],
            [new_output("error", ename="E", evalue="m", traceback=["2"])],
        ),
        ([display(application_json={"top1": 0.94})], [display(application_json={"top1": 0.941})]),
        ([], []),
    ],
)
def test_these_outputs_match(recorded, new):
    assert difference(recorded, new) is None


@pytest.mark.parametrize(
    "recorded, new",
    [
        ([TABLE], [display(text_plain="   top1\n0  0.95", text_html="<td>0.94</td>")]),
        ([TABLE], [display(text_plain="   top1\n0  0.94")]),
        ([PICTURE], []),
        ([], [PICTURE]),
        ([PICTURE, PICTURE], [PICTURE]),
        ([PICTURE], [display(text_plain="<Figure size 640x480 with 1 Axes>")]),
        ([NOTE], [display(text_plain="<IPython.core.display.Markdown object>", text_markdown="top-1 is 0.95")]),
        ([display(text_plain="<object at 0x7f>")], [display(text_plain="<object at 0x7e>")]),
        ([stream("a")], [stream("a", "stderr")]),
        ([], [stream("a warning", "stderr")]),
        ([new_output("error", ename="E", evalue="m")], [new_output("error", ename="E", evalue="n")]),
        ([display(application_json={"top1": 0.94})], [display(application_json={"top1": 0.95})]),
    ],
)
def test_these_outputs_differ(recorded, new):
    assert difference(recorded, new)


def test_a_difference_is_told_to_people():
    recorded, new = stream("seed 7\ntop-1 0.94\n"), stream("seed 7\ntop-1 0.97\n")
    told = difference([recorded], [new], {"absolute": 0.02})
    assert told == (
        "stdout: number 2 was 0.94 and is now 0.97: off by 0.03, allowed 0.02 "
        '(tolerance {"absolute": 0.02}).\n'
        "--- recorded\nseed 7\ntop-1 0.94\n\n--- now\nseed 7\ntop-1 0.97\n"
    )
    assert difference([PICTURE], []).startswith("image/png: 1 recorded, now 0.")


def test_loading_the_conftest_again_changes_nothing(monkeypatch):
    folder = os.environ[repository.OUTPUT_VARIABLE]
    monkeypatch.setattr(IPyNbCell, "compare_outputs", IPyNbCell.compare_outputs)
    again = runpy.run_path(str(repository.REPOSITORY / "tests" / "conftest.py"))
    assert IPyNbCell.compare_outputs is again["compare_outputs"]
    assert os.environ[repository.OUTPUT_VARIABLE] == folder


# --- a run of pytest, from recording to report

CELLS = {
    "imports": ("import os, time\nfrom pathlib import Path\nimport matplotlib.pyplot as plt\nimport pandas as pd"),
    "number": "print(f'top-1 is {0.9412:.4f} of {1000:,} digits')",
    "table": "pd.DataFrame({'top1': [0.94, 0.91]})",
    "verdict": "pd.DataFrame({'verdict': ['confirmed']}, index=['C05'])",
    "picture": "plt.plot([1, 2])\nplt.show()",
    "within": "print('top-1 is 0.940')",
    "beyond": "print('top-1 is 0.940')",
    "ignored": "ran = time.perf_counter()\nprint(ran)",
    "ignored_ran": "print(ran > 0)",
    "extra": "print('one more')",
    "folder": f"_ = Path('folder.txt').write_text(os.environ['{repository.OUTPUT_VARIABLE}'])",
}
FAILING = {"number", "table", "verdict", "picture", "beyond", "extra"}


def edit(output, before, after):
    """Replace a text wherever a recorded output holds it."""
    place = output if "text" in output else output.data
    for key, content in place.items():
        place[key] = content.replace(before, after)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What `pytest --nbval` says of a notebook as recorded and of a damaged one.

    cases: (file, cell) -> None if it passed, else its failure. output: the folder that the kernels wrote to.
    """
    folder = tmp_path_factory.mktemp("recorded")
    notebook = new_notebook(cells=[new_code_cell(source, id=name) for name, source in CELLS.items()])
    cells = {cell.id: cell for cell in notebook.cells}
    cells["ignored"].metadata.tags = ["nbval-ignore-output"]
    for name in ("within", "beyond"):
        cells[name].metadata.tolerance = 0.02
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    nbformat.write(notebook, folder / "recorded.ipynb")

    edit(cells["number"].outputs[0], "0.9412", "0.9812")
    edit(cells["verdict"].outputs[0], "confirmed", "refuted")
    edit(cells["within"].outputs[0], "0.940", "0.950")
    edit(cells["beyond"].outputs[0], "0.940", "0.970")
    for name in ("table", "picture"):
        cells[name].outputs.clear()
    cells["extra"].outputs.append(stream("and another", "stderr"))
    nbformat.write(notebook, folder / "damaged.ipynb")

    shutil.copy(repository.NOTEBOOKS / "conftest.py", folder)
    environment = {name: value for name, value in os.environ.items() if name != repository.OUTPUT_VARIABLE}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-c",
        repository.REPOSITORY / "pyproject.toml",
        f"--rootdir={folder}",
        "--color=no",
        "--junitxml=report.xml",
        "recorded.ipynb",
        "damaged.ipynb",
    ]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr

    cases = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        name = list(CELLS)[int(case.get("name").removeprefix("Cell "))]
        file = case.get("classname").removesuffix(".ipynb")
        cases[file, name] = "".join(case.itertext()) if len(case) else None
    return {"cases": cases, "output": Path((folder / "folder.txt").read_text())}


def test_pytest_passes_a_notebook_as_recorded(report):
    said = {cell: why for (file, cell), why in report["cases"].items() if file == "recorded"}
    assert said == dict.fromkeys(CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_pytest_fails_exactly_the_damaged_cells(report, cell):
    assert (report["cases"]["damaged", cell] is not None) == (cell in FAILING)


@pytest.mark.parametrize(
    "cell, told",
    [
        ("number", "Cell 1 (number), stdout: number 1 was 0.9812 and is now 0.9412: off by 0.0400"),
        ("table", "Cell 2 (table), text/plain: 0 recorded, now 1."),
        ("verdict", "text/plain: the text 'verdict C05 refuted' is now 'verdict C05 confirmed"),
        ("picture", "Cell 4 (picture), image/png: 0 recorded, now 1."),
        ("beyond", "Cell 6 (beyond), stdout: number 1 was 0.970 and is now 0.940: off by 0.030, allowed 0.02"),
        ("extra", "Cell 9 (extra), stderr: 1 recorded, now 0."),
    ],
)
def test_pytest_says_what_differs(report, cell, told):
    assert told in report["cases"]["damaged", cell]


def test_a_run_writes_into_a_folder_of_its_own_and_removes_it(report):
    assert report["output"].is_absolute()
    assert repository.REPOSITORY not in (report["output"], *report["output"].parents)
    assert not report["output"].exists()


# --- the notebooks themselves


def damaged(outputs, tolerance):
    """A cell's outputs with one fault each: an output gone, a number out of tolerance, a verdict renamed."""
    for place, output in enumerate(outputs):
        yield f"output {place} deleted", outputs[:place] + outputs[place + 1 :]
        for kind, (text,) in compared([output]).items():
            for match in NUMBER.finditer(text):
                value = number(match[1])
                moved = value + 2 * allowed(value, tolerance) + Decimal(1).scaleb(value.as_tuple().exponent)
                yield f"{match[1]} -> {moved}", edited(outputs, place, kind, match.span(1), f"{moved:f}")
            for match in re.finditer(verdicts.CONFIRMED, text):
                yield "verdict renamed", edited(outputs, place, kind, match.span(), verdicts.REFUTED)


def edited(outputs, place, kind, span, text):
    outputs = copy.deepcopy(outputs)
    holder, key = (outputs[place], "text") if "text" in outputs[place] else (outputs[place]["data"], kind)
    holder[key] = holder[key][: span[0]] + text + holder[key][span[1] :]
    return outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_compared_output_of_a_notebook_is_guarded(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        recorded, tolerance = coalesce_streams(cell.outputs), cell.metadata.get("tolerance")
        assert difference(recorded, copy.deepcopy(recorded), tolerance) is None
        for fault, outputs in damaged(recorded, tolerance):
            assert difference(recorded, outputs, tolerance), f"cell {cell.id}: {fault} goes unnoticed"
