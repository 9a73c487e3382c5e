"""A sweep on a small notebook: the grid as typed, a real Dask cluster whose workers are killed, and what is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook
from scipy import stats as scipy_stats

from helpers.__main__ import main
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.lab import sweep, tour, workers

DECLARED = """rate = 0.5  # share; in [0, limit)
limit = 1.0  # its bound; in (0, 1]
seed = 0  # in [0, )
name = "a"  # one of a, b
units = [8, 4]  # widths; in [1, )"""
# Tells that it was here and which process started it, then records what results.record would.
BODY = """
import json, os, pathlib, time
folder = pathlib.Path({folder!r})
with open(folder / "visits", "a") as file:
    file.write(f"{{rate:g}}/{{seed}} {{os.getppid()}}\\n")
if rate == 0.9 and not (folder / "mended").exists():
    raise ValueError("no such luck\\nat all")
if rate == 0.8 and not (folder / "mended").exists():
    os._exit(1)
time.sleep({seconds})
def number(value, unit=""):
    return dict(value=value, low=None, high=None, unit=unit, tolerance=0)
numbers = dict(top1=number(rate + seed / 100, "share"), threads=number(int(os.environ["TF_NUM_INTRAOP_THREADS"])))
path = pathlib.Path(os.environ["COMPRESSION_LAB_OUTPUT"]) / "results" / "custom" / "here" / "tiny.json"
path.parent.mkdir(parents=True)
path.write_text(json.dumps(dict(numbers=numbers, verdicts={{}})))
"""


class Tiny:
    """A notebook that takes `seconds`, and what is seen of its runs."""

    def __init__(self, folder, seconds=0):
        self.folder, self.path, self.output = folder, folder / "tiny.ipynb", folder / "out"
        cells = [
            new_code_cell(DECLARED, metadata={"tags": ["parameters"]}),
            new_code_cell(BODY.format(folder=str(folder), seconds=seconds)),
        ]
        nbformat.write(new_notebook(cells=cells), self.path)

    def visits(self):
        """Point -> the processes that started its kernel, one for each time."""
        found = {}
        for line in (self.folder / "visits").read_text().splitlines() if (self.folder / "visits").exists() else []:
            point, process = line.split()
            found.setdefault(point, []).append(int(process))
        return found

    def finished(self):
        return list(self.output.glob("*/results/*/*/tiny.json"))

    def start(self, *words):
        """The command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, "sweep", self.path, "--output", self.output, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=repository.REPOSITORY,
            start_new_session=True,
        )

    def table(self):
        return pd.read_csv(self.output / "points.csv")


DRIVER = """
import signal
from helpers.__main__ import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have it ignored
    main()
"""


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path)


@pytest.fixture
def slow(tmp_path):
    return Tiny(tmp_path, seconds=1)


class Cluster:
    """A scheduler and workers, each a process of its own as on other machines."""

    def __init__(self, folder):
        self.file, self.workers = folder / "scheduler.json", []
        self.scheduler = self._start("scheduler", "--port", "0")
        wait_until(lambda: self.file.exists() and self.file.stat().st_size, "the scheduler's file")
        self.address = pd.read_json(self.file, typ="series")["address"]

    def _start(self, *words):
        words = [sys.executable, "-m", "dask", *words, "--no-dashboard", "--host", "127.0.0.1"]
        environment = {**os.environ, "PYTHONPATH": str(repository.REPOSITORY), "TF_NUM_INTRAOP_THREADS": "2"}
        return subprocess.Popen(
            [*words, "--scheduler-file", self.file], env=environment, stderr=subprocess.DEVNULL, cwd=self.file.parent
        )

    def need(self, many):
        """At least so many workers that run."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < many:
            self.workers.append(self._start("worker", "--nthreads", "1", "--no-nanny"))
        return self.workers

    def stop(self):
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.stop()


