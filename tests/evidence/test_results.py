"""Recorded numbers: they come back as they went in, and no accident leaves half a file or loses the former one."""

import errno
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, OutputError, ResultsError
from helpers.evidence import results
from helpers.evidence.stats import Estimate

NOTEBOOK = "07_probe"
DEFAULTS = {"final_sparsity": 0.8, "seeds": [0, 1]}
AVX2 = {"system": "Linux x86_64", "cpu": "one", "cpu_features": ["AVX2"], "cores": 2}
VNNI = {"system": "Linux x86_64", "cpu": "other", "cpu_features": ["AVX2", "AVX-512", "VNNI"], "cores": 2}


@pytest.fixture(autouse=True)
def probe(monkeypatch, tmp_path):
    """An output folder of its own, on a machine with AVX2; `probe.machine` is changed by `on`."""
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path / "out"))
    on(monkeypatch, AVX2)
    return tmp_path / "out"


def on(monkeypatch, machine):
    """From now on, this is the machine that records."""
    monkeypatch.setattr(runtime_env, "machine", lambda: {**machine, "threads": 2})


def record(numbers, **more):
    return results.record(NOTEBOOK, "quick", DEFAULTS, numbers, **more)


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
    path = results.record(
        NOTEBOOK, "quick", DEFAULTS, numbers, dataset, tolerances, {"C01": "confirmed"}, {"sparsity.kernel": "zeros"}
    )
    assert path == f"results/quick/x86-64-avx2/{NOTEBOOK}.json"
    assert (probe / path).read_text().endswith("}\n")

    found = results.read(NOTEBOOK, root=probe)
    assert found["numbers"]["top1.float32"] == Estimate(0.947123, 0.93, 0.96, "share")
    assert found["numbers"]["size.float32"] == Estimate(941_234)
    assert found["tolerances"] == {
        "top1.float32": 0.02, "size.float32": 100, "latency_ratio.pruned": None, "sparsity.kernel": 0.0,
    }  # fmt: skip
    assert found["labels"] == {"sparsity.kernel": "zeros"} and found["machine"] == "x86-64-avx2"
    assert (found["profile"], found["parameters"], found["verdicts"]) == ("quick", DEFAULTS, {"C01": "confirmed"})
    provenance = found["provenance"]
    assert provenance["data"] == {"name": "mnist5k", "sha256": "7e30"}
    assert provenance["seconds"] > 0
    assert provenance["versions"]["tensorflow"]
    assert provenance["machine"]["threads"] == 2


def test_an_installed_package_knows_what_it_was_built_of_and_asks_no_git(monkeypatch, tmp_path):
    monkeypatch.delenv(repository.REVISION_VARIABLE, raising=False)
    monkeypatch.setattr(repository, "INSTALLED", True)
    monkeypatch.setattr(repository, "SHIPPED", tmp_path)
    assert results.git_revision() is None  # though this repository, or that of whoever installed it, has one
    (tmp_path / "revision").write_text("abc-modified\n")
    assert results.git_revision() == "abc-modified"


def test_the_revision_is_that_of_git_or_none(probe, monkeypatch, tmp_path):
    def revision():
        record({})
        return results.read(NOTEBOOK, root=probe)["provenance"]["git_revision"]

    def git(*words):
        person = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", *person, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    assert revision() is None
    git("init")
    assert revision() is None, "there is no commit yet"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "probe").write_text("")
    git("add", "notebooks")
    git("commit", "-m", "probe")
    clean = revision()
    assert len(clean) == 40
    (tmp_path / "notebooks" / "probe").write_text("changed")
    assert revision() == f"{clean}-modified"


# --- machines


@pytest.mark.parametrize(
    "system, features, name",
    [
        ("Linux x86_64", ["AVX2", "AVX-512", "VNNI", "AMX"], "x86-64-amx"),
        ("Linux x86_64", ["AVX2", "AVX-512", "VNNI"], "x86-64-vnni"),
        ("Linux x86_64", ["AVX2", "AVX-512"], "x86-64-avx512"),
        ("Windows AMD64", ["AVX2"], "x86-64-avx2"),
        ("Darwin arm64", ["NEON dot product"], "arm64-dotprod"),
        ("Linux aarch64", [], "arm64"),
        ("Linux riscv64", [], "riscv64"),
    ],
)
def test_a_machine_is_named_by_what_decides_its_latency(system, features, name):
    assert runtime_env.machine_name({"system": system, "cpu_features": features}) == name


