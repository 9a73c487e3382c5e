"""Side by side: who times something is alone, everybody goes on afterwards, and nobody stands still for ever."""

import os
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from helpers.base import company

pytestmark = pytest.mark.skipif(os.name == "nt", reason="nobody is stopped on Windows")
COUNTS = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('.'); time.sleep(0.01)"


@pytest.fixture
def start(tmp_path):
    """Starts a process of the company `number` that counts in a file; returns it with a function that tells how far it is."""
    started = []

    def start(number):
        path = tmp_path / f"{len(started)}"
        environment = {**os.environ, company.VARIABLE: str(number)} if number else None
        started.append(subprocess.Popen([sys.executable, "-c", COUNTS, path], env=environment))
        while not path.exists():
            time.sleep(0.01)
        return started[-1], lambda: path.stat().st_size

    yield start
    for process in started:
        process.kill()
        process.wait()


def moves(count, seconds=0.3):
    time.sleep(0.1)  # a signal takes a moment
    before = count()
    time.sleep(seconds)
    return count() > before


def test_strangers_and_what_a_process_started_itself_are_never_stopped(start, monkeypatch):
    number = os.getpid()
    (_, child), (_, stranger), (_, nobody) = start(number), start(number + 1), start(None)
    monkeypatch.setenv(company.VARIABLE, str(number))
    with company.standing_still():
        assert [moves(count) for count in (child, stranger, nobody)] == [True, True, True]
    assert moves(child)


def test_a_process_is_stopped_by_another_of_its_company_alone(start):
    number = os.getpid()
    (process, count), (_, stranger) = start(number), start(number + 1)
    measures = "from helpers.base import company\nwith company.standing_still(): print('alone', flush=True); input()"
    environment = {**os.environ, company.VARIABLE: str(number)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", measures], env=environment, **pipes)
    assert first.stdout.readline() == "alone\n"
    second = subprocess.Popen([sys.executable, "-c", measures], env=environment, **pipes)
    try:
        assert not moves(count) and moves(stranger)
        assert not select.select([second.stdout], [], [], 1)[0]  # it waits
        first.stdin.write("\n")
        first.stdin.flush()
        assert second.stdout.readline() == "alone\n"
        assert not moves(count)
        second.kill()
        second.wait()
        assert not moves(count)  # nobody let it go on
        company.go_on()
        assert moves(count)
        assert first.wait(10) == 0 and process.poll() is None  # the first one had been stopped by the second
    finally:
        first.kill()
        second.kill()


def test_a_stopwatch_has_the_others_stand_still_to_its_own_end(start):
    """What is timed within what is timed lets nobody go on early, and does not wait for itself."""
    number = os.getpid()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    times = (
        "from helpers.base import company\nfrom helpers.tflite import measure\n"
        "with measure.stopwatch() as seconds:\n    with company.standing_still(): pass\n"
        "    print('inside', flush=True); input()\nprint(seconds() > 0, flush=True); input()"
    )
    environment = {**os.environ, company.VARIABLE: str(number)}
    _, count = start(number)
    with subprocess.Popen([sys.executable, "-c", times], env=environment, **pipes) as process:
        try:
            assert process.stdout.readline() == "inside\n" and not moves(count)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n" and moves(count)
        finally:
            process.kill()


def test_without_a_company_nothing_happens(start, monkeypatch):
    monkeypatch.delenv(company.VARIABLE, raising=False)
    _, count = start(os.getpid())
    with company.standing_still():
        assert moves(count)


def test_what_a_killed_tour_left_standing_is_ended(start):
    tour = subprocess.Popen([sys.executable, "-c", ""])
    tour.wait()
    (left, _), (runs, count), (mine, _) = start(tour.pid), start(tour.pid), start(os.getpid())
    for process in (left, mine):
        process.send_signal(signal.SIGSTOP)
    while psutil.Process(left.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    company.clear()
    assert left.wait(10) == -signal.SIGKILL
    assert runs.poll() is None and mine.poll() is None and moves(count)
