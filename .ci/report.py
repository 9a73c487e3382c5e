"""What a nightly run found, as the text of an issue. Needs nothing installed.

    JOBS='{"links": {"result": "failure"}}' python3 .ci/report.py told > report.md

`told` holds a folder for each job and machine, as the jobs left them: JUnit files, and packages.txt where the lock was not
used. The same failure on several machines is told once.
"""

import json
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import junit

ROOT = Path(__file__).resolve().parents[1]
MOST, WIDEST = 40, 300  # failures told at length; characters of a reason
LIMIT = 60_000  # characters; an issue takes 65,536


def report(told, jobs, lock):
    """The Markdown text. told: the folder; jobs: name -> {"result": …}; lock: the text of requirements.txt."""
    found, damaged = failures(told)
    stopped = [name for name, job in jobs.items() if job["result"] in ("failure", "cancelled")]
    explained = {place.split("-")[0] for places in found.values() for place in places}
    lines = [f"Failed: {', '.join(stopped) or 'nothing'}.", ""]
    lines += [f"- {name} ended before it could say why: see its log." for name in stopped if name not in explained]
    lines += [f"- {name} is cut off." for name in damaged]
    lines += [
        f"- {place.name} left no results: see its log." for place in folders(told) if not any(place.rglob("*.xml"))
    ]
    for (name, why), places in list(found.items())[:MOST]:
        lines += [f"- `{name}`: {why}", f"  on {', '.join(places)}"]
    if len(found) > MOST:
        lines.append(f"- and {len(found) - MOST} more")
    if newer := changed(told, lock):
        lines += ["", "Packages that are not as in the lock:", "", *newer]
    return "\n".join(lines)[:LIMIT] + "\n"


def failures(told):
    """(name, why in short) -> where it failed, in order; and the names of files that cannot be read."""
    found, damaged = {}, []
    for place in folders(told):
        for path in sorted(place.rglob("*.xml")):
            try:
                for failure in junit.failures(path):
                    found.setdefault((failure.name, short(failure.why)), []).append(place.name)
            except ElementTree.ParseError:
                damaged.append(path.relative_to(told).as_posix())
    return found, damaged


def folders(told):
    """The folders that jobs left, by name."""
    return sorted(path for path in told.glob("*") if path.is_dir())


def short(why):
    """A reason on one line; of several lines up to three."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    text = "; ".join(lines[:3]) + ("; …" if len(lines) > 3 else "")
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def changed(told, lock):
    """A line for each package whose installed version is not the lock's, or that the lock does not have."""
    pins = dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", lock, re.MULTILINE))
    seen = {}
    for path in sorted(told.glob("*/packages.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, version = line.partition("==")
            name = re.sub(r"[-_.]+", "-", name).lower()
            if name not in ("pip", "compression-lab") and pins.get(name) != version:
                seen.setdefault((name, version), []).append(path.parent.name)
    return [f"- {name} {pins.get(name, 'none')} → {version}" for name, version in sorted(seen)]


if __name__ == "__main__":
    print(report(Path(sys.argv[1]), json.loads(os.environ["JOBS"]), (ROOT / "requirements.txt").read_text()), end="")
