"""Recorded numbers: they come back as they went in, and no accident leaves half a file or loses the former one."""

import errno
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import files, results
from helpers.stats import Estimate

NOTEBOOK = "07_probe"
DEFAULTS = {"final_sparsity": 0.8, "seeds": [0, 1]}
PARAMETERS = """\
final_sparsity = 0.8  # share of zeros; in [0, 1)
seeds = [0, 1]  # one training each; in [0, )
"""


@pytest.fixture(autouse=True)
def probe(monkeypatch, tmp_path):
    """A notebook of two parameters with a profile beside it, and an output folder of its own."""
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    cell = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), notebooks / f"{NOTEBOOK}.ipynb")
    (notebooks / "profiles" / "full.yaml").write_text(f"{NOTEBOOK}:\n  seeds: [0, 1, 2, 3]\n")
    monkeypatch.setattr(files, "NOTEBOOKS", notebooks)
    monkeypatch.setenv(files.OUTPUT_VARIABLE, str(tmp_path / "out"))
    return tmp_path / "out"


def there(folder):
    """Every file below a folder, by its name."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- there and back


def test_what_is_recorded_is_read_back(probe):
    numbers = {
        "top1.float32": Estimate(0.9471234567, 0.93, 0.96, "share"),
        "size.float32": np.int64(941_234),
        "latency_ratio.pruned": Estimate(1.02, 0.98, 1.07, "ratio"),
        "sparsity.kernel": 0.8,
    }
    dataset = SimpleNamespace(name="mnist5k", sha256="7e30")
    tolerances = {"top1": 0.02, "latency_ratio": None, "size.float32": 100}
    path = results.record(NOTEBOOK, numbers, DEFAULTS, dataset, tolerances, {"C01": "confirmed"})
    assert path == f"results/quick/{NOTEBOOK}.json"
    assert (probe / path).read_text().endswith("}\n")

    found = results.read(NOTEBOOK, root=probe)
    assert found["numbers"]["top1.float32"] == Estimate(0.947123, 0.93, 0.96, "share")
    assert found["numbers"]["size.float32"] == Estimate(941_234)
    assert found["tolerances"] == {
        "top1.float32": 0.02, "size.float32": 100, "latency_ratio.pruned": None, "sparsity.kernel": 0.0,
    }  # fmt: skip
    assert (found["profile"], found["parameters"], found["verdicts"]) == ("quick", DEFAULTS, {"C01": "confirmed"})
    provenance = found["provenance"]
    assert provenance["data"] == {"name": "mnist5k", "sha256": "7e30"}
    assert provenance["seconds"] > 0
    assert provenance["versions"]["tensorflow"]
    assert provenance["machine"]["threads"] == 2


def test_the_revision_is_that_of_git_or_none(probe, monkeypatch, tmp_path):
    def revision():
        results.record(NOTEBOOK, {}, DEFAULTS)
        return results.read(NOTEBOOK, root=probe)["provenance"]["git_revision"]

    def git(*words):
        person = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", *person, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(files, "REPOSITORY", tmp_path)
    assert revision() is None
    git("init")
    assert revision() is None, "there is no commit yet"
    git("add", "notebooks")
    git("commit", "-m", "probe")
    clean = revision()
    assert len(clean) == 40
    (tmp_path / "notebooks" / f"{NOTEBOOK}.ipynb").open("a").write("\n")
    assert revision() == f"{clean}-modified"


@pytest.mark.parametrize(
    "used, profile",
    [
        (DEFAULTS, "quick"),
        ({"final_sparsity": 0.8, "seeds": [0, 1, 2, 3]}, "full"),
        ({"final_sparsity": 0.81, "seeds": [0, 1]}, "custom"),
        ({"final_sparsity": 0.8, "seeds": [1, 0]}, "custom"),
        ({"final_sparsity": 0.8}, "custom"),
    ],
)
def test_only_a_profiles_own_parameters_pass_for_it(probe, used, profile):
    assert results.profile_of(NOTEBOOK, used) == profile
    results.record(NOTEBOOK, {"top1.float32": 0.9}, used)
    assert (probe / "results" / profile / f"{NOTEBOOK}.json").is_file()


# --- comparing


def test_comparing_says_which_numbers_agree(probe):
    recorded = {"top1.a": 0.95, "top1.b": 0.95, "size.c": 1000, "latency_ratio.d": 2.0}
    results.record(NOTEBOOK, recorded, DEFAULTS, tolerances={"top1": 0.01, "latency_ratio": None})
    now = {"top1.a": 0.96, "top1.b": Estimate(0.93, 0.9, 0.95), "size.c": 1001, "latency_ratio.d": 9.0, "new.e": 1.0}
    table = results.compare(now, results.read(NOTEBOOK, root=probe))
    assert table["agrees"].to_dict() == {
        "top1.a": True, "top1.b": False, "size.c": False, "latency_ratio.d": None, "new.e": None,
    }  # fmt: skip
    assert table.loc["top1.b", ["this run", "recorded", "tolerance"]].tolist() == [0.93, 0.95, 0.01]
    assert table.loc["latency_ratio.d", "recorded"] == 2.0


def test_the_same_run_again_always_agrees(probe):
    random = np.random.default_rng(0)
    numbers = {f"n.{place}": random.normal() * 10.0 ** random.integers(-9, 10) for place in range(300)}
    results.record(NOTEBOOK, numbers, DEFAULTS)
    assert results.compare(numbers, results.read(NOTEBOOK, root=probe)).agrees.all()


# --- refusals


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Estimate(0.9, float("nan"), 1.0)])
def test_a_number_that_is_not_finite_is_refused_and_the_former_file_stays(probe, bad):
    results.record(NOTEBOOK, {"top1.float32": 0.9}, DEFAULTS)
    with pytest.raises(results.ResultsError, match=r"number top1\.float32=.* is not finite"):
        results.record(NOTEBOOK, {"top1.float32": bad}, DEFAULTS)
    assert results.read(NOTEBOOK, root=probe)["numbers"]["top1.float32"].value == 0.9


def test_a_run_that_was_never_recorded_is_named(probe):
    with pytest.raises(results.ResultsError, match=r"notebook='07_probe' has no results for profile='full'.*make run"):
        results.read(NOTEBOOK, "full", root=probe)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"numbers": {"top1',
        b"\xff\xfe\x00binary",
        b"[]",
        b"{}",
        b"null",
        b'{"numbers": []}',
        b'{"numbers": {"top1": 0.9}}',
        b'{"numbers": {"top1": {"value": 0.9}}}',
    ],
)
def test_a_damaged_file_is_refused_by_name(probe, content):
    path = probe / results.record(NOTEBOOK, {"top1.float32": 0.9}, DEFAULTS)
    path.write_bytes(content)
    with pytest.raises(results.ResultsError, match=r"07_probe\.json is damaged .* run the notebook again"):
        results.read(NOTEBOOK, root=probe)


# --- writing a file in one step


def test_a_full_disk_keeps_the_former_file_and_leaves_nothing_behind(probe, monkeypatch):
    results.record(NOTEBOOK, {"top1.float32": 0.9}, DEFAULTS)
    before = there(probe)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.OutputError, match=r"07_probe\.json could not be written \(No space left on device\)"):
        results.record(NOTEBOOK, {"top1.float32": 0.8}, DEFAULTS)
    assert results.read(NOTEBOOK, root=probe)["numbers"]["top1.float32"].value == 0.9
    assert there(probe) == before


def test_an_output_folder_that_cannot_be_made_is_named(probe, monkeypatch):
    results.record(NOTEBOOK, {"top1.float32": 0.9}, DEFAULTS)
    in_the_way = probe / "results" / "quick" / f"{NOTEBOOK}.json"
    former = in_the_way.read_bytes()
    monkeypatch.setenv(files.OUTPUT_VARIABLE, str(in_the_way))
    with pytest.raises(
        files.OutputError, match=rf"could not be written .* writable folder in \${files.OUTPUT_VARIABLE}"
    ):
        results.record(NOTEBOOK, {"top1.float32": 0.8}, DEFAULTS)
    assert in_the_way.read_bytes() == former


def test_a_folder_in_place_of_the_file_is_left_alone(probe):
    (probe / "figure.svg").mkdir(parents=True)
    with pytest.raises(files.OutputError, match=r"figure\.svg could not be written"):
        files.write(probe / "figure.svg", "<svg/>")
    assert there(probe) == []


def test_text_and_bytes_are_written_as_they_are(probe):
    assert files.write(probe / "a" / "b.txt", "µ\n").read_bytes() == "µ\n".encode()
    assert files.write(probe / "a" / "b.txt", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert there(probe) == ["b.txt"]


ENDLESS = """
import sys
from helpers import files
content = [letter * 500_000 for letter in "ab"]
while True:
    for text in content:
        files.write(sys.argv[1], text)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is what is tried")
def test_a_killed_writer_never_leaves_half_a_file(probe):
    path = probe / "file.txt"
    for delay in (0, 0.003, 0.007, 0.013):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS, path], cwd=files.REPOSITORY)
        try:
            deadline = time.monotonic() + 20
            while not path.exists():
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(delay)
        finally:
            writer.kill()
            writer.wait()
        assert path.read_text() in ("a" * 500_000, "b" * 500_000)


def test_the_recorded_files_of_the_repository_can_be_read():
    recorded = sorted(results.RECORDED.glob("*/*.json"))
    for path in recorded:
        content = json.loads(path.read_text())
        assert (content["profile"], content["notebook"]) == (path.parent.name, path.stem)
        assert results.read(path.stem, path.parent.name)["numbers"].keys() == content["numbers"].keys()
