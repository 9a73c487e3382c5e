"""Measuring on another machine through OpenSSH's client: the same jobs as here, run there by the same code.

The other machine needs Python 3.9 or later with ai-edge-litert, and a POSIX shell. `runner.py`, `interpreting.py`, models and samples travel
as one tar stream over one connection, into a temporary folder that is removed afterwards. Which key and which host key are
right is decided by the user's own ssh configuration; nothing is ever asked (BatchMode).
"""

import io
import json
import re
import shlex
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from helpers.base.errors import RunError
from helpers.tflite import interpreting, measure, runner

CONNECT_SECONDS, ALIVE_SECONDS, ALIVE_COUNT = 10, 5, 3
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": ALIVE_SECONDS,
    "ServerAliveCountMax": ALIVE_COUNT,
}
PATIENCE = 60  # seconds beyond what the jobs themselves may take
_JOB = "job.json"
# What the other machine's Python is told: unpack standard input, run the job, remove everything.
# And end after so many seconds, whether or not anybody still waits for it.
_BOOTSTRAP = f"""
import subprocess, sys, tarfile, tempfile
with tempfile.TemporaryDirectory() as folder:
    tarfile.open(fileobj=sys.stdin.buffer, mode="r|").extractall(folder)
    with open(folder + "/{_JOB}") as job:
        code = subprocess.call([sys.executable, "runner.py"], cwd=folder, stdin=job, timeout=float(sys.argv[1]))
sys.exit(code)
"""
# What ssh says (exit code 255) -> what that means here; the first that is found counts.
_SSH_SAYS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "has another host key than the one in known_hosts: find out why before you remove that line"
    ),
    "Host key verification failed": "has an unknown host key: connect once by hand (`ssh {host}`) and check it",
    "Permission denied": "refused the login: a key without passphrase, or one in ssh-agent, must be authorized there",
    "Could not resolve hostname": "is an unknown host name",
    "Connection refused": "refused the connection: does an SSH server listen on that port?",
    "timed out during banner exchange": "does not answer as an SSH server",
    "Connection timed out": "did not answer within {connect} s",
    "not responding": "stopped answering: the connection was lost",
    "Connection reset": "lost the connection",
    "closed by remote host": "lost the connection",
    "Connection closed": "lost the connection",
    "Broken pipe": "lost the connection",
}


@dataclass(frozen=True)
class Target:
    """A machine to measure on: ssh://[user@]host[:port][/path/of/python]. The host may be an alias of ~/.ssh/config.

    Raises RunError for any other form.
    """

    url: str

    measures = measure.HERE  # beside answers
    samples = measure.TARGET_SAMPLES  # to answer

    def __post_init__(self):
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme == "ssh" and parts.hostname and not (parts.query or parts.fragment or parts.password)
            fits = fits and re.fullmatch(r"(\w[\w.-]*@)?[\w\[][\w.:%-]*\]?(:\d+)?", parts.netloc) and parts.port != 0
        except ValueError:  # a port that is none
            fits = False
        if not fits:
            raise RunError(f"target={self.url!r} must read ssh://user@host[:port][/path/of/python].")

    @property
    def host(self):
        """As ssh takes it: [user@]host, in the letters of the alias."""
        return re.sub(r"[\[\]]|:\d+$", "", urlsplit(self.url).netloc)

    @property
    def python(self):
        """The Python to run there."""
        path = unquote(urlsplit(self.url).path)
        return path if path.strip("/") else "python3"

    def run_all(self, jobs, folder):
        """The answers to jobs for `runner`, each run in a process of its own on the target, in order.

        folder: holds the files that the jobs name; all of it travels. A job that fails there answers with its error, as
        `runner.run_all` does here. Raises RunError for everything else.
        """
        seconds = PATIENCE + sum(job.get("limits", {}).get("seconds", PATIENCE) for job in jobs)
        port = urlsplit(self.url).port
        command = ["ssh", "-T", *(word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}"))]
        command += ["-p", str(port)] if port else []
        command += ["--", self.host, f"{shlex.quote(self.python)} -c {shlex.quote(_BOOTSTRAP)} {seconds:g}"]
        with tempfile.TemporaryFile() as cargo:
            _pack(cargo, jobs, folder)
            cargo.seek(0)
            try:
                done = subprocess.run(command, stdin=cargo, capture_output=True, timeout=seconds)
            except FileNotFoundError:
                raise RunError("there is no `ssh` on this machine's PATH: install OpenSSH's client.") from None
            except subprocess.TimeoutExpired:
                raise RunError(
                    f"{self.url} did not finish within {seconds:.0f} s: give it fewer samples, or smaller models."
                ) from None
        return self._answers(done, len(jobs))

    def _answers(self, done, number):
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode:
            cause = self._cause(done.returncode, said)
            raise RunError(f"{self.url} {cause}{'' if cause.endswith('?') else '.'}")
        try:  # a login script there may have printed lines before
            answers = json.loads(lines[-1])["answers"]
            failed = [answer["error"] for answer in answers if "missing" in answer]
            if len(answers) != number:
                raise ValueError
        except (ValueError, LookupError, TypeError):
            shown = lines[-1][:80] if lines else ""
            raise RunError(f"{self.url} answered {shown!r} instead of a line of JSON.") from None
        if failed:
            cure = f"`{self.python} -m pip install ai-edge-litert`"
            raise RunError(f"{self.url} lacks a package ({failed[0]}): run {cure} there.")
        return answers

    def _cause(self, code, said):
        reason = "".join(c if c.isprintable() else "?" for c in (said.strip().splitlines() or ["no reason given"])[-1])
        if code == 255:
            for words, meaning in _SSH_SAYS.items():
                if words in said:
                    return meaning.format(host=self.host, connect=CONNECT_SECONDS)
            return f"cannot be reached ({reason})"
        if code in (126, 127):
            return f"has no Python at {self.python!r} ({reason}): name one as in ssh://host/usr/bin/python3"
        return f"failed ({reason})"


def _pack(file, jobs, folder):
    with tarfile.open(fileobj=file, mode="w") as tar:
        for module in (runner, interpreting):
            tar.add(module.__file__, Path(module.__file__).name)
        for path in sorted(Path(folder).iterdir()):
            tar.add(path, path.name)
        content = json.dumps({"task": "all", "jobs": jobs}).encode()
        entry = tarfile.TarInfo(_JOB)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
