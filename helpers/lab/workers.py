"""Dask's workers: on this machine, or those of a cluster."""

import contextlib
import logging
import signal

from distributed import Client, LocalCluster, WorkerPlugin

from helpers.base.errors import InputError

CONNECT_SECONDS = 10


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
