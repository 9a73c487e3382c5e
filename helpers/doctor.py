"""Is this machine fit for the lab? One check a line, each with what was found and, if wrong, the cure."""

import importlib.util
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata

import numpy as np
import pandas as pd
import psutil
from packaging.requirements import Requirement

from helpers.base import extras, repository, runtime_env
from helpers.base.errors import first_line
from helpers.networks import data
from helpers.targets import known

PACKAGE = "compression-lab"
LOCK = repository.REPOSITORY / "requirements.txt"
LEAST_RIGHT = 0.5  # of ten classes; the file is right for 85%
WITHOUT_KERAS = repository.REPOSITORY / "checkpoints" / "pytorch_fashion_28.tflite"
ANEW = f"`pip install --force-reinstall {PACKAGE}`" if repository.INSTALLED else "delete .venv, then `make run`"
OLDEST, NEWEST = (3, 11), (3, 13)
CORES, MEMORY_GB, DISK_GB = 2, 4, 2
SMOKE_SAMPLES = 32
# Largest difference from the Keras model's outputs, as a share of the largest output.
SMOKE_LIMITS = {"float32": 1e-4, "int8": 0.1}
X86, ARM = ("x86_64", "amd64", "i686"), ("aarch64", "arm64")
# Feature -> the machines that may have it, and what it means when one does not.
FEATURES = {
    "AVX2": (X86, "trained numbers may differ from the recorded ones"),
    "AVX-512": (X86, "vectors of 256 bits at most: latencies are longer than with 512"),
    "VNNI": (X86, "no instruction for int8 dot products: int8 gains less speed, or none"),
    "NEON dot product": (ARM, "no instruction for int8 dot products: int8 gains less speed, or none"),
}


@dataclass(frozen=True)
class Check:
    """One line of the report; `cure` says what to do if it is not ok, or what to expect if it is."""

    name: str
    ok: bool
    found: str
    cure: str = ""


def checks():
    """Every check, in order. Takes about 6 seconds, most of them for loading TensorFlow in the smoke test."""
    return [python_version(), packages(), *processor(), *resources(), *data_sets(), *targets(), smoke_test()]


def table():
    """The checks as a frame indexed by their names: ok (bool), found, cure (text)."""
    return pd.DataFrame(map(asdict, checks())).set_index("name")


def python_version(version=None):
    """Is Python one that the lock was resolved for? version: (major, minor, ...)."""
    version = version or sys.version_info
    ok = OLDEST <= tuple(version[:2]) <= NEWEST
    supported = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    return Check(
        "Python",
        ok,
        ".".join(map(str, version[:3])),
        "" if ok else f"install Python {supported}, delete .venv, then `make run PYTHON=python3.12`",
    )


def packages(lock=None):
    """Are the installed packages those that the lock pins for this Python and system? Without a repository around it: those that
    the package asks for."""
    if lock is None and repository.INSTALLED:
        return required()
    lock = lock or LOCK
    try:
        lines = lock.read_text().splitlines()
    except OSError as error:
        found = f"{lock.name} cannot be read ({error.strerror})"
        return Check("packages", False, found, "clone the repository again")
    pins = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    wrong = []
    for pin in pins:
        try:
            installed = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed not in pin.specifier:
            wrong.append(f"{pin.name} {installed} (pinned {str(pin.specifier).lstrip('=')})")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        cure = f"`pip install --require-hashes -r {lock.name}`"
        return Check("packages", False, ", ".join(wrong[:3]) + more, cure)
    versions = runtime_env.versions()
    decisive = ", ".join(f"{name} {versions[name]}" for name in runtime_env.PACKAGES)
    return Check("packages", True, f"all {len(pins)} as pinned, among them {decisive}")


def required(name=PACKAGE):
    """Has the installed package what it asks for, and which of its extras are whole?"""
    asked = [Requirement(text) for text in metadata.requires(name) or ()]

    def lacks(extra):
        own = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
        nested = [inner for each in own if each.name == name for inner in each.extras]
        return [str(each) for each in own if not _fits(each)] + [text for inner in nested for text in lacks(inner)]

    if wrong := lacks(""):
        return Check("packages", False, f"not as needed: {', '.join(wrong)}", f"`pip install --upgrade {name}`")
    whole = [extra for extra in extras.MODULES if not lacks(extra)]
    cures = [f'{use}: pip install "{name}[{extra}]"' for extra, use in extras.USES.items() if extra not in whole]
    found = f"{name} {metadata.version(name)}, extras: {', '.join(whole) or 'none'}"
    return Check("packages", True, found, "; ".join(cures))


