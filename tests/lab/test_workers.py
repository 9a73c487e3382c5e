"""Workers of Dask on this machine: what they are told, and that it stays with them."""

import dask

from helpers.lab import workers


def test_workers_on_this_machine_neither_profile_nor_watch_themselves():
    before = {name: dask.config.get(name) for name in workers.AT_REST}
    with workers.client(None, 1) as client:
        for name, value in workers.AT_REST.items():
            assert [*client.run(dask.config.get, name).values()] == [value]
    assert {name: dask.config.get(name) for name in workers.AT_REST} == before
