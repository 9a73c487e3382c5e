"""Debian's packages without root's rights: fetched by apt with a state of its own, unpacked by dpkg, nothing installed."""

import re
import shutil
import subprocess
from pathlib import Path

from helpers.base.errors import RunError

_ERROR = re.compile(r"E: |ERROR|.*error:")


def run(command, what, cure):
    """Run a command in silence. what: it does; cure: the rest of the sentence. Raises RunError with its first error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()] or [
            "it said nothing"
        ]
        told = [line for line in said if _ERROR.match(line)] or said[-1:]
        raise RunError(
            f"{what} failed ({told[0].rstrip('.')}): mend that and run {cure} again; what was fetched is kept."
        )


def fetch(names, folder, cure, architecture=None, dependencies=True):
    """The `.deb` files, a list of paths, of packages and, if asked for, of all that they need, as on a bare machine.

    folder: for apt's lists and what it fetched, kept for a second call. architecture: as "arm64"; default: this machine's.
    Raises RunError where there is no apt or it fails.
    """
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise RunError(f"there is no {tool} here: use Debian or Ubuntu, as a container for instance.")
    archives = Path(folder).absolute() / "cache" / "archives"
    lists, status = archives.parents[1] / "lists", archives.parents[1] / "status"
    for part in (archives / "partial", lists / "partial"):
        part.mkdir(parents=True, exist_ok=True)
    status.touch()
    settings = {
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State::Lists": lists,
        "Dir::State::status": status,
        "Dir::Cache": archives.parent,
        **({"APT::Architecture": architecture, "APT::Architectures": architecture} if architecture else {}),
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    run([*apt, "update"], "reading the lists of Debian's packages", cure)
    run([*apt, "autoclean"], "removing packages that have newer ones", cure)
    if dependencies:
        wanted = ["install", "--download-only", "--no-install-recommends", "-y", *names]
        run([*apt, *wanted], "fetching Debian's packages", cure)
    else:
        run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", archives, *apt, "download", *names], "fetching", cure)
    return sorted(archives.glob("*.deb"))


def unpack(packages, folder, cure):
    """The files of packages, in their places under a folder."""
    for package in packages:
        run(["dpkg", "-x", str(package), str(folder)], f"unpacking {package.name}", cure)