def test_the_reference_is_read_unless_another_machine_is_named(probe, monkeypatch):
    monkeypatch.setattr(repository, "REPOSITORY", probe)
    monkeypatch.setattr(results, "RECORDED", probe / "results")
    record({"latency_ratio.a": 1.0})
    monkeypatch.setattr(repository, "REPOSITORY", probe.parent)  # the second records elsewhere, and is kept beside it
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(probe.parent / "elsewhere"))
    on(monkeypatch, VNNI)
    record({"latency_ratio.a": 3.0})
    assert results.keep("quick", probe.parent / "elsewhere", reference=False) == [NOTEBOOK]
    found = [(it.machine, it.reference) for it in results.recordings("quick", NOTEBOOK)]
    assert found == [("x86-64-avx2", True), ("x86-64-vnni", False)]
    assert results.read(NOTEBOOK)["numbers"]["latency_ratio.a"].value == 1.0
    assert results.read(NOTEBOOK, machine="x86-64-vnni")["numbers"]["latency_ratio.a"].value == 3.0
    with pytest.raises(ResultsError, match="has no results for profile='quick' on machine='arm64'"):
        results.read(NOTEBOOK, machine="arm64")


def test_the_reference_is_not_replaced_by_a_run_beside_it(probe, monkeypatch):
    on(monkeypatch, AVX2)
    monkeypatch.setattr(repository, "REPOSITORY", probe)
    monkeypatch.setattr(results, "RECORDED", probe / "results")
    record({"top1": 0.9})
    monkeypatch.setattr(repository, "REPOSITORY", probe.parent)
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(probe.parent / "elsewhere"))
    record({"top1": 0.8})
    with pytest.raises(ResultsError, match="x86-64-avx2, is the reference itself: record without --machine"):
        results.keep("quick", probe.parent / "elsewhere", reference=False)
    assert results.read(NOTEBOOK)["numbers"]["top1"].value == 0.9
    assert results.keep("quick", probe.parent / "elsewhere") == [NOTEBOOK]
    assert results.read(NOTEBOOK)["numbers"]["top1"].value == 0.8


def test_of_two_references_the_newest_counts(probe, monkeypatch):
    monkeypatch.setattr(repository, "REPOSITORY", probe)
    for machine, year in ((VNNI, "2025"), (AVX2, "2026")):
        on(monkeypatch, machine)
        path = probe / record({"top1": 0.9})
        content = json.loads(path.read_text())
        content["provenance"]["recorded"] = f"{year}-01-01T00:00:00+00:00"
        path.write_text(json.dumps(content))
    assert results.read(NOTEBOOK, root=probe)["machine"] == "x86-64-avx2"


def test_nothing_to_keep_is_refused(probe):
    with pytest.raises(ResultsError, match="profile='full' has no results to keep"):
        results.keep("full", probe)


# --- comparing


def test_comparing_says_which_numbers_agree(probe):
    recorded = {"top1.a": 0.95, "top1.b": 0.95, "size.c": 1000, "latency_ratio.d": 2.0}
    record(recorded, tolerances={"top1": 0.01, "latency_ratio": None})
    now = {"top1.a": 0.96, "top1.b": Estimate(0.93, 0.9, 0.95), "size.c": 1001, "latency_ratio.d": 9.0, "new.e": 1.0}
    table = results.compare(now, results.read(NOTEBOOK, root=probe))
    assert table["agrees"].to_dict() == {
        "top1.a": True, "top1.b": False, "size.c": False, "latency_ratio.d": None, "new.e": None,
    }  # fmt: skip
    assert table.loc["top1.b", ["this run", "recorded", "tolerance"]].tolist() == [0.93, 0.95, 0.01]
    assert table.loc["latency_ratio.d", "recorded"] == 2.0


def test_what_was_recorded_and_is_not_made_is_told(probe):
    record({"top1.a": 0.95, "top1.b": 0.95, "latency_ratio.d": 2.0}, tolerances={"top1": 0.01, "latency_ratio": None})
    recorded = results.read(NOTEBOOK, root=probe)
    table = results.compare({"top1.a": 0.95}, recorded)
    assert table["agrees"].to_dict() == {"top1.a": True, "top1.b": None, "latency_ratio.d": None}
    assert results.absent(table) == ["top1.b"]
    assert results.absent(results.compare({}, recorded)) == ["top1.a", "top1.b"]
    assert results.absent(results.compare({"top1.a": 1, "top1.b": 2, "new": 3}, recorded)) == []


