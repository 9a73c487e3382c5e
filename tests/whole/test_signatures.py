"""Every command that takes a file, on files of several signatures: the one that is named is used, and none without a name."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base.errors import InputError
from helpers.compress import own_model, sensitivity
from helpers.deploy import gate
from helpers.networks import checkpoints
from helpers.tflite import litert, rewrite
from tests.several_signatures import PICTURES, VECTORS, converted

SAMPLES = {"see": PICTURES, "weigh": VECTORS}
QUICK = ("--no-speed",)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a file of two signatures, one that differs in the second of them, a SavedModel, and samples with labels."""
    folder = tmp_path_factory.mktemp("shelf")
    names = ("see", "weigh")
    (folder / "both.tflite").write_bytes(converted(folder / "saved", *names))
    (folder / "other.tflite").write_bytes(converted(folder / "other", *names, scale=1.5))
    for name, x in SAMPLES.items():
        file = rewrite.one_signature(folder / "both.tflite", name)
        (folder / f"{name}.tflite").write_bytes(file)
        found = litert.run(file, {"x": x})
        labels = {"y": found["kind"].argmax(axis=1)} if name == "see" else {f"y_{key}": of for key, of in found.items()}
        np.savez(folder / f"{name}.npz", x=x, **labels)
    return folder


def run(shelf, command, *words):
    """A command on files of the shelf."""
    words = [str(shelf / word) if (shelf / word).exists() else word for word in words]
    return CliRunner().invoke(main, [command, *words])


# --- the gate


@pytest.mark.parametrize("baseline", ["both.tflite", "{}.tflite"])
@pytest.mark.parametrize("name, code", [("see", 0), ("weigh", 1)])
def test_the_gate_judges_the_signature_that_is_named(shelf, tmp_path, name, code, baseline):
    """The candidate differs in one of its two functions."""
    report = tmp_path / "report.json"
    words = ["other.tflite", "--baseline", baseline.format(name), "--data", f"{name}.npz", *QUICK]
    done = run(shelf, "gate", *words, "--signature", name, "--report", str(report))
    assert done.exit_code == code, done.output
    told = json.loads(report.read_text())
    assert told["candidate"]["signature"] == name and told["candidate"]["bytes"] == len(
        (shelf / "other.tflite").read_bytes()
    )
    assert told["baseline"].get("signature") == (name if baseline == "both.tflite" else None)
    if name == "weigh":  # 1 - (0.5 y)² / variance of y, of what is 0 or more
        y = np.load(shelf / "weigh.npz")["y_wide"]
        wanted = (1 - (0.5 * y) ** 2 / y.var(axis=0)).mean()
        assert told["measured"]["r2.wide.candidate"]["value"] == pytest.approx(wanted, abs=1e-3)
        assert told["measured"]["r2.sum.candidate"]["value"] == pytest.approx(1, abs=1e-6)


def test_a_candidate_of_one_signature_is_judged_against_a_baseline_of_several(shelf):
    words = ("see.tflite", "--baseline", "both.tflite", *QUICK)
    refused = run(shelf, "gate", *words, "--data", "see.npz")
    assert refused.exit_code == 3 and "baseline cannot be judged against: it has 2 signatures" in refused.output
    assert run(shelf, "gate", *words, "--data", "see.npz", "--signature", "see").exit_code == 0
    other = run(shelf, "gate", *words, "--data", "weigh.npz", "--signature", "weigh")
    assert other.exit_code == 1 and "it has no signature weigh: its only one is see" in other.output


def test_a_signature_of_another_name_in_the_candidate(shelf, tmp_path):
    renamed = (shelf / "see.tflite").read_bytes().replace(b"\3\0\0\0see\0", b"\3\0\0\0run\0")
    (tmp_path / "run.tflite").write_bytes(renamed)
    files = [str(tmp_path / "run.tflite"), str(shelf / "both.tflite")]
    for (candidate, baseline), named, code in ((files, "see=run", 1), (files[::-1], "run=see", 3)):
        words = (candidate, "--baseline", baseline, "--data", "see.npz", *QUICK)
        refused = run(shelf, "gate", *words, "--signature", "see")
        told = re.sub(r"[\s│]+", " ", refused.output)
        assert refused.exit_code == code and "say --signature BASELINE=CANDIDATE, its name in either" in told, told
        report = tmp_path / "report.json"
        assert run(shelf, "gate", *words, "--signature", named, "--report", str(report)).exit_code == 0
        of = candidate if code == 3 else baseline
        told = json.loads(report.read_text())["candidate" if of == candidate else "baseline"]
        assert of == files[1] and told["signature"] == "see"


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["both.tflite", "--baseline", "see.tflite"], 1, r"it has 2 signatures \(see, weigh\): name one, as in "),
        (
            ["both.tflite", "--baseline", "both.tflite", "--signature", "hear"],
            3,
            r"against: it has no signature hear: ",
        ),
        (["see.npz", "--baseline", "both.tflite", "--signature", "see"], 1, "it is no .tflite file"),
    ],
)
def test_the_gate_says_what_is_wrong_with_a_name(shelf, words, code, told):
    done = run(shelf, "gate", *words, "--data", "see.npz", *QUICK)
    assert done.exit_code == code
    assert re.search(told, re.sub(r"[\s│]+", " ", done.output)), done.output


