"""Where do the minutes of `make test` go? Runs it and prints what each notebook and each folder of tests took, beside the
time on the clock. Promised on two cores: 16 minutes by the clock.

    python benchmarks/minutes_of_tests.py
"""

import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

PROMISED = 16  # minutes
ROOT = Path(__file__).resolve().parent.parent


def part(case):
    """A notebook, or a folder of tests, that a JUnit test case belongs to."""
    words = case.get("classname", "").split(".")
    if words[0] == "tests":
        return "/".join(words[: 2 if len(words) > 2 else 1])
    return words[0].removeprefix("notebooks/").removesuffix("/ipynb")


def main():
    """Run the tests once, by the commands of `make test`, and print a line for each part, the longest first."""
    told = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = [line for line in told.splitlines() if " -m pytest " in line]
    started, spent, codes = time.monotonic(), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(commands):
            report = Path(folder) / f"{number}.xml"
            codes.append(subprocess.run(f"{command} -q --junitxml={report}", cwd=ROOT, shell=True).returncode)
            for case in ElementTree.parse(report).iter("testcase"):
                spent[part(case)] += float(case.get("time"))
    minutes = (time.monotonic() - started) / 60
    for name, seconds in spent.most_common():
        print(f"{name:45} {seconds / 60:5.1f}")
    print(f"{'all parts, two at a time':45} {sum(spent.values()) / 60:5.1f}")
    print(
        f"{'on the clock, with what is timed alone':45} {minutes:5.1f}; other processes took {os.getloadavg()[2]:.1f} cores"
    )
    if minutes > PROMISED:
        print(f"That is longer than the {PROMISED} minutes that are promised: are two cores free?")
    raise SystemExit(max(codes))


if __name__ == "__main__":
    main()
