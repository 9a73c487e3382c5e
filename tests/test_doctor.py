"""The doctor's checks, and the command line that shows them."""

import subprocess
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner

from helpers import doctor
from helpers.__main__ import main
from helpers.base.errors import InputError
from helpers.compress import quantize


def test_this_environment_is_fit():
    table = doctor.table()
    assert list(table.columns) == ["ok", "found", "cure"]
    for name in ("Python", "CPU", "cores", "free memory", "free disk", "data set mnist5k"):
        assert table.found[name]
    assert table.ok[["Python", "smoke test"]].all(), table.to_string()
    assert "int8 differs by" in table.found["smoke test"]


@pytest.mark.parametrize(
    "version, ok", [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 5), True), ((3, 14, 0), False)]
)
def test_python_version(version, ok):
    check = doctor.python_version(version)
    assert check.ok is ok and bool(check.cure) is not ok
    assert check.found == ".".join(map(str, version))


def test_a_wrong_and_a_missing_version_have_a_cure(tmp_path):
    lock = tmp_path / "requirements.txt"
    installed = metadata.version("click")
    hashes = "    --hash=sha256:0\n"
    lock.write_text(f"# comment\nclick=={installed} \\\n{hashes}nosuch==1 ; python_version < '3' \\\n{hashes}")
    check = doctor.packages(lock)
    assert check.ok and "all 1 as pinned" in check.found
    lock.write_text(f"click==0.1 \\\n{hashes}nosuch==1 \\\n{hashes}")
    check = doctor.packages(lock)
    assert not check.ok and check.found == f"click {installed} (pinned 0.1), nosuch missing (pinned 1)"
    assert "pip install" in check.cure
    assert not doctor.packages(tmp_path / "nosuch.txt").ok


def test_an_installed_package_tells_its_extras_and_what_it_lacks(monkeypatch):
    versions = {"compression-lab": "1.0", "click": "8.2", "litert-quantizer": "0.11.0", "tensorflow": "2.21.0"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    asked = [
        "click>=8.1",
        'litert-quantizer==0.11.*; extra == "files"',
        'compression-lab[files]; extra == "models"',
        'tensorflow==2.21.*; extra == "models"',
        'compression-lab[models]; extra == "lab"',
        'papermill>=2; extra == "lab"',
        'sphinx; extra == "site"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    monkeypatch.setattr(metadata, "version", version)
    check = doctor.required()
    assert check.ok and check.found == "compression-lab 1.0, extras: files, models"
    assert check.cure == 'for the notebooks: pip install "compression-lab[lab]"'
    versions["litert-quantizer"] = "0.12.0"  # which the extra models needs as well
    assert doctor.required().found == "compression-lab 1.0, extras: none"
    versions["click"] = "8.0"
    check = doctor.required()
    assert (
        not check.ok
        and check.found == "not as needed: click>=8.1"
        and "pip install --upgrade compression-lab" in check.cure
    )


def test_without_tensorflow_a_file_is_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check = doctor.smoke_test()
    assert check.ok and check.found == "without TensorFlow; a .tflite is right for 25 of 32 images"


def test_a_failing_conversion_is_reported_not_raised(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("converter broken\nmore")

    monkeypatch.setattr(quantize, "convert", fail)
    check = doctor.smoke_test()
    assert not check.ok and check.found == "RuntimeError: converter broken" and check.cure


def test_too_little_memory_or_disk_has_a_cure(monkeypatch):
    monkeypatch.setattr(doctor, "MEMORY_GB", 10**6)
    monkeypatch.setattr(doctor, "DISK_GB", 10**9)
    cores, memory, disk = doctor.resources()
    assert "close other programs" in memory.cure and "COMPRESSION_LAB_OUTPUT" in disk.cure
    assert not memory.ok and not disk.ok and cores.found


@pytest.mark.parametrize(
    "checks, code",
    [
        ([doctor.Check("Python", True, "3.11.7")], 0),
        ([doctor.Check("Python", True, "3.11.7"), doctor.Check("disk", False, "0.1 [GB]", "free some space")], 1),
    ],
)
def test_the_command_shows_each_check_and_fails_if_one_does(monkeypatch, checks, code):
    monkeypatch.setattr(doctor, "checks", lambda: checks)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == code
    assert all(text in result.output for check in checks for text in (check.name, check.found, check.cure))


def test_errors_of_the_lab_are_one_line_and_others_keep_their_traceback(monkeypatch):
    def fail(error):
        def checks():
            raise error

        monkeypatch.setattr(doctor, "checks", checks)
        return CliRunner().invoke(main, ["doctor"])

    refused = fail(InputError("dataset='x' is unknown"))
    assert (refused.exit_code, refused.output) == (2, "Error: dataset='x' is unknown\n")
    assert isinstance(fail(ZeroDivisionError("a mistake")).exception, ZeroDivisionError)


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"], ["tour", "--help"], ["record", "--help"]])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys; from helpers.__main__ import main; main(sys.argv[1:], standalone_mode=False); "
        "print(*{'tensorflow', 'papermill', 'pandas', 'matplotlib', 'numpy', 'nbformat'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout and not done.stdout.splitlines()[-1].strip()
