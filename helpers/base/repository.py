"""Where the lab's files live, and writing them so that a reader never meets half a file.

In a clone they are the repository's own. An installed package has no repository around it: what lessons and commands read of one
(data, checkpoints, notebooks without outputs, recorded results) came with it, made by setup.py, and what would write to one refuses.
"""

import contextlib
import os
import tempfile
import tomllib
from pathlib import Path

import platformdirs

from helpers.base.errors import MissingError, OutputError

HELPERS = Path(__file__).resolve().parents[1]
SHIPPED = HELPERS / "shipped"  # of an installed package
INSTALLED = SHIPPED.is_dir()
REPOSITORY = SHIPPED if INSTALLED else HELPERS.parent
NOTEBOOKS = REPOSITORY / "notebooks"
OUTPUT_VARIABLE = "COMPRESSION_LAB_OUTPUT"
CACHE_VARIABLE = "COMPRESSION_LAB_CACHE"
DATA_VARIABLE = "COMPRESSION_LAB_DATA"
PROFILE_VARIABLE = "COMPRESSION_LAB_PROFILE"
REVISION_VARIABLE = "COMPRESSION_LAB_REVISION"
ADDRESS_VARIABLE = "COMPRESSION_LAB_REPOSITORY"
BRANCH = "main"
QUICK = "quick"  # the profile of a notebook's own defaults
CUSTOM = "custom"  # any other set of parameters than a profile's


def output_root():
    """The folder under which results and figures are written: `runs/` in the repository, or, of an installed package, in the working
    folder, unless $COMPRESSION_LAB_OUTPUT names another. `make record` names the repository itself, so that only a deliberate
    recording changes it."""
    return Path(os.environ.get(OUTPUT_VARIABLE) or (Path.cwd() if INSTALLED else REPOSITORY) / "runs")


def needed_for(what):
    """Raises MissingError where there is no repository to do something with. what: that, in words, as "record"."""
    if INSTALLED:
        raise MissingError(
            f"{what} works on the repository, and this is the package alone ({HELPERS.parent}): clone it, and call this "
            "there (`make run` there installs everything first)."
        )


def published():
    """The address of the repository that pyproject.toml names under [project.urls], as it stands there; "" if it names none."""
    try:
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError):
        project = {}
    return project.get("urls", {}).get("Repository") or ""


def address():
    """Where the repository can be had, as "https://github.com/someone/lab": $COMPRESSION_LAB_REPOSITORY, or what is `published`; None
    where neither says."""
    named = os.environ.get(ADDRESS_VARIABLE) or published()
    return named.rstrip("/").removesuffix(".git") or None


def cache_folder():
    """`$COMPRESSION_LAB_CACHE`, or the user's cache folder by the custom of the system."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("compression-lab"))


def given_data(relative):
    """Where a file or folder would lie in `$COMPRESSION_LAB_DATA`; None if that is not set."""
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder) / relative if folder else None


def flowers_folder():
    """Where the photos of tf_flowers lie, or would."""
    given = given_data("flowers/flower_photos")
    return given if given and given.is_dir() else cache_folder() / "flower_photos"


def names_folder(text):
    """Whether a name is the path of a folder, also one that is not there, by its separators (/ on Windows too)."""
    return os.sep in text or "/" in text or Path(text).is_dir()


def figures_folder(profile=None):
    """Where the figures of a profile go, relative to an output folder: `figures`, or `figures/<profile>` if it is not
    the quick one. Default: the profile under which a tour is running this notebook."""
    profile = profile or os.environ.get(PROFILE_VARIABLE) or QUICK
    return Path("figures") if profile == QUICK else Path("figures") / profile


@contextlib.contextmanager
def alone(folder):
    """Wait until no other process is at work in a folder, which is made. Not on Windows."""
    import fcntl  # which Windows has not

    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back by the system if this process dies
        yield


def write(path, content):
    """Write text or bytes to `path` in one step: either the whole new file is there, or the former one.

    Raises OutputError, naming the path and the cause (no space, no permission).
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # what a link leads to, and not the link, is written anew
    binary = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(binary)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        ours = Path(os.path.realpath(output_root())) in target.parents
        cure = f"choose a writable folder in ${OUTPUT_VARIABLE}" if ours else "name a file in a writable folder"
        raise OutputError(
            f"{path} could not be written ({error.strerror or error}): free some space or {cure}; the former file is unchanged."
        ) from error
    return path
