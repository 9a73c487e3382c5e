"""What is shipped: a package of an accepted model verifies, and whatever happens to it on the way is noticed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, OutputError
from helpers.compress import quantize
from helpers.deploy import gate, package
from helpers.networks import models

X = np.random.default_rng(0).normal(size=(400, 24)).astype("float32")
ABOUT = package.About(
    name="Five kinds",
    version="1.2.0",
    date="2025-01-31",
    licence="MIT",
    description="Tells five kinds of noise apart.",
    data="Gaussian noise",
    limits=("Not tested on anything but noise.",),
)


@pytest.fixture(scope="module")
def judged():
    """The file, and the decision about it."""
    runtime_env.seed_everything(0)
    model = models.mlp((16,), 24, 5)
    blob = quantize.convert(model, "full_int8", X)
    labels = model(X).numpy().argmax(axis=-1)
    return blob, gate.judge(blob, quantize.convert(model), X, labels, gate.Policy(0.2), rounds=6)


@pytest.fixture
def folder(judged, tmp_path):
    return package.write(tmp_path / "out", *judged, ABOUT, source=b"the model it was made from")


def spoil(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    for key, value in changes.items():
        part = manifest["model"] if key in manifest["model"] else manifest
        part[key] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_package_verifies_and_tells_where_it_comes_from(judged, folder):
    blob, decision = judged
    manifest = package.verify(folder, installed="1.1.9")
    assert (folder / "model.tflite").read_bytes() == blob
    assert manifest["model"]["sha256"] == decision.candidate["sha256"] and manifest["model"]["bytes"] == len(blob)
    assert manifest["model"]["inputs"][0]["dtype"] == "int8" and manifest["model"]["outputs"][0]["shape"] == [1, 5]
    assert len(manifest["provenance"]["source_sha256"]) == 64
    assert manifest["provenance"]["versions"]["ai-edge-litert"] and manifest["provenance"]["machine"]["cpu"]
    assert manifest["policy"]["max_drop"] == 0.2
    assert {check["outcome"] for check in manifest["checks"]} == {"pass"}
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "manifest.json", "model.tflite"]


def test_the_card_says_what_it_is_with_numbers_limits_and_licence(judged, folder):
    card = (folder / "MODEL_CARD.md").read_text()
    assert card.startswith("# Five kinds 1.2.0\n\nTells five kinds of noise apart.\n")
    for part in ("Licence: MIT", "Gaussian noise; judged on 400 examples", "Not tested on anything but noise."):
        assert part in card
    assert f"SHA-256 `{judged[1].candidate['sha256']}`" in card
    assert "int8 (1, 24), scale " in card
    assert "| top1.candidate | " in card and "| accuracy drop | pass | " in card
    assert "None" not in card and "float64" not in card


@pytest.mark.parametrize("outcome", [gate.REJECTED, gate.UNSURE])
def test_only_an_accepted_model_is_packaged(judged, tmp_path, outcome):
    decision = dataclasses.replace(judged[1], outcome=outcome)
    with pytest.raises(InputError, match=f"decision is {outcome}: only an accepted model is packaged"):
        package.write(tmp_path / "out", judged[0], decision, ABOUT)
    assert not (tmp_path / "out").exists()


def test_another_file_than_the_judged_one_is_refused(judged, tmp_path):
    with pytest.raises(InputError, match="model is not the file that the gate judged"):
        package.write(tmp_path / "out", judged[0] + b"\0", judged[1], ABOUT)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"version": "1.2-beta"}, r"version='1.2-beta' must be numbers with dots"),
        ({"version": "1.2.3.4.5"}, r"version='1.2.3.4.5' must be numbers with dots, such as 1.2.0"),
        ({"version": 1.2}, r"version=1.2 must be numbers with dots"),
        ({"date": "31.1.2025"}, r"date='31.1.2025' must read like 2025-01-31"),
        ({"date": "2025-02-30"}, r"date='2025-02-30' must read like"),
        ({"date": None}, r"date=None must read like"),
        ({"licence": " "}, r"licence=' ' must be some words"),
        ({"name": ""}, r"name='' must be some words"),
        ({"description": None}, r"description=None must be some words"),
        ({"data": 5}, r"data=5 must be some words"),
    ],
)
def test_unusable_words_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ABOUT, **changes)


def test_a_source_that_is_not_there_is_refused_before_anything_is_written(judged, tmp_path):
    with pytest.raises(InputError, match=r"source='nosuch.keras' cannot be read \(No such file"):
        package.write(tmp_path / "out", *judged, ABOUT, source="nosuch.keras")
    assert not (tmp_path / "out").exists()


def test_a_package_needs_neither_a_source_nor_limits(judged, tmp_path):
    folder = package.write(tmp_path / "out", *judged, dataclasses.replace(ABOUT, limits=()))
    assert package.verify(folder)["provenance"]["source_sha256"] is None
    limits = (folder / "MODEL_CARD.md").read_text().split("## Known limits")[1]
    assert limits.count("\n- ") == 2 and "judged on" in limits and "one thread" in limits


# --- on the device


def test_a_single_changed_byte_is_noticed(folder):
    blob = bytearray((folder / "model.tflite").read_bytes())
    blob[len(blob) // 2] ^= 1
    (folder / "model.tflite").write_bytes(blob)
    with pytest.raises(InputError, match=r"model.tflite has another SHA-256 than manifest.json says"):
        package.verify(folder)


def test_a_download_that_broke_off_is_noticed(folder):
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes()[:-7])
    with pytest.raises(InputError, match=r"model.tflite has [\d,]+ bytes instead of [\d,]+: fetch it again"):
        package.verify(folder)


@pytest.mark.parametrize(
    "installed, newer", [("1.1", True), ("1.2", False), ("1.2.0", False), ("1.10", False), (None, True)]
)
def test_only_a_newer_version_is_installed(folder, installed, newer):
    if newer:
        assert package.verify(folder, installed)["version"] == "1.2.0"
    else:
        with pytest.raises(InputError, match=f"version 1.2.0 is not newer than {installed}"):
            package.verify(folder, installed)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": 2}, "has format 2, this version knows 1: update the installer"),
        ({"file": "../../etc/passwd"}, "names the file '../../etc/passwd': it must be model.tflite"),
        ({"version": 3}, "version=3 must be numbers with dots"),
    ],
)
def test_a_manifest_that_asks_for_something_else_is_refused(folder, changes, message):
    spoil(folder, **changes)
    with pytest.raises(InputError, match=message):
        package.verify(folder, "1.0")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"format": 1, "version": "1", "model": 3}'])
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.json is damaged \(\w+\): fetch the package again"):
        package.verify(folder)


@pytest.mark.parametrize("missing", ["manifest.json", "model.tflite"])
def test_an_incomplete_package_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        package.verify(folder)


def test_a_package_that_was_interrupted_does_not_verify(judged, folder, monkeypatch):
    """The former version's manifest is gone before the new model is there."""
    real = repository.write

    def full_disk(path, content):
        if path.name == "MODEL_CARD.md":
            raise OutputError("no space")
        return real(path, content)

    monkeypatch.setattr(repository, "write", full_disk)
    with pytest.raises(OutputError):
        package.write(folder, *judged, dataclasses.replace(ABOUT, version="1.3.0"))
    with pytest.raises(InputError, match=r"manifest.json cannot be read"):
        package.verify(folder)


def test_a_copied_package_verifies_elsewhere(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "device")
    assert package.verify(tmp_path / "device") == package.verify(folder)
