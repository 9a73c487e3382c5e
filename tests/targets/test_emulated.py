"""ARM under emulation: the answers of real kernels, instructions that are counted right, and all that can be missing."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base.errors import InputError, RunError
from helpers.compress import quantize
from helpers.deploy import gate, policy
from helpers.networks import models
from helpers.targets import arm64, emulated, known
from helpers.tflite import measure

layers = tf.keras.layers
X = np.random.default_rng(0).random((20, 64)).astype("float32")
A53, A76 = "qemu://cortex-a53", "qemu://cortex-a76"


def dense(number):
    """So many equal layers of 256 x 256 between two small ones."""
    tf.keras.utils.set_random_seed(0)
    sizes = [256] * (number + 1)
    return tf.keras.Sequential([layers.Input((64,)), *(layers.Dense(each, "relu") for each in sizes), layers.Dense(5)])


@pytest.fixture(scope="module")
def files():
    model = dense(2)
    return {
        recipe: quantize.convert(model, recipe, X if "int8" in recipe else None)
        for recipe in ("float32", "int8", "full_int8")
    }


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Leaves on the path what is named, and scripts in the place of others."""

    def put(*names, **scripts):
        place = tmp_path / "bin"
        place.mkdir(exist_ok=True)
        for name in names:
            (place / name).symlink_to(shutil.which(name))
        for name, script in scripts.items():
            (place / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
            (place / name.replace("_", "-")).chmod(0o755)
        monkeypatch.setenv("PATH", str(place))

    return put


@pytest.fixture
def root(arm, tmp_path, monkeypatch):
    """A copy of the root's state that a test may break, in a cache of its own; what was fetched is shared."""
    place = arm64.folder()
    monkeypatch.setenv("COMPRESSION_LAB_CACHE", str(tmp_path / "cache"))
    arm64.folder().mkdir(parents=True)
    for path in place.iterdir():
        target = arm64.folder() / path.name
        if path.is_dir() and path.name not in arm64.PROCESSORS:
            target.symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copy(path, target)
    return arm64.folder()


def test_kernels_of_arm_answer_as_those_here(arm, files):
    frame, machine = measure.report(files, "float32", X, target=known.opened(A76))
    assert list(frame.same) == [1.0] * 3 and frame.bit_equal["int8"] == frame.bit_equal["full_int8"] == 1.0
    assert frame.difference["float32"] < 1e-5
    assert machine["system"] == "Linux aarch64" and machine["cpu"] == "cortex-a76, emulated"
    assert not {"milliseconds", "ratio", "memory"} & set(frame)  # the emulator's own


def test_a_faithless_file_is_told_apart(arm, files):
    """The comparison can fail."""
    with measure.staged(files, {"input": X}) as (folder, names):
        here, there = (
            measure.runner.run(measure.prediction(names[name], show=20), folder) for name in ("float32", "int8")
        )
    same, equal, difference = measure.compared(here, there)
    assert same <= 1 and equal < 0.1 and difference > 1e-4


def counted(url, files):
    """Instructions of one inference, by name."""
    x = measure.random_samples(next(iter(files.values())), 1)
    with measure.staged(files, x) as (folder, names):
        jobs = measure.jobs(names, next(iter(names)), x, told={measure.INSTRUCTIONS})
        [answer] = known.opened(url).run_all(jobs, folder)
    return {name: float(np.median(each)) for name, each in answer["instructions"].items()}


def test_instructions_are_of_inferences_alone(arm):
    """Each further layer of 256 x 256 costs the same; a vector of four floats is multiplied and added by one instruction."""
    files = {str(number): quantize.convert(dense(number)) for number in (1, 2, 3)}
    counts = counted(A76, files)
    first, second = counts["2"] - counts["1"], counts["3"] - counts["2"]
    assert first == pytest.approx(second, rel=0.08)
    assert 256 * 256 / 4 < first < 256 * 256 / 4 * 3
    assert counted(A76, files) == pytest.approx(counts, rel=0.005)


def test_dot_products_save_instructions_where_a_processor_has_them(arm, files):
    counts = {url: counted(url, files) for url in (A53, A76)}
    ratio = {url: each["float32"] / each["full_int8"] for url, each in counts.items()}
    assert ratio[A76] > 1.5 * ratio[A53]


def test_kernels_are_chosen_by_the_processor_that_is_told(root):
    """LiteRT knows the A53 by its identification alone: another one with the same features takes other kernels."""
    network = quantize.convert(models.resnet8(16, 4))
    with_its_own = counted(A53, {"a": network})["a"]
    described = root / "cortex-a53" / "proc" / "cpuinfo"
    described.write_text(described.read_text().replace("0xd03", "0xd08"))
    assert counted(A53, {"a": network})["a"] < 0.9 * with_its_own


def test_several_inputs_and_an_error_of_the_file(arm):
    a, b = layers.Input((4,), name="b"), layers.Input((6,), name="a")
    model = tf.keras.Model([a, b], [layers.Dense(3)(layers.Concatenate()([a, b])), layers.Dense(2)(b)])
    x = {"b": X[:, :4], "a": X[:, 4:10]}
    frame, _ = measure.report({"one": quantize.convert(model)}, "one", x, target=known.opened(A76))
    assert frame.same["one"] == 1.0 and frame.difference["one"] < 1e-5
    with measure.staged({"broken": b"\x1c\0\0\0TFL3" + b"\0" * 64}, x) as (folder, names):
        [answer] = known.opened(A76).run_all([measure.prediction(names["broken"])], folder)
    assert answer["kind"] in ("refused", "crashed")


def test_the_gate_judges_by_what_the_target_tells(arm, files, tmp_path):
    decision = gate.judge(files["int8"], files["float32"], np.tile(X, (5, 1)), target=known.opened(A76))
    check = next(check for check in decision.checks if check.name == "answers on the target")
    assert check.outcome == "pass" and "64 of 64 are those given here, 64 to the" in check.because
    assert decision.measured["instruction_ratio"].value > 1 and "latency_ratio" not in decision.measured
    assert decision.machine["target"] == A76 and json.dumps(decision.as_dict())
    with pytest.raises(InputError, match="min_speedup=2 cannot be judged on qemu://cortex-a76, which tells no latency"):
        gate.judge(files["int8"], files["float32"], X, policy=policy.Policy(min_speedup=2), target=known.opened(A76))


def test_the_command(arm, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, file in files.items():
        (tmp_path / f"{name}.tflite").write_bytes(file)
    done = CliRunner().invoke(main, ["measure", "float32.tflite", "int8.tflite", "--target", A76, "--csv", "out.csv"])
    assert done.exit_code == 0 and "cortex-a76, emulated" in done.output, done.output
    assert (tmp_path / "out.csv").read_text().startswith("model,instructions,instruction_ratio,size")
    assert "qemu://processor" in CliRunner().invoke(main, ["target", "list"]).output


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("qemu://cortex-a9", "'qemu://cortex-a9' is unknown: choose one of qemu://cortex-a53, "),
        ("qemu://max", "is unknown: choose one of"),
        ("qemu://", "is unknown: choose one of"),
        ("arm", "'arm' is unknown: name ssh://user@host, qemu://cortex-a76 or gpu"),
        ("gpu://0", "is unknown: name gpu or gpu:float32"),
    ],
)
def test_an_unknown_name(url, told):
    with pytest.raises(RunError, match=told):
        known.opened(url)


