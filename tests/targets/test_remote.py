"""Measuring on another machine: over a real SSH server on the loopback where there is one, and every way it goes wrong."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base import runtime_env
from helpers.base.errors import RunError
from helpers.compress import quantize
from helpers.deploy import gate, policy
from helpers.networks import models
from helpers.targets.remote import Target
from helpers.tflite import litert, measure, runner

SSHD = os.environ.get("COMPRESSION_LAB_SSHD") or shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
X = np.random.default_rng(0).random((70, 24)).astype("float32")
LIMITS = {"seconds": 60, "bytes": 10**9}


@pytest.fixture(scope="module")
def files():
    runtime_env.seed_everything(0)
    model = models.mlp((16,), 24, 5)
    return {"baseline": quantize.convert(model), "candidate": quantize.convert(model, "full_int8", X)}


@pytest.fixture
def staged(files):
    with measure.staged(files, X) as (folder, names):
        yield folder, names


@pytest.fixture
def fake_ssh(tmp_path, monkeypatch):
    """Puts a shell script in the place of ssh; its last argument is what the other machine should run."""

    def put(script):
        path = tmp_path / "bin" / "ssh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nfor last in "$@"; do :; done\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return put


class Server:
    """An SSH server of our own on the loopback, with keys of its own, and a client configuration that knows it."""

    def __init__(self, folder):
        self.folder, self.answers = folder, folder / "temporary"
        self.answers.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for key in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "SetEnv": f"TMPDIR={self.answers}",
        }
        (folder / "sshd").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [Path(SSHD).absolute(), "-D", "-e", "-f", folder / "sshd"], stderr=self.log, stdin=subprocess.DEVNULL
        )
        self.trust("host")

    def ready(self):
        """None once it listens, or what it said when it did not start."""
        for _ in range(100):
            if self.process.poll() is not None:
                self.log.seek(0)
                return self.log.read().strip()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return None
            time.sleep(0.05)
        return "it did not listen within 5 s"

    def trust(self, key):
        """Write the client's known_hosts: this public key, or none."""
        line = f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}" if key else ""
        (self.folder / "known").write_text(line)

    def login_with(self, key):
        (self.folder / "ssh").write_text(
            f"UserKnownHostsFile {self.folder / 'known'}\nGlobalKnownHostsFile /dev/null\n"
            f"IdentityFile {self.folder / key}\nIdentitiesOnly yes\nIdentityAgent none\n"
        )

    def url(self, python=sys.executable):
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{python}"


@pytest.fixture(scope="module")
def running_server(tmp_path_factory):
    if not SSHD:
        pytest.skip("no sshd on this machine: install OpenSSH's server or name one in $COMPRESSION_LAB_SSHD")
    server = Server(tmp_path_factory.mktemp("sshd"))
    try:
        problem = server.ready()
        if problem:
            pytest.skip(f"sshd does not start here: {problem}")
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.log.close()


@pytest.fixture
def server(running_server, fake_ssh):
    running_server.trust("host")
    running_server.login_with("user")
    fake_ssh(f'exec {shutil.which("ssh")} -F {running_server.folder / "ssh"} "$@"')
    return running_server


# --- over a real server


def test_the_target_answers_as_this_machine_does(server, staged):
    folder, names = staged
    job = measure.prediction(names["candidate"], show=70, limits=LIMITS)
    [there], [here] = Target(server.url()).run_all([job], folder), runner.run_all([job], folder)
    assert there == here and len(there["first"][0]) == 70
    assert not list(server.answers.iterdir())


def test_latency_and_memory_come_from_the_target(server, files):
    frame, machine = measure.report(files, "baseline", X, rounds=6, target=Target(server.url()))
    assert frame["same"].tolist() == [1, 1]
    assert (frame["milliseconds"] > 0).all() and (frame["low"] <= frame["ratio"]).all()
    assert all(estimate.value > 0 for estimate in frame["memory"])
    assert machine["cores"] == os.cpu_count()


