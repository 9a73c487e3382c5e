"""Notebooks that run side by side: while one of them times something, the others stand still.

A tour of several at a time gives its number to every kernel, in $COMPRESSION_LAB_COMPANY; processes that a kernel starts inherit it.
Who times something stops all others with that number, and lets them go on afterwards. In a process without a number nothing happens.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import psutil

from helpers.base import repository

VARIABLE = "COMPRESSION_LAB_COMPANY"  # the process id of the tour
_measuring = False  # whether this process has the others stand still


def environment():
    """What a tour adds to the environment of its kernels."""
    return {VARIABLE: str(os.getpid())}


@contextlib.contextmanager
def standing_still():
    """While inside, every other process of the company stands still, except for those that started this one or that it started.
    One at a time: a second one waits; inside another of the same process it changes nothing. Not on Windows, where nobody is
    stopped."""
    global _measuring
    number = os.environ.get(VARIABLE)
    if _measuring or not number or os.name == "nt":
        yield
        return
    with repository.alone(Path(tempfile.gettempdir()) / f"compression-lab-{number}"):
        stopped, _measuring = _others(number), True
        try:
            _each(stopped, psutil.Process.suspend)
            yield
        finally:
            _measuring = False
            _each(stopped, psutil.Process.resume)


def go_on():
    """Let all processes of this process' company go on, whoever stopped them and may have died since."""
    _each(_members(str(os.getpid())), psutil.Process.resume)


def clear():
    """End processes that stand still for ever: a tour that was killed left them, while another of its kernels timed something."""
    for process in _members():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED and not psutil.pid_exists(int(process.environ()[VARIABLE])):
                process.kill()


def _members(number=None):
    """The processes that have a number, or this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            its = process.environ().get(VARIABLE)
            if its and number in (None, its):
                found.append(process)
    return found


def _others(number):
    this = psutil.Process()
    near = {this.pid, *(each.pid for each in [*this.parents(), *this.children(recursive=True)])}
    return [process for process in _members(number) if process.pid not in near]


def _each(processes, act):
    for process in processes:
        with contextlib.suppress(psutil.Error):
            act(process)