def wait_until(true, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_killed_in_the_middle_loses_nothing(slow, cluster, capsys):
    workers = {worker.pid: worker for worker in cluster.need(2)}

    def kill_one_that_is_busy():
        wait_until(lambda: slow.finished() and len(slow.visits()) >= 3, "a third point")
        point, started_by = list(slow.visits().items())[-1]
        workers[started_by[-1]].send_signal(signal.SIGKILL)
        return point

    with ThreadPoolExecutor() as beside:
        interrupted = beside.submit(kill_one_that_is_busy)
        code = sweep.run(slow.path, ["rate=0.1,0.2", "seed=0:2"], cluster.address, output=slow.output)
    out = capsys.readouterr().out
    assert code == 0 and "failed" not in out, out
    assert len(cluster.need(0)) == 1, "one worker did the rest"
    table = slow.table()
    assert Counter(table["number"]) == {"top1": 4, "threads": 4}
    assert not table.duplicated(["rate", "seed", "number"]).any()
    top1 = table[table["number"] == "top1"]
    np.testing.assert_allclose(top1["value"], top1["rate"] + top1["seed"] / 100)
    times = {point: len(started_by) for point, started_by in slow.visits().items()}
    assert times.pop(interrupted.result()) == 2 and len(times) == 3
    # On a slow machine the killed worker may not have reported the point before, which then is done again as well.
    assert sorted(times.values()) in ([1, 1, 1], [1, 1, 2])
    assert (table[table["number"] == "threads"]["value"] == 1).all(), "not the two of the worker's environment"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("blow, code, workers", [(signal.SIGINT, 130, 2), (signal.SIGKILL, -signal.SIGKILL, 1)])
def test_a_stopped_sweep_of_so_many_workers_keeps_its_points_and_goes_on(slow, cluster, capsys, blow, code, workers):
    grid = ["rate=0.1,0.2,0.3"]
    running = slow.start("--grid", *grid, "--workers", str(workers))
    wait_until(slow.finished, "a finished point")
    processes = [running.pid, *(child.pid for child in psutil.Process(running.pid).children(recursive=True))]
    if blow == signal.SIGINT:  # a terminal sends it to all
        os.killpg(running.pid, blow)
    else:
        running.send_signal(blow)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == code and "Traceback" not in out, out
    wait_until(lambda: not any(map(psutil.pid_exists, processes)), "its processes to end", seconds=30)
    assert len({process for started_by in slow.visits().values() for process in started_by}) == workers
    kept = {path: path.stat().st_mtime_ns for path in slow.finished()}
    assert 1 <= len(kept) < 3
    if blow == signal.SIGINT:
        assert "Interrupted: finished points are kept" in out and len(slow.table()) == 2 * len(kept)
    cluster.need(1)
    assert sweep.run(slow.path, grid, cluster.address, output=slow.output) == 0
    assert f"3 points, {len(kept)} of them finished before." in capsys.readouterr().out
    assert len(slow.table()) == 6 and {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_failing_point_is_told_and_does_not_stop_the_others(tiny, cluster, capsys):
    cluster.need(1)
    words = (tiny.path, ["rate=0.9,0.8,0.7", "seed=3"], cluster.address)
    assert sweep.run(*words, output=tiny.output) == 1
    out = capsys.readouterr().out
    assert "failed: ValueError: no such luck at all" in out and "DeadKernelError" in out
    assert 'raise ValueError("no such luck' in out, "its traceback"
    assert "2 of 3 points failed; the same command tries them again." in out
    assert list(tiny.table()["rate"].unique()) == [0.7]
    assert len(list(tiny.output.glob("*/tiny.failed.ipynb"))) == 2
    (tiny.folder / "mended").touch()
    assert sweep.run(*words, output=tiny.output) == 0
    assert {point: len(at) for point, at in tiny.visits().items()} == {"0.9/3": 2, "0.8/3": 2, "0.7/3": 1}
    assert list(tiny.table()["rate"].unique()) == [0.9, 0.8, 0.7]
    assert not list(tiny.output.glob("*/tiny.failed.ipynb")) and len(list(tiny.output.glob("*/tiny.ipynb"))) == 3


def test_a_finished_sweep_needs_no_scheduler_and_another_grid_reuses_its_points(tiny, cluster, capsys):
    cluster.need(1)
    sweep.run(tiny.path, ["rate=0.1"], cluster.address, output=tiny.output)
    assert sweep.run(tiny.path, ["rate=0.1,0.2"], cluster.address, output=tiny.output) == 0
    assert sweep.run(tiny.path, ["rate=0.2,0.1"], "tcp://127.0.0.1:1", output=tiny.output) == 0
    assert "2 points, 2 of them finished before." in capsys.readouterr().out
    next(path for path in tiny.finished() if "rate=0.1" in str(path)).write_text("{")
    assert sweep.run(tiny.path, ["rate=0.2,0.1"], cluster.address, output=tiny.output) == 0
    assert {point: len(at) for point, at in tiny.visits().items()} == {"0.1/0": 2, "0.2/0": 1}


def test_a_lost_scheduler_is_one_sentence(tiny, tmp_path):
    own = Cluster(tmp_path)
    running = tiny.start("--grid", "seed=0:4", "--scheduler", own.address)
    told = [running.stdout.readline() for _ in range(2)]
    assert told[-1] == "The scheduler has no workers yet: waiting for them.\n"
    own.stop()
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 2 and "Traceback" not in out
    assert out.splitlines()[-1].startswith("Error: the scheduler was lost: finished points are kept"), out
    assert tiny.table().empty


@pytest.mark.parametrize(
    "words, told",
    [
        (["rate"], "grid='rate' must read name=value,value or name=start:end."),
        (["=1"], "grid='=1' must read name=value,value"),
        (["rate="], "grid='rate=' holds no value, or an empty one"),
        (["rate=0.1,,0.2"], "grid='rate=0.1,,0.2' holds no value, or an empty one"),
        (["seed=3:3"], "grid='seed=3:3' holds no value"),
        (["rate=0.1,0.10"], "grid='rate=0.1,0.10' holds 0.1 twice"),
        (["rate=0.1", "rate=0.2"], "grid names 'rate' twice"),
        (["rate=0:5"], "is a range of whole numbers, and rate takes others"),
        (["seed=0:100", "rate=0.1,0.2", "units=1:100"], "grid has 19,800 points, more than 5,000"),
        (["nosuch=1"], "parameter 'nosuch' is unknown to tiny: it has rate, limit, seed, name, units."),
        (["seed=0.5"], "parameter seed=0.5 must be of type int"),
        (["rate=0.5,1"], "parameter rate=1.0 must lie in [0, limit)"),
        (["rate=0.5,0.7", "limit=1,0.6"], "parameter rate=0.7 must lie in [0, limit), where limit is 0.6."),
        (["name=a,c"], "parameter name='c' must be one of a, b"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_starts(tiny, words, told):
    grid = [word for text in words for word in ("--grid", text)]
    result = CliRunner().invoke(main, ["sweep", str(tiny.path), *grid, "--output", str(tiny.output)])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ") and told in result.output and result.output.count("\n") == 1
    assert not tiny.output.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["--scheduler", "127.0.0.1"], "scheduler='127.0.0.1' is no address (missing port number"),
        (["--scheduler", "foo://127.0.0.1:1"], "scheduler='foo://127.0.0.1:1' is no address (unknown address scheme"),
        (["--scheduler", "tcp://127.0.0.1:1"], "scheduler='tcp://127.0.0.1:1' does not answer"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "workers=2 is for a cluster on this machine"),
    ],
)
def test_a_bad_scheduler_is_one_sentence(tiny, monkeypatch, words, told):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    words = ["sweep", str(tiny.path), "--grid", "seed=0:2", *words, "--output", str(tiny.output)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert told in result.output.splitlines()[-1] and "Traceback" not in result.output
    assert not tiny.visits()


def test_an_unknown_notebook_is_refused():
    result = CliRunner().invoke(main, ["sweep", "nosuch", "--grid", "seed=0:2"])
    assert result.exit_code == 2 and "notebook='nosuch' is not one of 00_start_here" in result.output


def test_a_folder_that_cannot_be_written_is_told_first(tiny):
    tiny.output.write_text("a file where the folder should be")
    words = ["sweep", str(tiny.path), "--grid", "seed=0:2", "--output", str(tiny.output)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "could not be written" in result.output and not tiny.visits()


def test_the_grid_as_typed(tiny):
    typed = ["rate=0.25, 0", "seed=0:3", "name=a,b", "units=[8,4],[2],3"]
    expected = {"rate": [0.25, 0], "seed": [0, 1, 2], "name": ["a", "b"], "units": [[8, 4], [2], [3]]}
    assert sweep.parse(tiny.path, typed) == expected
    assert sweep.parse(tiny.path, ["units=1:8:3"]) == {"units": [[1], [4], [7]]}
    stops = sweep.plan(tiny.path, expected)
    assert len(stops) == 36 and len({stop.key for stop in stops}) == 36
    assert stops[0].changes == {"rate": 0.25, "seed": 0, "name": "a", "units": [8, 4]}
    with pytest.raises(InputError, match="grid is empty"):
        sweep.plan(tiny.path, {})
    with pytest.raises(InputError, match=r"rate=0\.7 must lie in \[0, limit\)"):
        sweep.plan(tiny.path, {"limit": [0.9, 0.6], "rate": [0.7]})


def frame(values, **columns):
    """A table as `sweep.table` gives it, of one number."""
    content = pd.DataFrame({"point": "p", **columns, "number": "top1", "value": values})
    return content.assign(low=np.nan, high=np.nan, unit="share")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6))
def test_the_interval_over_seeds_is_students(values):
    row = sweep.summary(frame(values, rate=0.5, seed=range(len(values)))).iloc[0]
    error = scipy_stats.sem(values)
    if error > 0:
        low, high = scipy_stats.t.interval(stats.CONFIDENCE, len(values) - 1, np.mean(values), error)
        np.testing.assert_allclose([row.low, row.high], [low, high], atol=1e-9)
    assert row.repetitions == len(values) and row.value == pytest.approx(np.mean(values), abs=1e-9)


def test_seeds_alone_make_one_mean_and_one_seed_has_no_interval():
    [mean] = sweep.summary(frame([1.0, 2.0], seed=[0, 1])).to_dict("records")
    assert mean["value"] == 1.5 and mean["repetitions"] == 2 and mean["low"] < 1 < 2 < mean["high"]
    assert sweep.summary(frame([1.0], seeds="[0]"))["low"].isna().all()


def test_a_figure_has_a_line_for_each_combination_of_the_other_parameters():
    table = frame(np.arange(8.0), rate=[0.2, 0.1] * 4, name=["a", "a", "b", "b"] * 2, seed=[0] * 4 + [1] * 4)
    [axis] = sweep.figure(sweep.summary(table), "top1").axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["name=a", "name=b"]
    assert [list(line.lines[0].get_xdata()) for line in axis.containers] == [[0.1, 0.2]] * 2
    assert axis.get_xlabel() == "rate" and axis.get_ylabel() == "top1, share"
    [axis] = sweep.figure(frame([1.0, 2.0], name=["a", "b"]), "top1").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["name=a", "name=b"]
    [axis] = sweep.figure(frame([1.0], rate=0.1), "top1").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["top1"]


def test_a_sweep_leaves_no_table_or_figure_of_another_grid(tiny):
    assert (
        CliRunner()
        .invoke(main, ["sweep", str(tiny.path), "--output", str(tiny.output), "--grid", "seed=0:2"])
        .exit_code
        == 0
    )
    assert (tiny.output / "summary.csv").is_file() and list(tiny.output.glob("*.svg"))
    figures, before = list(tiny.output.glob("*.svg")), time.time_ns()
    (tiny.output / "of_the_users.svg").write_text("<svg/>")
    assert (
        CliRunner()
        .invoke(main, ["sweep", str(tiny.path), "--output", str(tiny.output), "--grid", "rate=0.2"])
        .exit_code
        == 0
    )
    assert not (tiny.output / "summary.csv").exists() and (tiny.output / "of_the_users.svg").exists()
    assert figures and all(path.stat().st_mtime_ns > before for path in tiny.output.glob("*.svg"))


def test_numbers_of_several_machines_are_kept_apart_where_they_belong_to_them(tmp_path):
    entry = {"low": None, "high": None, "unit": ""}
    points = {}
    for number, machine in enumerate(("x86-64-vnni", "x86-64-avx2", "x86-64-avx2")):
        stop = tour.Stop(tmp_path / "tiny.ipynb", {"seed": number}, "custom", "key")
        numbers = {
            "top1": {**entry, "value": 0.9 + number / 100, "tolerance": 0.01},
            "latency_ratio": {**entry, "value": 1.0 + number, "tolerance": None},
        }
        path = tmp_path / f"point{number}" / "results" / "custom" / machine / "tiny.json"
        repository.write(path, json.dumps({"numbers": numbers, "verdicts": {}}))
        points[tmp_path / f"point{number}"] = stop
    found = sweep.summary(sweep.table(points)).set_index(["number", "machine"])
    assert found["repetitions"].to_dict() == {
        ("top1", ""): 3,
        ("latency_ratio", "x86-64-vnni"): 1,
        ("latency_ratio", "x86-64-avx2"): 2,
    }
    assert found.loc[("latency_ratio", "x86-64-avx2"), "value"] == 2.5
    alone = dict(list(points.items())[1:])
    assert "machine" not in sweep.table(alone)
