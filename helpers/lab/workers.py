"""Dask's workers: on this machine, or those of a cluster."""

import contextlib
import logging
import signal

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from helpers.base.errors import InputError

CONNECT_SECONDS = 10
# As they come, three idle processes of Dask take a seventh of a core and more, which the notebooks beside them lack: a profiler
# looks at each a hundred times a second, and the event loop at itself fifty times.
AT_REST = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}


class _Uninterrupted(WorkerPlugin):
    """Ctrl-C in a terminal reaches every process in it; it is for who started the workers, and ends them."""

    def setup(self, worker):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def client(scheduler, workers):
    """A Client of a scheduler (address, or cluster object of one of Dask's deployers); without one, of so many processes on this
    machine. Raises InputError when the scheduler does not answer."""
    for logger in ("distributed", "distributed.client"):  # lost workers are replaced, all else is told by the caller
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        address = scheduler
        if not scheduler:
            stack.enter_context(dask.config.set(AT_REST))
            # One thread a process: TensorFlow's threads fill the core.
            address = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
            )
            stack.enter_context(address)
        try:
            connected = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except OSError as error:
            raise InputError(
                f"scheduler={scheduler!r} does not answer ({error}): is `dask scheduler` running?"
            ) from error
        if not scheduler:
            connected.register_plugin(_Uninterrupted())
        yield connected