def test_what_is_missing_is_named(tools):
    tools("apt-get", "dpkg") if shutil.which("apt-get") else pytest.skip("there is no apt here")
    with pytest.raises(RunError, match="`qemu-user` is missing: `sudo apt install qemu-user`"):
        known.opened(A53)
    with pytest.raises(RunError, match="`qemu-user` is missing"):
        arm64.prepare()
    assert ("qemu://processor", False) in [row[:2] for row in known.listed()]


def test_no_apt(tools):
    tools()
    with pytest.raises(RunError, match=r"there is no apt-get: .* use Debian or Ubuntu, or a container"):
        arm64.prepare()


def test_a_root_that_is_not_made_or_half(root):
    (root / "made").unlink()
    with pytest.raises(
        RunError, match=r"needs its ARM root, which is not made, .*: run `compression-lab target prepare arm64`"
    ):
        known.opened(A53)
    (root / "made").write_text("of another lock")
    with pytest.raises(RunError, match="or of another lock"):
        known.opened(A53)


def test_what_the_refusals_say_cures_them(root, monkeypatch):
    """A root of which half is gone; what was fetched before is taken."""
    for name in ("made", "root", "site"):
        (root / name).unlink()
    told = []
    arm64.prepare(told.append)
    assert told[-1].startswith("Ready: qemu://cortex-a53") and known.ready(A53)
    frame, _ = measure.report({"a": quantize.convert(dense(1))}, "a", X[:2], target=known.opened(A53))
    assert frame.same["a"] == 1


def test_a_step_that_fails_says_which(root, tools):
    (root / "made").unlink()
    tools("dpkg", "qemu-aarch64", apt_get="echo 'E: The repository has no Release file.' >&2; exit 100")
    with pytest.raises(
        RunError,
        match=r"lists of Debian's packages failed \(E: The repository has no Release file\): mend that and run",
    ):
        arm64.prepare()


def test_without_a_compiler_answers_are_compared(root, tools):
    (root / "counter.so").unlink()
    tools("apt-get", "dpkg", "qemu-aarch64")
    told = []
    arm64.prepare(told.append)
    assert "No C compiler: answers are compared, instructions not counted" in told[-1]
    frame, _ = measure.report({"a": quantize.convert(dense(1))}, "a", X[:2], target=known.opened(A53))
    assert list(frame) == ["size", "gzip", "same", "bit_equal", "difference"] and frame.same["a"] == 1


def test_an_emulator_that_crashes(root, tools):
    tools(qemu_aarch64="echo 'qemu: uncaught target signal 11 (Segmentation fault) - core dumped' >&2; exit 139")
    for name in ("apt-get", "dpkg"):
        os.symlink("/bin/true", os.path.join(os.environ["PATH"], name))
    with pytest.raises(RunError, match=r"qemu://cortex-a53: the emulator gave up on task .* is known to work"):
        measure.report({"a": quantize.convert(dense(1))}, "a", X[:2], target=emulated.Target(A53))


def test_an_emulator_without_plugins(root, files):
    (root / "counter.so").write_bytes(b"no library")
    with pytest.raises(RunError, match="qemu://cortex-a53"):
        measure.report({"a": files["float32"]}, "a", X[:2], target=known.opened(A53))
