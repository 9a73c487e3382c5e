"""An ARM root in the cache: Debian's Python for arm64 and LiteRT's locked wheels, unpacked without root's rights, for QEMU's emulation
of single programs (qemu-user)."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.base import repository
from helpers.base.errors import RunError
from helpers.targets import debian

EMULATOR = "qemu-aarch64"
TOOLS = {"apt-get": "apt", "dpkg": "dpkg", EMULATOR: "qemu-user"}  # command -> Debian's package that brings it
COMPILERS = ("cc", "gcc", "clang")
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # with all that they need
RUNTIME = "ai-edge-litert"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
VERSION = "1"  # of how the root is made
LOCK = repository.REPOSITORY / "requirements.txt"
COUNTER = Path(__file__).with_name("counter.c")
PREPARE = "`compression-lab target prepare arm64`"


@dataclass(frozen=True)
class Processor:
    """part, variant, revision: of ARM's identification register (MIDR), by which LiteRT's kernels choose."""

    part: int
    variant: int
    revision: int
    about: str


PROCESSORS = {
    "cortex-a53": Processor(0xD03, 0, 4, "2014, small cores of phones; no int8 dot product"),
    "cortex-a72": Processor(0xD08, 0, 3, "2016, Raspberry Pi 4; no int8 dot product"),
    "cortex-a76": Processor(0xD0B, 3, 1, "2018, phones and Raspberry Pi 5; int8 dot product"),
    "neoverse-n1": Processor(0xD0C, 4, 1, "2019, servers; int8 dot product"),
}


def folder():
    """Where the root is, or would be."""
    return repository.cache_folder() / "arm64"


def lacking():
    """What this machine lacks for making and using the root, a sentence; empty where nothing is missing."""
    if sys.platform != "linux":
        return "emulation of single programs needs Linux: use a virtual machine or a container, or a target over ssh"
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if "apt" in missing:
        return "there is no apt-get: the ARM root is made of Debian's packages, so use Debian or Ubuntu, or a container"
    return f"`{' '.join(missing)}` is missing: `sudo apt install {' '.join(missing)}`" if missing else ""


def prepared():
    """Whether the root is there, whole, and of this lock and this version of its making."""
    made = folder() / "made"
    return made.is_file() and made.read_text() == _identity()


def counter():
    """The compiled counter of instructions, or None."""
    found = folder() / "counter.so"
    return found if found.is_file() else None


def prepare(tell=print):
    """Make the root, step by step: what was fetched stays when it is interrupted. tell: is given a sentence for each step.

    About 60 MB are fetched and 250 MB kept. Raises RunError, with the cure, for what is missing, and for a step that fails.
    """
    problem = lacking()
    if problem:
        raise RunError(f"{problem}.")
    if not LOCK.is_file():
        raise RunError(
            f"{LOCK.name} is not there: prepare the root from a clone of the repository, which has the lock."
        )
    with repository.alone(folder()):
        if not prepared():
            _make(folder(), tell)
        tell(_compiled(folder() / "counter.so"))


def _make(place, tell):
    (place / "made").unlink(missing_ok=True)
    tell("Debian's packages for arm64 …")
    packages = debian.fetch(PACKAGES, place / "apt", PREPARE, "arm64")
    _replaced(place / "root", lambda new: debian.unpack(packages, new, PREPARE))
    tell("LiteRT's wheels, as the lock has them …")
    wheels = _wheels(place / "wheels", _python(place))
    _replaced(place / "site", lambda new: _installed(wheels, new))
    for name, processor in PROCESSORS.items():
        _replaced(place / name, lambda new, processor=processor: _described(processor, new))
    repository.write(place / "made", _identity())


def python(processor, plugin=None):
    """The command that starts the root's Python on an emulated processor. plugin: of QEMU's, with its arguments."""
    place = folder()
    return [
        EMULATOR,
        *(["-plugin", plugin] if plugin else []),
        *("-cpu", processor, "-L", str(place / processor), "-E", f"PYTHONPATH={place / 'site'}"),
        *("-U", "PYTHONDONTWRITEBYTECODE"),  # to compile numpy anew each time takes two seconds
        *(str(_python(place)), "-S", "-s"),
    ]


def _python(place):
    found = sorted((place / "root" / "usr" / "bin").glob("python3.[0-9]*"))
    if not found:
        raise RunError(f"the ARM root in {place} has no Python: {PREPARE} makes it anew.")
    return found[-1]


def _identity():
    return hashlib.sha256("\n".join([VERSION, *PACKAGES, *_pinned()]).encode()).hexdigest()


def _replaced(path, make):
    """A folder, made beside its place and then put there in one step."""
    new = path.with_name(f"{path.name}.new")
    for old in (new, path):
        shutil.rmtree(old, ignore_errors=True)
    new.mkdir()
    make(new)
    new.rename(path)


def _needed():
    """LiteRT and what it needs, by their names in the lock."""
    found, waiting = set(), [RUNTIME]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            needs = [Requirement(each) for each in metadata.requires(name) or ()]
            waiting += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def _pinned():
    """What the lock says of these: version and hashes, a text each."""
    names, content = _needed(), LOCK.read_text() if LOCK.is_file() else ""
    blocks = re.split(r"\n(?=[a-z0-9])", content)
    return [block for block in blocks if canonicalize_name(re.match(r"[\w.-]*", block)[0]) in names]


def _wheels(wheels, interpreter):
    """The wheels that the lock pins, for the root's Python, checked against its hashes; what an older lock left is not among them."""
    wheels.mkdir(exist_ok=True)
    version = interpreter.name.removeprefix("python")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(_pinned()))
        listed.flush()
        debian.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--require-hashes",
                    "--no-deps",
                    "--only-binary=:all:",
                ),
                *("--python-version", version, "--implementation", "cp", "--dest", str(wheels), "-r", listed.name),
                *(word for platform in PLATFORMS for word in ("--platform", platform)),
            ],
            "fetching LiteRT's wheels",
            PREPARE,
        )
    pinned = {canonicalize_name(each.split("==")[0]): each.split("==")[1].split()[0] for each in _pinned()}
    tags, found = ("py3", f"cp{version.replace('.', '')}"), {}
    for path in sorted(wheels.glob("*.whl")):
        name, number, *_, python, abi, _ = path.stem.split("-")
        of = canonicalize_name(name)
        if pinned.get(of) == number and (abi == "abi3" or any(tag in python.split(".") for tag in tags)):
            found[of] = path
    return [found[name] for name in sorted(_needed())]


def _installed(wheels, site):
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _described(processor, root):
    """A root for one processor: the common one, and before the files in which Linux tells what it runs on. Without these LiteRT would
    read the host's: kernels for a processor that it does not know, and since 2.2 a crash at the caches of an x86."""
    for name in ("etc", "lib", "usr"):
        (root / name).symlink_to(Path("..", "root", name))
    told = {
        "processor": "0",
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": f"{processor.variant:#x}",
        "CPU part": f"{processor.part:#x}",
        "CPU revision": f"{processor.revision}",
    }
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text("".join(f"{name}\t: {value}\n" for name, value in told.items()) + "\n")
    system = root / "sys" / "devices" / "system" / "cpu"
    (system / "cpu0").mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text("0\n")


def _compiled(target):
    """Compile the counter; says what that means."""
    compiler = next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return (
            "No C compiler: answers are compared, instructions not counted. `sudo apt install gcc`, then prepare again."
        )
    new = target.with_suffix(".new")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(new), str(COUNTER)]
    debian.run(command, "compiling the counter of instructions", PREPARE)
    os.replace(new, target)
    return "Ready: qemu://" + ", qemu://".join(PROCESSORS) + "."
