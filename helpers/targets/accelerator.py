"""LiteRT's GPU accelerator on this machine: on a GPU where Vulkan (on macOS Metal) has one, else on an adapter in software."""

import functools
import shutil
import sys
from dataclasses import dataclass

from helpers.base import repository
from helpers.base.errors import RunError
from helpers.targets import debian
from helpers.tflite import measure, runner

URL, IN_FLOAT32 = "gpu", "gpu:float32"
PREPARE = "`compression-lab target prepare gpu`"
# SwiftShader computes Vulkan on a CPU. Debian has it, with a loader, inside this package.
PACKAGE = "chromium-common"
LOADER, DRIVER, ADAPTER = "libvulkan.so.1", "vk_swiftshader_icd.json", "libvk_swiftshader.so"


@dataclass(frozen=True)
class Target:
    """gpu, or gpu:float32, where nothing is computed in float16. Raises RunError where neither a GPU nor the adapter in software is there."""

    url: str = URL

    samples = 64  # to answer, one at a time

    def __post_init__(self):
        if self.url not in (URL, IN_FLOAT32):
            raise RunError(f"target={self.url!r} is unknown: name {URL} or {IN_FLOAT32}.")
        if not adapters() and sys.platform != "darwin":  # Metal is asked by LiteRT alone
            raise RunError(
                f"target={self.url!r} finds no adapter: install the Vulkan driver of your GPU, with libvulkan1, or make an adapter in "
                f"software by {PREPARE}."
            )

    @property
    def measures(self):
        """What it tells beside answers: latency only of a GPU."""
        return frozenset(() if in_software() else {measure.LATENCY})

    def run_all(self, jobs, folder):
        """The answers to jobs for `runner`, run on the accelerator, one sample at a time; folder: holds the files that they name."""
        return [self._run(job, folder) for job in jobs]

    def _run(self, job, folder):
        answer = runner.run({**job, "accelerator": self.url}, folder, variables=_variables())
        if job["task"] == "machine" and "error" not in answer:
            return {**answer, "gpu": told(answer.pop("adapters")) or "not told"}
        return answer


def folder():
    """Where the adapter in software is, or would be."""
    return repository.cache_folder() / "gpu"


def prepare(tell=print):
    """Fetch the adapter in software. tell: is given a sentence for each step. 32 MB are fetched, 6 MB kept.

    Raises RunError, with the cure, where there is no apt, or it fails, or the package does not hold it.
    """
    with repository.alone(folder()):
        if not _prepared():
            _make(folder(), tell)
    adapters.cache_clear()
    _variables.cache_clear()
    tell(f"Ready: {URL}, on {', '.join(name for name, _ in adapters()) or 'no adapter'}.")


def _make(place, tell):
    tell("Debian's package that holds SwiftShader …")
    packages = debian.fetch([PACKAGE], place / "apt", PREPARE, dependencies=False)
    debian.unpack(packages, place / "unpacked", PREPARE)
    for name in (LOADER, ADAPTER, DRIVER):  # the driver's file last: it says that all are there
        found = sorted((place / "unpacked").rglob(name))
        if not found:
            raise RunError(
                f"Debian's {PACKAGE} holds no {name}: install mesa-vulkan-drivers or your GPU's driver instead."
            )
        repository.write(place / name, found[0].read_bytes())
    for part in ("unpacked", "apt"):
        shutil.rmtree(place / part, ignore_errors=True)


@functools.cache
def adapters():
    """What the accelerator can choose from: a list of [name, kind], of `accelerated.KINDS`."""
    return _asked(_variables())


def told(found=None):
    """Adapters in words; default: those that it can choose from."""
    return ", ".join(f"{name} ({kind})" for name, kind in (adapters() if found is None else found))


def in_software():
    """Whether there is an adapter, and none is a GPU."""
    return bool(adapters()) and all(kind == "software" for _, kind in adapters())


@functools.cache
def _variables():
    """Of the environment: none where Vulkan finds an adapter by itself."""
    if not _prepared() or _asked({}):
        return {}
    driver = str(folder() / DRIVER)
    return {"LD_LIBRARY_PATH": str(folder()), "VK_DRIVER_FILES": driver, "VK_ICD_FILENAMES": driver}


def _asked(variables):
    return runner.run({"task": "machine", "accelerator": URL}, variables=variables).get("adapters", [])


def _prepared():
    return all((folder() / name).is_file() for name in (LOADER, ADAPTER, DRIVER))