def _fits(requirement):
    try:
        return metadata.version(requirement.name) in requirement.specifier
    except metadata.PackageNotFoundError:
        return False


def processor():
    """The processor's name, and the features that make int8 fast. For information: never wrong."""
    machine = platform.machine().lower()
    features = runtime_env.cpu()["features"]
    found = [Check("CPU", True, f"{runtime_env.cpu()['name']} ({machine})")]
    for feature, (machines, meaning) in FEATURES.items():
        if machine in machines:
            answer = ("yes", "") if feature in features else ("not reported", meaning)
            found.append(Check(f"CPU: {feature}", True, *answer))
    return found


def resources():
    """Cores, free memory and free disk space (GB, of 10^9 bytes), each against what the notebooks need."""
    cores = psutil.cpu_count() or 1
    memory = psutil.virtual_memory().available / 1e9
    folder = repository.output_root().absolute()
    while not folder.is_dir():
        folder = folder.parent
    disk = psutil.disk_usage(os.fspath(folder)).free / 1e9
    return [
        _at_least("cores", cores, CORES, f"{cores}", "the notebooks run, but take longer than they say"),
        _at_least(
            "free memory", memory, MEMORY_GB, f"{memory:.1f} GB", f"close other programs: {MEMORY_GB} GB are needed"
        ),
        _at_least(
            "free disk",
            disk,
            DISK_GB,
            f"{disk:.1f} GB",
            f"free {DISK_GB} GB, or name another folder in ${repository.OUTPUT_VARIABLE}",
        ),
    ]


def data_sets():
    """Where each data set would come from. For information: one not at hand is fetched when asked for."""
    return [Check(f"data set {name}", True, where) for name, where in data.available().items()]


def targets():
    """What else can be measured on. For information."""
    return [Check(f"target {name}", True, told) for name, _, told in known.listed()]


def smoke_test():
    """Convert an untrained MLP to float32 and int8, run it on some images, and compare with Keras. Without TensorFlow: does a file that
    PyTorch made get most of them right?"""
    start = time.monotonic()
    try:
        if importlib.util.find_spec("tensorflow") is None:
            right = _without_tensorflow()
            found = f"without TensorFlow; a .tflite is right for {right.sum()} of {len(right)} images"
            ok = bool(right.mean() > LEAST_RIGHT)
            return Check("smoke test", ok, found, "" if ok else ANEW)
        differences = _differences()
    except Exception as error:  # whatever goes wrong in there is what the doctor is to report
        return Check("smoke test", False, f"{type(error).__name__}: {first_line(error)}", ANEW)
    ok = all(difference <= SMOKE_LIMITS[recipe] for recipe, difference in differences.items())
    found = ", ".join(f"{recipe} differs by {difference:.1g}" for recipe, difference in differences.items())
    return Check(
        "smoke test",
        ok,
        f"{found} of the largest output; {time.monotonic() - start:.0f} s",
        "" if ok else f"{ANEW}; if it persists, report it with this table",
    )


def _differences():
    """By recipe: the largest difference of the outputs, as a share of the largest output."""
    from helpers.compress import quantize
    from helpers.networks import models
    from helpers.tflite import litert

    x, model = data.unit_rows(_images().x_test[:SMOKE_SAMPLES]), models.mlp()
    expected = model(x).numpy()
    outputs = {recipe: litert.predict(quantize.convert(model, recipe, calibration=x), x) for recipe in SMOKE_LIMITS}
    return {recipe: float(np.abs(each - expected).max() / np.abs(expected).max()) for recipe, each in outputs.items()}


def _without_tensorflow():
    """Which images a `.tflite` that PyTorch made gets right: bool (SMOKE_SAMPLES,)."""
    from helpers.tflite import measure

    images = _images()
    x = (images.x_test[:SMOKE_SAMPLES, None] / 127.5 - 1).astype("float32")
    return measure.correct(WITHOUT_KERAS.read_bytes(), x, images.y_test[:SMOKE_SAMPLES])


def _images():
    return data.load("fashion8k")


def _at_least(name, value, least, found, cure):
    return Check(name, value >= least, found, "" if value >= least else cure)
