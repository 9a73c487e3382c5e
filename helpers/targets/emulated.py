"""An ARM processor under QEMU's emulation: the same jobs, by the same code, on the real kernels of LiteRT for ARM.

It answers as the processor would, and its instructions can be counted; time and memory are the emulator's and are not told.
"""

import itertools
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.base.errors import RunError
from helpers.targets import arm64
from helpers.tflite import measure, runner

SCHEME = "qemu://"


@dataclass(frozen=True)
class Target:
    """qemu://PROCESSOR, one of `arm64.PROCESSORS`. Raises RunError for another, and where the root is not prepared."""

    url: str

    samples = 64  # to answer: each takes a hundred times as long as on the processor itself

    def __post_init__(self):
        if self.processor not in arm64.PROCESSORS:
            known = ", ".join(SCHEME + name for name in arm64.PROCESSORS)
            raise RunError(f"target={self.url!r} is unknown: choose one of {known}.")
        problem = arm64.lacking()
        if problem:
            raise RunError(f"target={self.url!r} cannot be emulated here: {problem}.")
        if not arm64.prepared():
            raise RunError(
                f"target={self.url!r} needs its ARM root, which is not made, or of another lock: run {arm64.PREPARE}."
            )

    @property
    def processor(self):
        return self.url.removeprefix(SCHEME)

    @property
    def measures(self):
        """What it tells beside answers."""
        return frozenset({measure.INSTRUCTIONS} if arm64.counter() else ())

    def run_all(self, jobs, folder):
        """The answers to jobs for `runner`, as `runner.run_all` gives them; folder: holds the files that they name.

        A job "count" is answered with instructions: name of a model -> a list, of each inference. Raises RunError where the emulator itself fails.
        """
        return [self._run(job, folder) for job in jobs]

    def _run(self, job, folder):
        if job["task"] != "count":
            return self._told(job, runner.run(job, folder, arm64.python(self.processor)))
        with tempfile.NamedTemporaryFile(prefix="compression_lab_") as notes:
            plugin = f"{arm64.counter()},notes={notes.name}"
            answer = runner.run(job, folder, arm64.python(self.processor, plugin))
            marks = [int(line) for line in Path(notes.name).read_text().split()]
        answer = self._told(job, answer)
        if "error" in answer:
            return answer
        each = job["times"] + 2
        if len(marks) != each * len(answer["names"]):
            raise RunError(
                f"{self.url}: the emulator counted nothing: take Debian's own qemu-user, which loads plugins."
            )
        found = {}
        for place, name in enumerate(answer["names"]):
            steps = [after - before for before, after in itertools.pairwise(marks[place * each : (place + 1) * each])]
            found[name] = [step - steps[0] for step in steps[1:]]
        return {"instructions": found}

    def _told(self, job, answer):
        """What befell the emulator is no fault of the file's."""
        said = answer.get("error", "")
        if "missing" in answer:
            raise RunError(
                f"{self.url}: the ARM root lacks a package ({said}): run {arm64.PREPARE} after deleting {arm64.folder()}."
            )
        if re.search(
            "uncaught target signal|Could not load plugin|unable to find CPU model|Could not open '/lib", said
        ):
            cure = "the emulator of Debian 12 (7.2) with LiteRT 2.3.0 is known to work"
            raise RunError(f"{self.url}: the emulator gave up on task {job['task']} ({said}): {cure}.")
        if job["task"] == "machine" and "error" not in answer:
            return {**answer, "cpu": f"{self.processor}, emulated"}
        return answer