def test_the_gate_judges_speed_and_answers_on_the_target(server, files):
    target = Target(server.url())
    decision = gate.judge(
        files["candidate"],
        files["baseline"],
        X,
        litert.predict(files["baseline"], X).argmax(axis=-1),
        policy.Policy(max_drop=1),
        rounds=6,
        target=target,
    )
    assert decision.outcome == gate.ACCEPTED
    [check] = [check for check in decision.checks if check.name == "answers on the target"]
    assert check.because == "70 of 70 are those given here, 70 to the last bit; outputs differ by 0 at most"
    assert decision.machine["target"] == target.url
    assert {"latency_ratio", "peak_memory.candidate"} <= decision.measured.keys()


def test_the_commands_take_a_target(server, files, tmp_path):
    paths = [tmp_path / f"{name}.tflite" for name in files]
    for path, blob in zip(paths, files.values(), strict=True):
        path.write_bytes(blob)
    result = CliRunner().invoke(main, ["measure", *map(str, paths), "--rounds", "6", "--target", server.url()])
    assert result.exit_code == 0, result.output
    assert result.output.count("100.0%") == 2


def test_a_file_that_does_not_load_there_is_an_answer(server, staged):
    folder, names = staged
    path = Path(folder) / names["candidate"]
    path.write_bytes(path.read_bytes()[:900])
    [answer] = Target(server.url()).run_all([measure.prediction(names["candidate"])], folder)
    assert answer["kind"] == "refused" and "not a valid Flatbuffer" in answer["error"]


def test_an_unknown_host_key_is_refused(server, staged):
    server.trust(None)
    with pytest.raises(RunError, match=r"has an unknown host key: connect once by hand \(`ssh .*@127.0.0.1`\)"):
        Target(server.url()).run_all([{"task": "machine"}], staged[0])


def test_a_changed_host_key_is_refused(server, staged):
    server.trust("stranger")
    with pytest.raises(RunError, match="has another host key than the one in known_hosts"):
        Target(server.url()).run_all([{"task": "machine"}], staged[0])


def test_a_key_that_is_not_authorized_is_refused(server, staged):
    server.login_with("stranger")
    with pytest.raises(RunError, match="refused the login: a key"):
        Target(server.url()).run_all([{"task": "machine"}], staged[0])


def test_a_python_that_is_not_there_is_named(server, staged):
    with pytest.raises(RunError, match=r"has no Python at '/no/such/python' \(.*\): name one as in ssh://"):
        Target(server.url("/no/such/python")).run_all([{"task": "machine"}], staged[0])


