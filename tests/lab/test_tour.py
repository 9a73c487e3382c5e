"""The tour on small notebooks: order, failures, refusals, resumption, recording. Kernels run only where needed."""

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import papermill
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.__main__ import main
from helpers.base import repository, runtime_env
from helpers.base.errors import InputError
from helpers.evidence import results
from helpers.lab import notebook, parameters, tour

NOTE = "open(r'{folder}/visited', 'a').write('{name} ')"
# What a notebook does through results.record, without the provenance.
RECORD = """
import json, os, pathlib
from helpers import runtime_env
path = pathlib.Path(os.environ["COMPRESSION_LAB_OUTPUT"]) / "results" / "quick" / runtime_env.machine_name() / "{name}.json"
path.parent.mkdir(parents=True, exist_ok=True)
number = dict(value=0.9561234, low=None, high=None, unit="share", tolerance=0)
numbers = dict(top1=number, delta=number, size=dict(number, value=941234, unit="bytes"), last=number)
path.write_text(json.dumps(dict(numbers=numbers, verdicts=dict(C01="confirmed", C02="depends"))))
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository of its own: call it with a name and cells to add a notebook, which notes its visits."""
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path / "runs"))
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)

    def add(name, *cells, declares="n = 3  # samples; in [1, 10]", **metadata):
        sources = [NOTE.format(folder=tmp_path.as_posix(), name=name), *cells]
        cells = [new_code_cell(declares, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
        path = repository.NOTEBOOKS / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    add.folder = tmp_path
    add.runs = tmp_path / "runs" / "quick"
    add.visited = lambda: (tmp_path / "visited").read_text().split() if (tmp_path / "visited").exists() else []
    return add


@pytest.fixture
def papermill_calls(monkeypatch):
    """papermill without kernels: the copy is the notebook itself. Returns the list of (name, parameters) run; an
    exception put into its `failures` under a name is raised once, after half a copy was written."""

    class Calls(list):
        failures: dict

    calls = Calls()
    calls.failures = {}

    def execute(source, output, changes, **_):
        name = output.name.strip(".").removesuffix(".ipynb")
        calls.append((name, changes))
        output.write_text("half a copy")
        if name in calls.failures:
            raise calls.failures.pop(name)
        executed = nbformat.read(source, as_version=4)
        executed.metadata["papermill"] = {"parameters": changes}
        nbformat.write(executed, output)

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


def test_order_failure_and_summary(lab, capsys):
    lab("02_last", RECORD.format(name="02_last"))
    lab("01_broken", "raise ValueError('no such luck\\nwith [0, 1) this time')")
    lab("00_first", RECORD.format(name="00_first"), lab={"key_numbers": ["size", "nosuch"]})
    assert tour.run() == 1
    assert lab.visited() == ["00_first", "01_broken", "02_last"]
    out = capsys.readouterr().out
    copy = os.path.relpath(lab.runs / "01_broken.failed.ipynb")
    assert f"01_broken failed:\n  ValueError: no such luck\n  with [0, 1) this time\n  Executed copy: {copy}" in out
    table = out[out.index("what came out") :]
    parts = re.split(r"(0\d_\w+)", table)[1:]
    rows = {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    assert list(rows) == ["00_first", "01_broken", "02_last"]
    assert "size 941,234 bytes; confirmed: C01; depends: C02" in rows["00_first"]
    assert "failed: ValueError" in rows["01_broken"]
    assert "top1 0.9561 share; delta 0.9561 share; size 941,234 bytes" in rows["02_last"] and "last 0.95" not in out
    assert max(map(len, table.splitlines())) <= 80
    assert "ValueError" in (lab.runs / "01_broken.failed.ipynb").read_text()


def test_a_kernel_that_dies_is_a_failure_and_the_next_notebook_runs(lab, capsys):
    lab("00_dies", "import os; os._exit(1)")
    lab("01_next", "print('n is', n)")
    assert tour.run(given={"n": "5"}) == 1
    assert "failed: DeadKernelError" in capsys.readouterr().out
    assert "n is 5" in (lab.folder / "runs" / "custom" / "01_next.ipynb").read_text()


def test_a_result_of_a_former_run_is_not_shown(lab, papermill_calls, capsys):
    lab("00_silent")
    path = lab.folder / "runs/results/quick" / runtime_env.machine_name() / "00_silent.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"numbers": {"top1": dict(value=1, low=None, high=None, unit="", tolerance=0)}}))
    os.utime(path, (0, 0))
    assert tour.run() == 0
    assert "top1" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, told",
    [
        (["-p", "nosuch", "1"], "parameter 'nosuch' is unknown to 00_first, 01_second: choose one of flag, n."),
        (["-p", "flag", "maybe"], "parameter flag='maybe' must be of type bool"),
        (["--only", "01", "-p", "flag", "true"], "parameter 'flag' is unknown to 01_second: choose one of n."),
        (["-p", "n", "11"], "parameter n=11 must lie in [1, 10]."),
        (["--only", "07"], "notebook='07' is not one of 00_first, 01_second."),
        (["--profile", "nosuch"], "profile='nosuch' is unknown: choose one of quick, full"),
        (["--only", "00", "--profile", "full"], "profile='full' mentions none of 00_first."),
    ],
)
def test_bad_requests_are_refused_before_anything_starts(lab, papermill_calls, words, told):
    lab("00_first", declares="n = 3  # in [1, 10]\nflag = False  # draw it")
    lab("01_second")
    (repository.NOTEBOOKS / "profiles" / "full.yaml").write_text("01_second: {n: 7}")
    result = CliRunner().invoke(main, ["tour", *words])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ") and told in result.output and result.output.count("\n") == 1
    assert not papermill_calls and not lab.runs.parent.exists()


def test_parameters_and_profiles_reach_the_notebooks_that_know_them(lab, papermill_calls, capsys):
    lab("00_first", declares="rates = [0.1]  # in (0, 1]")
    lab("01_second")
    (repository.NOTEBOOKS / "profiles" / "full.yaml").write_text("01_second: {n: 7}")
    assert tour.run(given={"rates": "0.5, 1"}) == 0
    assert papermill_calls == [("00_first", {"rates": [0.5, 1.0]}), ("01_second", {})]
    assert tour.run(profile="full") == 0
    assert papermill_calls[2:] == [("01_second", {"n": 7})]
    assert "Skipped, since profile full does not mention them: 00_first." in capsys.readouterr().out
    assert (lab.folder / "runs" / "full" / "01_second.ipynb").is_file()
    assert tour.run(["01_second", "01"], given={"n": "8"}) == 0
    assert papermill_calls[3:] == [("01_second", {"n": 8})]


DRIVER = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have it ignored
from helpers.base import repository, runtime_env
from helpers.lab import notebook, parameters, tour
repository.NOTEBOOKS = pathlib.Path(sys.argv[1])
sys.exit(tour.run())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("blow, code", [(signal.SIGINT, tour.INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_tour_stopped_in_its_second_notebook_resumes_there(lab, capsys, blow, code):
    lab("00_first")
    lab("01_second", f"import pathlib, time\nwhile not pathlib.Path(r'{lab.folder}/go').exists():\n    time.sleep(0.1)")
    running = subprocess.Popen([sys.executable, "-c", DRIVER, repository.NOTEBOOKS], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180  # of a machine that has much else to do
    while lab.visited() != ["00_first", "01_second"] and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(blow)
    out, _ = running.communicate(timeout=30)
    assert running.returncode == code
    assert ("the next run resumes after the last finished notebook" in out) == (blow == signal.SIGINT)
    (lab.folder / "go").touch()
    assert tour.run() == 0
    assert lab.visited() == ["00_first", "01_second", "01_second"]
    out = capsys.readouterr().out
    assert "Resuming the interrupted tour: 00_first finished before" in out and re.search(r"^ ?00_first ", out, re.M)
    assert json.loads((lab.runs / "tour.json").read_text())["complete"]
    assert sorted(path.name for path in lab.runs.iterdir()) == ["00_first.ipynb", "01_second.ipynb", "tour.json"]


MEETS = """
import os, pathlib, time
here = pathlib.Path(r"{folder}")
(here / "{mine}").write_text(str(os.getpid()))
deadline = time.monotonic() + 60
while not (here / "{others}").exists():
    assert time.monotonic() < deadline, "it runs alone"
    time.sleep(0.05)
"""
TIMES = """
import psutil
from helpers.base import company
with company.standing_still():
    time.sleep(0.2)  # a signal takes a moment
    print("the other one:", psutil.Process(int((here / "first").read_text())).status())
(here / "done").touch()
print("threads:", os.environ["TF_NUM_INTRAOP_THREADS"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_notebooks_run_side_by_side_each_alone_while_it_times_something(lab, capsys):
    first = [MEETS.format(folder=lab.folder, mine="first", others=others) for others in ("second", "done")]
    lab("00_first", *first, RECORD.format(name="00_first"))
    lab("01_second", MEETS.format(folder=lab.folder, mine="second", others="first"), TIMES)
    lab("02_dies", "import os; os._exit(1)")
    assert tour.run(jobs=2) == 1
    out = capsys.readouterr().out
    assert "02_dies failed:" in out and "size 941,234 bytes" in out and "00_first: " in out
    second = (lab.runs / "01_second.ipynb").read_text()
    assert "the other one: stopped" in second
    assert f"threads: {min(runtime_env.THREADS, max(1, runtime_env.CORES // 2))}" in second
    journal = json.loads((lab.runs / "tour.json").read_text())
    assert journal["complete"] and {each["jobs"] for each in journal["notebooks"].values()} == {2}


def test_what_took_long_on_record_begins_first(lab, monkeypatch):
    lab("00_short")
    lab("01_long")
    for name, other in itertools.permutations(("02_longest", "03_unknown")):  # a worker may take a while to begin
        lab(name, MEETS.format(folder=lab.folder, mine=name, others=other))
    seconds = {"00_short": 1, "01_long": 2, "02_longest": 3}
    monkeypatch.setattr(tour, "_seconds_on_record", lambda stop: seconds.get(stop.name, float("inf")))
    assert tour.run(jobs=2) == 0
    begun = lab.visited()
    assert set(begun[:2]) == {"02_longest", "03_unknown"} and len(begun) == 4


def test_what_ran_in_company_is_run_again_alone(lab, papermill_calls):
    lab("00_first")
    lab("01_second")
    journal = lab.runs / "tour.json"
    papermill_calls.failures = {"01_second": KeyboardInterrupt()}
    assert tour.run() == tour.INTERRUPTED
    text = json.loads(journal.read_text())
    assert [each["jobs"] for each in text["notebooks"].values()] == [1]
    text["notebooks"]["00_first"]["jobs"] = 2
    journal.write_text(json.dumps(text))
    papermill_calls.clear()
    assert tour.run() == 0
    assert [name for name, _ in papermill_calls] == ["00_first", "01_second"]


def test_what_is_run_again(lab, papermill_calls):
    def names(**arguments):
        papermill_calls.clear()
        tour.run(**arguments)
        return [name[:2] for name, _ in papermill_calls]

    def interrupt():
        papermill_calls.failures = {"02_c": KeyboardInterrupt()}
        assert names(fresh=True) == ["00", "01", "02"]

    for name in ("00_a", "01_b", "02_c"):
        lab(name)
    interrupt()
    assert names() == ["02"]
    assert names() == ["00", "01", "02"], "a tour that came to its end starts anew"
    interrupt()
    assert names(fresh=True) == ["00", "01", "02"]
    interrupt()
    assert names(given={"n": "4"}) == ["00", "01", "02"], "other parameters"
    interrupt()
    lab("01_b", "print('changed')")
    assert names() == ["01", "02"]
    papermill_calls.failures = {"00_a": RuntimeError("gone"), "02_c": KeyboardInterrupt()}
    assert names() == ["00", "01", "02"]
    assert names() == ["00", "02"], "a failed notebook"
    for damaged in ("{", "[]", "{}"):
        (lab.runs / "tour.json").write_text(damaged)
        assert names() == ["00", "01", "02"], "a damaged journal"


def test_a_full_disk_leaves_the_former_copy(lab, papermill_calls, capsys):
    lab("00_first")
    tour.run()
    former = (lab.runs / "00_first.ipynb").read_bytes()
    papermill_calls.failures = {"00_first": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))}
    capsys.readouterr()
    assert tour.run() == 1
    out = capsys.readouterr().out
    assert out.startswith("Error: ") and "No space left on device" in out and out.count("\n") == 1
    assert (lab.runs / "00_first.ipynb").read_bytes() == former
    assert sorted(path.name for path in lab.runs.iterdir()) == ["00_first.ipynb", "tour.json"]


def test_an_unwritable_folder_is_told_before_the_first_notebook(lab, papermill_calls, capsys):
    lab("00_first")
    lab.runs.parent.write_text("a file where the folder should be")
    assert tour.run() == 1
    out = capsys.readouterr().out
    assert out.startswith("Error: ") and repository.OUTPUT_VARIABLE in out and out.count("\n") == 1
    assert not papermill_calls and lab.runs.parent.read_text() == "a file where the folder should be"


def test_record_saves_in_place_what_does_not_differ_from_run_to_run(lab, monkeypatch):
    path = lab(
        "00_first",
        "print('n is', n)",
        "import os; os.environ['COMPRESSION_LAB_OUTPUT']",
        lab={"key_numbers": ["top1"]},
        kernelspec={"name": "mine", "display_name": "Mine"},
    )
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        del cell["id"]
        cell["metadata"]["papermill"] = cell["metadata"]["execution"] = {"start_time": "2001-01-01"}
    injected = {
        "cell_type": "code",
        "source": ["n = 4"],
        "metadata": {"tags": ["injected-parameters"]},
        "outputs": [],
        "execution_count": None,
    }
    content["cells"].insert(1, injected)
    path.write_text(json.dumps(content))
    before = os.environ[repository.OUTPUT_VARIABLE]
    assert tour.record() == 0 and os.environ[repository.OUTPUT_VARIABLE] == before
    recorded = path.read_text()
    node = nbformat.read(path, as_version=4)
    nbformat.validate(node)
    assert node.metadata == {
        "lab": {"key_numbers": ["top1"]},
        "language_info": {"name": "python"},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
    }
    assert [dict(cell.metadata) for cell in node.cells] == [{"tags": ["parameters"]}, {}, {}, {}]
    assert [cell.execution_count for cell in node.cells] == [1, 2, 3, 4]
    assert node.cells[2].outputs[0].text == "n is 3\n"
    assert str(lab.folder) in node.cells[3].outputs[0].data["text/plain"]
    assert tour.record(["00"]) == 0
    assert path.read_text() == recorded


@pytest.mark.parametrize(
    "words, called",
    [
        (["--profile", "full"], (("00",), "full", 2)),
        (["--machine"], (("00",), "quick", 2)),
        ([], None),
    ],
)
def test_other_profiles_and_machines_are_recorded_side_by_side_outputs_one_at_a_time(words, called, monkeypatch):
    calls = []
    monkeypatch.setattr(tour, "run", lambda names, profile, jobs: calls.append((names, profile, jobs)) or 1)
    monkeypatch.setattr(tour, "record", lambda names: calls.append(names) or 1)
    result = CliRunner().invoke(main, ["record", "00", "--jobs", "2", *words])
    assert calls == [called] if called else (result.exit_code, calls) == (2, []) and "one at a time" in result.output
    again = CliRunner().invoke(main, ["record", "00"])  # the cure
    assert again.exit_code == 1 and calls[-1] == ("00",)


def test_record_leaves_a_notebook_that_fails_as_it_was(lab, capsys):
    path = lab("00_first", "1 / 0")
    former = path.read_bytes()
    assert tour.record() == 1
    assert path.read_bytes() == former
    out = capsys.readouterr().out
    assert "ZeroDivisionError" in out and os.path.relpath(lab.folder / "runs/record/00_first.failed.ipynb") in out
    with pytest.raises(InputError, match="00_first"):
        tour.record(["07"])


def test_overview(lab, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", lab.folder / "results")
    for name in ("01_run", "00_not_run"):
        node = nbformat.read(lab(name), as_version=4)
        node.cells.insert(0, new_markdown_cell(f"# Why {name}?\nBecause."))
        node.metadata["lab"] = {"leaves": "00"} if name == "01_run" else {}
        nbformat.write(node, repository.NOTEBOOKS / f"{name}.ipynb")
    recorded = lab.folder / "results" / "quick" / "here" / "01_run.json"
    recorded.parent.mkdir(parents=True)
    recorded.write_text(json.dumps({"numbers": {}, "provenance": {"seconds": 12.5}}))
    table = notebook.overview()
    assert list(table.index) == ["00_not_run", "01_run"]
    assert list(table.question) == ["Why 00_not_run?", "Why 01_run?"]
    assert pd.isna(table.seconds["00_not_run"]) and table.seconds["01_run"] == 12.5
    assert list(table.leaves) == ["", "00"]
    assert notebook.course() == (["00 not run"], {"01 run": "00 not run"})


def test_plan_refuses_a_notebook_without_parameters_cell(lab):
    nbformat.write(new_notebook(), repository.NOTEBOOKS / "00_bare.ipynb")
    with pytest.raises(InputError, match="00_bare"):
        tour.plan([], "quick", {})


def test_other_parameters_stay_apart_from_the_quick_run(lab, papermill_calls):
    lab("00_first")
    assert tour.run() == 0
    former = {path.name: path.read_bytes() for path in lab.runs.iterdir()}
    assert tour.run(["00"], given={"n": "3"}) == 0
    assert {path.name: path.read_bytes() for path in lab.runs.iterdir()} == former
    assert sorted(path.name for path in (lab.folder / "runs" / "custom").iterdir()) == [
        "00_first.ipynb",
        "tour-00.json",
    ]


def test_a_failing_run_leaves_the_good_copy(lab, papermill_calls):
    lab("00_first")
    assert tour.run() == 0
    good = (lab.runs / "00_first.ipynb").read_bytes()
    papermill_calls.failures["00_first"] = ValueError("no such luck")
    assert tour.run() == 1
    assert (lab.runs / "00_first.ipynb").read_bytes() == good


def test_results_and_figures_of_a_profile_are_kept(lab, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", lab.folder / "repository" / "results")
    monkeypatch.setattr(repository, "REPOSITORY", lab.folder / "repository")
    lab("01_next")
    root, here = repository.output_root(), runtime_env.machine_name()
    repository.write(root / "results" / "full" / here / "01_next.json", '{"numbers": {}}')
    repository.write(root / "figures" / "full" / "01_curve.svg", "<svg/>")
    figure = lab.folder / "repository" / "figures" / "full" / "01_curve.svg"
    kept = lab.folder / "repository" / "results" / "full" / here / "01_next.json"
    assert tour.keep("full", machine=True) == ["01_next"]
    assert json.loads(kept.read_text()) == {"numbers": {}, "reference": False} and not figure.exists()
    assert tour.keep("full") == ["01_next"]
    assert json.loads(kept.read_text())["reference"] and figure.read_text() == "<svg/>"
    with pytest.raises(InputError, match="profile='other' has no results to keep"):
        tour.keep("other")


def test_what_lies_there_of_other_notebooks_and_machines_is_not_kept(lab, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", lab.folder / "repository" / "results")
    monkeypatch.setattr(repository, "REPOSITORY", lab.folder / "repository")
    root, here = repository.output_root(), runtime_env.machine_name()
    for name in ("01_old", "03_new"):
        lab(name)
        repository.write(root / "results" / "full" / here / f"{name}.json", '{"numbers": {}}')
        repository.write(root / "figures" / "full" / f"{name[:2]}_curve.svg", "<svg/>")
    repository.write(root / "results" / "full" / "elsewhere" / "03_new.json", '{"numbers": {}}')
    assert tour.keep("full", ("03",)) == ["03_new"]
    kept = [path.relative_to(lab.folder / "repository").as_posix() for path in repository.REPOSITORY.rglob("*.*")]
    assert sorted(kept) == ["figures/full/03_curve.svg", f"results/full/{here}/03_new.json"]


def test_a_private_profile_is_not_recorded_and_stays_apart(lab, papermill_calls, tmp_path):
    lab("00_first")
    (tmp_path / "quick.yaml").write_text("00_first: {n: 7}")
    assert tour.run() == 0
    quick = (lab.runs / "00_first.ipynb").read_bytes()
    assert tour.run(profile=str(tmp_path / "quick.yaml")) == 0
    assert (lab.runs / "00_first.ipynb").read_bytes() == quick
    assert (lab.folder / "runs" / "custom" / "00_first.ipynb").is_file()
    refused = CliRunner().invoke(main, ["record", "--profile", str(tmp_path / "quick.yaml")])
    assert refused.exit_code == 2 and "put it in notebooks/profiles/" in refused.output
    (repository.NOTEBOOKS / "profiles" / "mine.yaml").write_text((tmp_path / "quick.yaml").read_text())  # the cure
    assert [stop.changes for stop in tour.plan((), "mine", {})] == [{"n": 7}]


@pytest.mark.parametrize("ending", ["1 / 0", "raise KeyboardInterrupt"])
def test_figures_and_results_of_a_notebook_that_is_not_recorded_are_as_they_were(lab, monkeypatch, ending):
    monkeypatch.setattr(results, "RECORDED", lab.folder / "results")
    figure, result = (
        lab.folder / "figures" / "00_curve.svg",
        lab.folder / "results" / "quick" / "here" / "00_first.json",
    )
    for path in (figure, result):
        repository.write(path, "former")
    other = lab.folder / "figures" / "00_other.svg"
    drawn = "\n".join(
        f"import pathlib; pathlib.Path({str(path)!r}).write_text('new')" for path in (figure, result, other)
    )
    lab("00_first", drawn, ending)
    assert tour.record() in (1, tour.INTERRUPTED)
    assert figure.read_text() == result.read_text() == "former" and not other.exists()
    lab("00_first", drawn)
    assert tour.record() == 0
    assert figure.read_text() == result.read_text() == other.read_text() == "new"


def test_a_key_changes_with_the_folder_of_photos_that_nobody_has_a_hash_of(lab, tmp_path, monkeypatch):
    path, keys = lab("00_first", declares='dataset = "flowers"  # one of flowers, mnist5k'), []
    for folder in ("one", "other"):
        photos = tmp_path / folder / "flowers" / "flower_photos" / "tulips"
        photos.mkdir(parents=True)
        (photos / "1.jpg").write_bytes(b"x")
        monkeypatch.setenv("COMPRESSION_LAB_DATA", str(tmp_path / folder))
        parameters.contents.cache_clear()
        keys.append([tour.stop_at(path, {"dataset": name}).key for name in ("flowers", "mnist5k")])
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]


def test_a_key_changes_with_what_a_parameter_names(lab, tmp_path):
    path = lab("00_first", declares='dataset = "one"  # one of one, an .npz file, or a folder\nshelf = ["a"]  # names')

    def key(**given):
        parameters.contents.cache_clear()
        return tour.stop_at(path, given).key

    assert parameters.contents("") == parameters.contents("no such thing") == ""  # and not all of the working folder
    own, folder = tmp_path / "own.npz", tmp_path / "photos"
    own.write_bytes(b"a")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"a")
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "a.keras"
    for value, change in (
        ({"dataset": str(own)}, lambda: own.write_bytes(b"bb")),
        ({"dataset": str(folder)}, lambda: (folder / "cat" / "2.png").write_bytes(b"b")),
        ({"dataset": "one"}, lambda: checkpoint.write_bytes(b"it")),
    ):
        before = key(**value)
        assert key(**value) == before
        change()
        assert key(**value) != before


def test_what_ran_since_with_other_parameters_is_not_resumed(lab, papermill_calls, capsys):
    lab("00_first")
    lab("01_second")
    papermill_calls.failures = {"01_second": KeyboardInterrupt()}
    assert tour.run(given={"n": "4"}) == tour.INTERRUPTED
    assert tour.run(["00"], given={"n": "5"}) == 0
    capsys.readouterr()
    assert tour.run(given={"n": "4"}) == 0
    assert "Resuming" not in capsys.readouterr().out and papermill_calls.count(("00_first", {"n": 4})) == 2