def test_the_same_run_again_always_agrees(probe):
    random = np.random.default_rng(0)
    numbers = {f"n.{place}": random.normal() * 10.0 ** random.integers(-9, 10) for place in range(300)}
    record(numbers)
    assert results.compare(numbers, results.read(NOTEBOOK, root=probe)).agrees.all()


# --- refusals


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Estimate(0.9, float("nan"), 1.0)])
def test_a_number_that_is_not_finite_is_refused_and_the_former_file_stays(probe, bad):
    record({"top1.float32": 0.9})
    with pytest.raises(InputError, match=r"number top1\.float32=.* is not finite"):
        record({"top1.float32": bad})
    assert results.read(NOTEBOOK, root=probe)["numbers"]["top1.float32"].value == 0.9


def test_a_run_that_was_never_recorded_is_named(probe):
    with pytest.raises(ResultsError, match=r"notebook='07_probe' has no results for profile='full'.*make run"):
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
    path = probe / record({"top1.float32": 0.9})
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"07_probe\.json is damaged .* run the notebook again"):
        results.read(NOTEBOOK, root=probe)


# --- writing a file in one step


def test_a_full_disk_keeps_the_former_file_and_leaves_nothing_behind(probe, monkeypatch):
    record({"top1.float32": 0.9})
    before = there(probe)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"07_probe\.json could not be written \(No space left on device\)"):
        record({"top1.float32": 0.8})
    assert results.read(NOTEBOOK, root=probe)["numbers"]["top1.float32"].value == 0.9
    assert there(probe) == before


def test_an_output_folder_that_cannot_be_made_is_named(probe, monkeypatch):
    record({"top1.float32": 0.9})
    in_the_way = probe / "results" / "quick" / "x86-64-avx2" / f"{NOTEBOOK}.json"
    former = in_the_way.read_bytes()
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(in_the_way))
    with pytest.raises(
        OutputError, match=rf"could not be written .* writable folder in \${repository.OUTPUT_VARIABLE}"
    ):
        record({"top1.float32": 0.8})
    assert in_the_way.read_bytes() == former


def test_a_folder_in_place_of_the_file_is_left_alone(probe):
    (probe / "figure.svg").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"figure\.svg could not be written"):
        repository.write(probe / "figure.svg", "<svg/>")
    assert there(probe) == []


def test_a_file_of_the_users_that_cannot_be_written_is_told_what_helps(tmp_path):
    with pytest.raises(OutputError, match=r"/dev/null/t\.csv could not be written .* name a file in a writable"):
        repository.write("/dev/null/t.csv", "a")


def test_what_a_link_leads_to_is_written_anew(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "real.csv")
    repository.write(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "there" / "real.csv").read_text() == "new"


def test_text_and_bytes_are_written_as_they_are(probe):
    assert repository.write(probe / "a" / "b.txt", "µ\n").read_bytes() == "µ\n".encode()
    assert repository.write(probe / "a" / "b.txt", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert there(probe) == ["b.txt"]


ENDLESS = """
import sys
from helpers.base import repository
content = [letter * 500_000 for letter in "ab"]
while True:
    for text in content:
        repository.write(sys.argv[1], text)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is what is tried")
def test_a_killed_writer_never_leaves_half_a_file(probe):
    path = probe / "file.txt"
    for delay in (0, 0.003, 0.007, 0.013):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS, path], cwd=repository.REPOSITORY)
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


def test_the_recorded_files_of_the_repository_can_be_read_and_lie_where_they_belong():
    recorded = sorted(results.RECORDED.glob("*/*/*.json"))
    assert recorded and not list(results.RECORDED.glob("*/*.json"))
    for path in recorded:
        content = json.loads(path.read_text())
        profile, machine = path.parts[-3:-1]
        assert (content["profile"], content["notebook"]) == (profile, path.stem)
        assert runtime_env.machine_name(content["provenance"]["machine"]) == machine
        assert results.read(path.stem, profile, machine)["numbers"].keys() == content["numbers"].keys()
