"""With the network cut the tour runs, and does not even try to reach it: data and checkpoints are at hand."""

import json
import os
import subprocess
import sys

import pytest

from helpers.base import repository
from helpers.lab import parameters

# Python runs a sitecustomize.py on its path at every start, so also in the kernels. Loopback and Unix sockets stay open:
# Jupyter talks to its kernels over them. Whatever else is tried is refused, and noted.
SHIM = """
import os
import socket

LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}


def refuse(target):
    with open(os.environ["ATTEMPTS"], "a") as attempts:
        attempts.write(f"{target}\\n")
    raise OSError("the network is cut")


def guard(name, place):
    real = getattr(socket.socket, name)

    def guarded(self, *arguments):
        address = arguments[place]
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in LOOPBACK:
            refuse(address)
        return real(self, *arguments)

    setattr(socket.socket, name, guarded)


guard("connect", 0)
guard("connect_ex", 0)
guard("sendto", -1)
look_up = socket.getaddrinfo


def getaddrinfo(host, *arguments, **settings):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in LOOPBACK:
        refuse(name)
    return look_up(host, *arguments, **settings)


socket.getaddrinfo = getaddrinfo
socket.gethostbyname = refuse
"""


@pytest.fixture
def cut(tmp_path):
    """Runs Python with its arguments, without a network, in a home where nothing was ever downloaded."""
    (tmp_path / "path").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(SHIM)
    attempts = tmp_path / "attempts"
    attempts.touch()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != repository.DATA_VARIABLE
    }
    environment = {
        **inherited,
        "ATTEMPTS": str(attempts),
        "HOME": str(tmp_path / "home"),
        "KERAS_HOME": str(tmp_path / "home" / "keras"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(repository.REPOSITORY)]),
        repository.CACHE_VARIABLE: str(tmp_path / "cache"),
        repository.OUTPUT_VARIABLE: str(tmp_path / "runs"),
    }

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=repository.REPOSITORY, capture_output=True, text=True
        )
        return done, attempts.read_text().split("\n")[:-1]

    return run


def test_the_cut_is_real(cut):
    tries = """
import socket, urllib.request
for reach in (lambda: socket.create_connection(("192.0.2.1", 80), 1),
              lambda: socket.socket().connect(("192.0.2.1", 80)),
              lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)),
              lambda: urllib.request.urlopen("http://example.org")):
    try:
        reach()
    except OSError as error:
        print("the network is cut" in str(error))
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
"""
    done, attempts = cut("-c", tries)
    assert done.stdout.split() == ["True"] * 4 and done.returncode == 0
    assert len(attempts) == 4 and "example.org" in attempts[-1]


def test_what_needs_a_download_says_so(cut):
    done, attempts = cut("-c", "from helpers import data\ndata.load('mnist')")
    assert "dataset='mnist' cannot be had here" in done.stderr and repository.DATA_VARIABLE in done.stderr
    assert attempts


def test_the_data_and_checkpoints_of_every_notebook_are_at_hand(cut):
    named = [parameters.defaults(path) for path in sorted(repository.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    datasets = {values["dataset"] for values in named if "dataset" in values}
    checkpoints = {value for values in named for name, value in values.items() if name.endswith("checkpoint")}
    assert datasets and checkpoints
    done, attempts = cut(
        "-c",
        "import json, sys\nfrom helpers import checkpoints, data\n"
        "datasets, names = map(json.loads, sys.argv[1:])\n"
        "print(*map(data.load, datasets), *map(checkpoints.load, names))",
        json.dumps(sorted(datasets)),
        json.dumps(sorted(checkpoints)),
    )
    assert done.returncode == 0, done.stderr
    assert attempts == []


def test_the_tour_runs_and_reaches_for_nothing(cut, tmp_path):
    done, attempts = cut("-m", "helpers", "tour", "--only", "00")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "runs").rglob("00_start_here.ipynb"))) == 1
    assert attempts == []
