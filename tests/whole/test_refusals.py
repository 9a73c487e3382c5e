"""Whatever wrong file a command is given, it answers in one sentence, with the exit code of a refusal, and no traceback."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base.errors import LabError

REFUSED, NOT_JUDGED = 2, 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Wrong files of many kinds, by name: {name} in a command's words becomes the path."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty.tflite").touch()
    (folder / "text.tflite").write_text("no model at all")
    (folder / "cut.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\x00" * 40)
    (folder / "text.keras").write_text("no model at all")
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    (folder / "text.npz").write_text("no arrays")
    (folder / "policy.yaml").write_text("max_dorp: 0.02\n")
    (folder / "broken.yaml").write_text("a: [1\n")
    (folder / "broken.ipynb").write_text("{")
    np.savez(folder / "labels.npz", y=np.zeros(3, int))
    np.savez(folder / "good.npz", x=np.zeros((3, 4), "float32"), y=np.zeros(3, int))
    (folder / "folder").mkdir()
    names = {path.name: str(path) for path in folder.iterdir()}
    return {**names, "missing": str(folder / "missing.tflite"), "missing.npz": str(folder / "missing.npz")}


@pytest.mark.parametrize(
    "words, code, told",
    [
        ("measure {missing}", REFUSED, "cannot be read"),
        ("measure {empty.tflite}", REFUSED, "is empty"),
        ("measure {text.tflite}", REFUSED, "is not a TFLite model"),
        ("measure {cut.tflite}", REFUSED, "cut.tflite"),
        ("measure {folder}", REFUSED, "cannot be read"),
        ("measure {text.tflite} --data {text.npz}", REFUSED, "cannot be read"),
        ("measure {text.tflite} --target http://host", REFUSED, "name ssh://"),
        ("gate {missing} --baseline {text.tflite} --data {good.npz}", NOT_JUDGED, "cannot be read"),
        ("gate {text.tflite} --baseline {text.tflite} --data {good.npz}", NOT_JUDGED, "baseline"),
        ("gate {text.tflite} --baseline {text.tflite} --data {missing.npz}", NOT_JUDGED, "cannot be read"),
        ("gate {text.tflite} --baseline {text.tflite} --data {labels.npz}", NOT_JUDGED, "holds no samples"),
        (
            "gate {text.tflite} --baseline {text.tflite} --data {good.npz} --policy {policy.yaml}",
            NOT_JUDGED,
            "max_dorp",
        ),
        (
            "gate {text.tflite} --baseline {text.tflite} --data {good.npz} --policy {broken.yaml}",
            NOT_JUDGED,
            "cannot be read",
        ),
        ("gate {text.tflite} --baseline {text.tflite} --data {good.npz} --limit max_dorp=1", NOT_JUDGED, "max_dorp"),
        ("gate {text.tflite} --baseline {text.tflite} --data {good.npz} --report {folder}", NOT_JUDGED, "--report"),
        ("sensitivity {text.keras} --calibration {good.npz}", REFUSED, "cannot be loaded"),
        ("sensitivity {model.onnx} --calibration {good.npz}", REFUSED, "ends in .onnx"),
        ("sensitivity {text.tflite} --calibration {good.npz}", REFUSED, "is not a TFLite model"),
        ("sensitivity {text.tflite} --calibration {missing.npz}", REFUSED, "cannot be read"),
        ("sensitivity {folder} --calibration {good.npz}", REFUSED, "saved_model.pb"),
        ("search {text.keras} --calibration {good.npz} --budget 60%", REFUSED, "cannot be loaded"),
        ("search {text.tflite} --calibration {good.npz} --budget 60%", REFUSED, "is not a TFLite model"),
        ("search {text.tflite} --calibration {missing.npz} --budget 60%", REFUSED, "cannot be read"),
        ("search {text.tflite} --calibration {good.npz} --budget half", REFUSED, "must read like 60%"),
        ("prune-channels {text.keras} --ratio 0.5", REFUSED, "cannot be loaded"),
        ("prune-channels {text.tflite} --ratio 0.5", REFUSED, "is not a TFLite model"),
        ("prune-channels {text.keras} --ratio 0.5 --output narrow.h5", REFUSED, "must be a .keras file"),
        ("convert {missing}", REFUSED, "does not exist"),
        ("convert {text.keras}", REFUSED, "cannot be loaded"),
        ("convert {folder}", REFUSED, "saved_model.pb"),
        ("convert {text.keras} --recipe int4", REFUSED, "recipe='int4' is unknown: choose one of float32"),
        ("convert {text.keras} --output model.onnx", REFUSED, "must end in .tflite"),
        ("convert {text.tflite} --output {text.tflite}", REFUSED, "is the model itself"),
        ("train {missing} --data {text.npz}", REFUSED, "does not exist"),
        ("train {text.keras} --data {text.npz}", REFUSED, "cannot be loaded"),
        ("train {text.keras} --data {text.npz} --output model.onnx", REFUSED, "must end in .tflite"),
        ("train {text.keras} --data {text.npz} --teacher me", REFUSED, "teacher='me' must be self or labels"),
        ("rescue {missing} --calibration {good.npz}", REFUSED, "does not exist"),
        ("rescue {text.keras} --calibration {good.npz}", REFUSED, "cannot be loaded"),
        ("rescue {text.keras} --calibration {good.npz} --output model.onnx", REFUSED, "must end in .tflite"),
        ("rescue {text.keras} --calibration {good.npz} --without equalised", REFUSED, "is no step: choose of cleared"),
        ("rescue {text.keras} --calibration {good.npz} --limit 2", REFUSED, "limit=2.0 must be a share"),
        ("convert {text.keras} --code {missing}", REFUSED, "cannot be read"),
        (
            "prune-channels {text.keras} --ratio 0.5 --criterion activation --calibration {text.npz}",
            REFUSED,
            "cannot be read",
        ),
        ("tour --only nosuch", REFUSED, "is not one of"),
        ("tour --only 01 --profile {broken.yaml}", REFUSED, "broken.yaml"),
        ("tour --only 01 -p nosuch 1", REFUSED, "'nosuch' is unknown"),
        ("record nosuch", REFUSED, "is not one of"),
        ("record --profile nosuch", REFUSED, "profile='nosuch' is unknown"),
        ("sweep nosuch --grid a=1", REFUSED, "is not one of"),
        ("sweep {broken.ipynb} --grid a=1", REFUSED, "broken.ipynb"),
        ("sweep 01 --grid nosuch=1", REFUSED, "nosuch"),
        ("sweep 01 --grid epochs", REFUSED, "must read name=value"),
        ("exercises nosuch", REFUSED, "has no solutions"),
        ("checkpoint nosuch", REFUSED, "has no recipe"),
        ("quiz --gain {missing}", REFUSED, "give a CSV file"),
        ("quiz --gain {good.npz}", REFUSED, "answers="),
    ],
)
def test_a_wrong_file_gets_a_sentence(files, words, code, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [files.get(word.strip("{}"), word) if word.startswith("{") else word for word in words.split()]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == code, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    last = done.output.strip().splitlines()[-1]
    assert last.startswith("Error: ") and told in last and "Traceback" not in done.output


def test_every_command_that_takes_a_file_was_walked():
    walked = {mark.split()[0] for mark, *_ in test_a_wrong_file_gets_a_sentence.pytestmark[0].args[1]}
    assert walked | {"doctor", "site", "target"} == set(main.commands)


def test_a_defect_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr("helpers.tflite.measure.report", broken)
    done = CliRunner().invoke(main, ["measure", "x.tflite"])
    assert isinstance(done.exception, KeyError) and not isinstance(done.exception, LabError)
    assert json.dumps(done.output) == '""'
