"""The pages of the site that describe commands and modules: from what click and the docstrings say, and nothing beside."""

import functools
import importlib
import inspect

import click

import helpers

# What a project of one's own takes from the lab, by room; it comes first.
TAKEN_HOME = {
    "deploy": ("gate", "gate_report", "policy", "package"),
    "compress": ("sensitivity", "bits", "bits_report", "budget", "tflite_training", "requantize", "rescue", "channels"),
    "tflite": ("measure",),
}
# What a package stands for: name -> modules.
BEHIND = {"lab": ("helpers.lab", "helpers.lab.run", "helpers.lab.notebook")}
WIDTH = 88  # characters of a command's help
INDEX = """# Python

What notebooks import, and what a project of one's own can use: `from helpers import gate`, and so on. A module is loaded when it
is first asked for; the gate loads no TensorFlow.
"""


@functools.cache
def groups():
    """The modules that are described: caption -> name -> module. First those to take home, then what else the front door hands
    out, room by room. Loads them all."""
    taken = {name: f"helpers.{room}.{name}" for room, named in TAKEN_HOME.items() for name in named}
    found = {"To take home": {name: importlib.import_module(place) for name, place in taken.items()}}
    in_rooms = {name: room for room, named in helpers.ROOMS.items() for name in named}
    for room in [*helpers.ROOMS, None]:
        beside = [name for name in helpers.__all__ if name not in taken and in_rooms.get(name) == room]
        found[f"In `{room}`" if room else "The lab"] = {name: getattr(helpers, name) for name in beside}
    return {caption: named for caption, named in found.items() if named}


def names():
    """The names of the modules that are described, in order."""
    return [name for named in groups().values() for name in named]


def modules():
    """The modules that are described, with those behind packages."""
    return [importlib.import_module(place) for name in names() for place in _places(name)]


def index():
    """The page that leads to every module, as Markdown."""
    parts = [INDEX]
    for caption, named in groups().items():
        rows = [f"| [`{name}`]({name}.rst) | {_purpose(module)} |" for name, module in named.items()]
        parts += ["\n".join([f"## {caption}\n", "| module | what it is for |", "| --- | --- |", *rows]) + "\n"]
    return "\n".join(parts)


def page(name):
    """The page of a module, as reStructuredText for autodoc."""
    room = next(named[name] for named in groups().values() if name in named).__name__.rpartition(".")[0]
    line = f"from {'helpers' if name in helpers.__all__ else room} import {name}"
    parts = [f"{name}\n{'=' * len(name)}", f".. code-block:: python\n\n   {line}"]
    return "\n\n".join([*parts, *(f".. automodule:: {place}\n   :members:" for place in _places(name))]) + "\n"


def commands(group, called="compression-lab"):
    """What every command of a click group answers to --help, as Markdown."""
    parts = [f"# Commands\n\n{inspect.cleandoc(group.help or '')}\n"]
    for level, context in _walked(click.Context(group, info_name=called, terminal_width=WIDTH), 1):
        told = context.command.get_help(context)
        parts.append(f"{'#' * level} {context.command_path.removeprefix(called).strip()}\n\n```text\n{told}\n```\n")
    return "\n".join(parts)


def _walked(context, level):
    if level > 1:
        yield level, context
    if isinstance(context.command, click.Group):
        for name, command in context.command.commands.items():
            yield from _walked(click.Context(command, context, name, terminal_width=WIDTH), level + 1)


def _places(name):
    module = next(named[name] for named in groups().values() if name in named)
    return BEHIND.get(name, (module.__name__,))


def _purpose(module):
    """The first sentence of a module's docstring, as a cell of a table."""
    paragraph = " ".join(inspect.getdoc(module).split("\n\n")[0].split())
    return paragraph.replace("|", r"\|")
