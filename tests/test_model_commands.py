"""The tables of the commands on models: legible for people, and whole for machines."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.networks import models
from helpers.options import pairs, told_apart


@pytest.mark.parametrize(
    "paths, told",
    [
        (["/long/way/a/model.tflite", "/long/way/b/model.tflite"], ["a/model.tflite", "b/model.tflite"]),
        (["/long/way/small.tflite", "/long/way/large.tflite"], ["small.tflite", "large.tflite"]),
        (["model.tflite"], ["model.tflite"]),
        (["/long/model.tflite"], ["model.tflite"]),
        (["a.tflite", "deep/er/a.tflite"], ["a.tflite", "deep/er/a.tflite"]),
    ],
)
def test_paths_are_shortened_until_only_what_differs_is_left(paths, told):
    assert list(told_apart(paths).values()) == told


@pytest.mark.parametrize(
    "texts, found",
    [
        ([], None),
        (["binary"], "binary"),
        (["binary:threshold=0.3"], "binary:threshold=0.3"),
        (["detection:xywh,threshold=2"], "detection:xywh,threshold=2"),
        (["kind=binary:threshold=0.3"], {"kind": "binary:threshold=0.3"}),
        (["Call:0=detection:xywh"], {"Call:0": "detection:xywh"}),
        (["Call:0=a", "Call:1=b:0"], {"Call:0": "a", "Call:1": "b:0"}),
    ],
)
def test_a_value_may_be_given_to_a_name_and_the_name_may_hold_a_colon(texts, found):
    assert pairs(texts, "task") == found


@pytest.mark.parametrize("texts", [["kind=binary", "regression"], ["kind=binary", "kind=regression"]])
def test_of_several_values_each_has_a_name_of_its_own(texts):
    with pytest.raises(InputError, match=r"of several each must read NAME=TASK, each name once\.$"):
        pairs(texts, "task")


def test_measure_tells_its_models_apart_and_writes_its_table(tmp_path):
    words = []
    for version in ("first", "second"):
        folder = tmp_path / ("a_folder_with_a_very_long_name_" * 4) / f"{version}_try"
        folder.mkdir(parents=True)
        (folder / "model.tflite").write_bytes(quantize.convert(models.mlp((8,), 12, 3)))
        words.append(str(folder / "model.tflite"))
    tables = ["--csv", str(tmp_path / "table.csv"), "--json", str(tmp_path / "table.json")]
    done = CliRunner().invoke(main, ["measure", *words, "--rounds", "6", *tables])
    assert done.exit_code == 0, done.output
    shown = "".join(line.split("│")[1].strip() for line in done.output.splitlines() if line.startswith("│"))
    assert "first_try/model.tflite" in shown and "second_try/model.tflite" in shown
    frame = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert list(frame.index) == words and {"size", "ratio", "low", "high", "memory"} <= set(frame.columns)
    read = json.loads((tmp_path / "table.json").read_text())
    assert read[words[1]]["size"] == frame["size"].iloc[1] and np.isfinite(read[words[0]]["memory"])


def test_a_table_of_no_comparison_is_refused_before_any_work(tmp_path):
    (tmp_path / "model.tflite").write_bytes(quantize.convert(models.mlp((8,), 12, 3)))
    words = ["convert", str(tmp_path / "model.tflite"), "--recipe", "float32", "--output", str(tmp_path / "o.tflite")]
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(main, [*words, "--csv", str(table)])
    assert done.exit_code and "give --calibration data.npz as well" in done.output
    assert not table.exists() and not (tmp_path / "o.tflite").exists()
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(8, 12)).astype("float32"))
    done = CliRunner().invoke(main, [*words, "--calibration", str(tmp_path / "data.npz"), "--csv", str(table)])
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv(table)) == 1
