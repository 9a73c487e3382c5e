"""Runs the notebooks and tells of them: parameters, runs, tours, sweeps, recordings, exercises, README, the site.

A notebook begins with `run = lab.begin(name, globals())`.
"""

from helpers.base import extras


def __getattr__(name):
    with extras.needed(f"lab.{name}"):
        if name == "begin":
            from helpers.lab.run import begin

            return begin
        if name in ("overview", "course"):
            from helpers.lab import notebook

            return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