def test_a_damaged_candidate_is_cut_in_a_process_of_its_own(shelf, monkeypatch):
    both = (shelf / "both.tflite").read_bytes()
    asked, real = [], gate.runner.run
    monkeypatch.setattr(gate.runner, "run", lambda job, folder: asked.append(job["task"]) or real(job, folder))
    random = np.random.default_rng(0)
    for _ in range(10):
        blob = bytearray(both)
        for place in random.integers(8, len(blob), 40):
            blob[place] = random.integers(256)
        decision = gate.judge(bytes(blob), both, VECTORS, signature="weigh", speed=False)
        assert decision.outcome in gate.EXIT_CODES
    assert asked.count("alone") == 20


# --- the others


def without_a_name(done):
    """The name that a refusal proposes."""
    assert done.exit_code == 2, done.output
    told = "".join(done.output.split("Error: ")[-1].splitlines())
    assert "it has 2 signatures (see, weigh): name one" in told, done.output
    return shlex.split(told.rpartition("--signature ")[2].rstrip("."))[0]


@pytest.mark.parametrize("model", ["both.tflite", "saved"])
def test_sensitivity_is_that_of_the_signature_that_is_named(shelf, tmp_path, model):
    words = ["--calibration", "see.npz", "--output", str(tmp_path)]
    assert without_a_name(run(shelf, "sensitivity", model, *words)) == "see"
    for name, layers in (("see", 2), ("weigh", 1)):
        table = tmp_path / f"{name}.csv"
        np.savez(tmp_path / "x.npz", x=SAMPLES[name])
        words = [model, "--calibration", str(tmp_path / "x.npz"), "--output", str(tmp_path), "--signature", name]
        done = run(shelf, "sensitivity", *words, "--csv", str(table))
        assert done.exit_code == 0, done.output
        alone = sensitivity.sweep(rewrite.one_signature(shelf / "both.tflite", name), *[SAMPLES[name]] * 2)
        found = pd.read_csv(table, keep_default_na=False)
        assert (found["mode"] == "alone").sum() == layers == (alone["mode"] == "alone").sum()
        np.testing.assert_allclose(found["sqnr_db"].astype(float), alone["sqnr_db"], atol=0.5)


@pytest.mark.parametrize("model", ["both.tflite", "saved"])
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_convert_makes_a_file_of_the_signature_that_is_named(shelf, tmp_path, model, recipe):
    output = tmp_path / "made.tflite"
    words = [model, "--recipe", recipe, "--calibration", "see.npz", "--output", str(output)]
    assert without_a_name(run(shelf, "convert", *words)) == "see" and not output.exists()
    done = run(shelf, "convert", *words, "--signature", "see")
    assert done.exit_code == 0, done.output
    [found], [wanted] = (litert.run(each, {"x": PICTURES}).values() for each in (output, shelf / "see.tflite"))
    assert np.abs(found - wanted).max() < (0.05 if recipe == "int8" else 1e-5) * np.abs(wanted).max()


def test_train_and_measure_take_the_signature_that_is_named(shelf, tmp_path):
    output = tmp_path / "trained.tflite"
    words = ["both.tflite", "--data", "see.npz", "--steps", "2", "--output", str(output)]
    assert without_a_name(run(shelf, "train", *words)) == "see"
    done = run(shelf, "train", *words, "--signature", "see")
    assert output.exists(), done.output
    assert list(litert.run(output, {"x": PICTURES})) == ["kind"]
    words = ["both.tflite", str(output), "--rounds", "6"]
    assert without_a_name(run(shelf, "measure", *words)) == "see"
    done = run(shelf, "measure", *words, "--signature", "see", "--csv", str(tmp_path / "table.csv"))
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["size"]) == [len(path.read_bytes()) for path in (shelf / "both.tflite", output)]


def test_a_keras_file_has_no_signature_to_be_named():
    path = checkpoints.path("cnn_fashion_28")
    with pytest.raises(InputError, match=r"is a Keras file, which has no signatures: leave signature='see' out\."):
        own_model.load(path, signature="see")
    assert own_model.load(path).outputs