def test_a_package_that_is_missing_there_is_named(server, staged, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    url = server.url(tmp_path / "bare/bin/python")
    folder, names = staged
    with pytest.raises(RunError, match=r"lacks a package \(.*numpy.*\): run `.*bare/bin/python -m pip install ai-edge"):
        Target(url).run_all([measure.prediction(names["baseline"])], folder)


def test_a_connection_lost_in_the_middle_is_told(server, staged):
    folder, names = staged
    job = measure.jobs(names, "baseline", X, rounds=6_000_000, limits=LIMITS)[0]
    found = []

    def ask():
        try:
            Target(server.url()).run_all([job], folder)
        except RunError as error:
            found.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    serving = psutil.Process(server.process.pid)
    while not any(server.answers.iterdir()):
        time.sleep(0.05)
        assert asking.is_alive()
    below = serving.children(recursive=True)
    for process in (process for process in below if process.name().startswith("sshd")):
        process.kill()
    asking.join(30)
    for process in below:  # the job itself would end at its time limit only
        if process.is_running():
            process.kill()
    assert found and found[0].endswith("lost the connection.")


# --- what ssh may say


@pytest.mark.parametrize(
    "said, code, told",
    [
        ("ssh: Could not resolve hostname far: Name or service not known", 255, "is an unknown host name."),
        (
            "ssh: connect to host far port 22: Connection refused",
            255,
            "refused the connection: does an SSH server listen",
        ),
        ("ssh: connect to host far port 22: Connection timed out", 255, "did not answer within 10 s."),
        ("Connection timed out during banner exchange", 255, "does not answer as an SSH server."),
        ("Timeout, server far not responding.", 255, "stopped answering: the connection was lost."),
        ("client_loop: send disconnect: Broken pipe", 255, "lost the connection."),
        (
            "Host key verification failed.",
            255,
            "has an unknown host key: connect once by hand (`ssh me@far`) and check it.",
        ),
        ("something new", 255, "cannot be reached (something new)."),
        ("bash: python3: command not found", 127, "has no Python at 'python3' (bash: python3: command not found)"),
        ("OSError: [Errno 28] No space left on device", 1, "failed (OSError: [Errno 28] No space left on device)."),
    ],
)
def test_what_ssh_says_becomes_one_sentence(fake_ssh, staged, said, code, told):
    fake_ssh(f"cat > /dev/null; echo '{said}' >&2; exit {code}")
    with pytest.raises(RunError) as error:
        Target("ssh://me@far").run_all([{"task": "machine"}], staged[0])
    assert str(error.value).startswith(f"ssh://me@far {told}")
    assert "\n" not in str(error.value)


def test_without_a_client_its_lack_is_told(staged, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="there is no `ssh` on this machine's PATH"):
        Target("ssh://far").run_all([{"task": "machine"}], staged[0])


@pytest.mark.parametrize(
    "url, host",
    [
        ("ssh://MyPi", "MyPi"),
        ("ssh://me@MyPi:2222/usr/bin/python3", "me@MyPi"),
        ("ssh://[fe80::1%eth0]:22", "fe80::1%eth0"),
        ("ssh://me@10.0.0.7", "me@10.0.0.7"),
    ],
)
def test_a_host_keeps_the_letters_of_its_alias(url, host):
    assert Target(url).host == host


def test_a_job_ends_with_whoever_asked_for_it(tmp_path):
    """Which may be killed, as a CI does that cancels."""
    (tmp_path / "sleeping.py").write_text("import time\n\n\ndef sleep(job, samples):\n    time.sleep(99)\n")
    np.savez(tmp_path / "samples.npz", x=np.zeros(1))
    job = {"task": "call", "path": str(tmp_path), "module": "sleeping", "function": "sleep", "samples": "samples.npz"}
    code = f"from helpers.tflite import runner; runner.run({job!r}, {str(tmp_path)!r})"
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 20
    while not (jobs := psutil.Process(asking.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # for it to begin
    asking.kill()
    asking.wait()
    _, alive = psutil.wait_procs(jobs, timeout=10)
    assert jobs and not alive


def test_a_target_that_never_finishes_is_given_up(fake_ssh, staged, monkeypatch):
    monkeypatch.setattr("helpers.targets.remote.PATIENCE", 0.3)
    fake_ssh("exec sleep 20")
    with pytest.raises(RunError, match="ssh://far did not finish within"):
        Target("ssh://far").run_all([{"task": "machine"}], staged[0])


@pytest.mark.parametrize("line", ["", "echo Welcome", """echo '{"answers": []}'"""])
def test_an_answer_that_is_none_is_told(fake_ssh, staged, line):
    fake_ssh(f"cat > /dev/null; {line}")
    with pytest.raises(RunError, match=r"answered '.*' instead of a line of JSON"):
        Target("ssh://far").run_all([{"task": "machine"}], staged[0])


def test_lines_of_a_login_script_do_not_disturb(fake_ssh, staged):
    fake_ssh('echo "Welcome to this machine"; eval "$last"')
    folder, names = staged
    job = measure.prediction(names["baseline"])
    assert Target(f"ssh://far{sys.executable}").run_all([job], folder) == runner.run_all([job], folder)


# --- addresses


@pytest.mark.parametrize(
    "url, host, python",
    [
        ("ssh://pi", "pi", "python3"),
        ("ssh://me@pi.local:2222", "me@pi.local", "python3"),
        ("ssh://me@10.0.0.7/home/me/a%20b/python", "me@10.0.0.7", "/home/me/a b/python"),
        ("ssh://me@[::1]:2222/", "me@::1", "python3"),
    ],
)
def test_an_address_names_host_and_python(url, host, python):
    assert (Target(url).host, Target(url).python) == (host, python)


@pytest.mark.parametrize(
    "url",
    [
        "pi",
        "http://pi",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://me:secret@pi",
        "ssh://pi:no",
        "ssh://pi:99999",
        "ssh://a b",
    ],
)
def test_another_address_is_refused(url):
    with pytest.raises(RunError, match="must read ssh://user@host"):
        Target(url)
