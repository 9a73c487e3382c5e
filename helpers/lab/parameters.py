"""The parameters of a notebook: what it declares, and whether given values fit, before anything runs.

A notebook declares them in its cell tagged `parameters`, one a line, with a comment that a reader and this module
both understand:

    final_sparsity = 0.8  # share of zeros at the end; in [initial_sparsity, 1)
    dataset = "mnist5k"   # one of mnist5k, mnist, or an .npz file

The default gives the type. `in [a, b)` gives the range, an end may be another parameter or missing; for a list it
holds for every entry. `one of a, b` gives the choices; after "or", the words ".npz" and "folder" admit paths as well.
"""

import ast
import contextlib
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab.notebook import find, read

_RANGE = re.compile(r"\bin ([\[(])([^,\[\]()]*),([^,\[\]()]*)([\])])")
_CHOICES = re.compile(r"\bone of ([^;]+)")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its default, and its comment, which holds range and choices."""

    name: str
    default: object
    comment: str


def declared(notebook):
    """The parameters that a notebook declares: name -> Parameter, in order. Raises InputError if it has no such cell."""
    path = find(notebook)
    return _declared(path, path.stat().st_mtime_ns)


@functools.cache
def _declared(path, _modified):
    cells = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{path.name} has {len(cells)} cells tagged 'parameters': it must have one.")
    source = cells[0].source
    lines = source.splitlines()
    found = {}
    for statement in ast.parse(source).body:
        name = statement.targets[0].id
        comment = lines[statement.end_lineno - 1].partition("#")[2].strip()
        found[name] = Parameter(name, ast.literal_eval(statement.value), comment)
    return found


def defaults(notebook):
    """The values that a notebook runs with when nothing is given: name -> value."""
    return {name: parameter.default for name, parameter in declared(notebook).items()}


def profiles(notebook):
    """The named sets of values for a notebook: "quick" (its defaults) and each of `notebooks/profiles/*.yaml`."""
    name = find(notebook).stem
    sets = {repository.QUICK: defaults(notebook)}
    for path in sorted((repository.NOTEBOOKS / "profiles").glob("*.yaml")):
        changes = _profile(path).get(name)
        if changes is not None:
            sets[path.stem] = check(notebook, changes)
    return sets


def profile_of(notebook, used):
    """Under which name a run is kept: the profile whose parameters it has ("quick" is the notebook's own
    defaults), or "custom", so that a run with other parameters never passes for a recorded one."""
    for profile, values in profiles(notebook).items():
        if used == values:
            return profile
    return repository.CUSTOM


def check(notebook, given):
    """The full set of values for a notebook: its defaults with `given` (name -> value) laid over.

    Raises InputError for a name that is not declared, a value of another type than the default, or one
    outside the declared range or choices.
    """
    known = declared(notebook)
    for name in given:
        if name not in known:
            raise InputError(f"parameter {name!r} is unknown to {find(notebook).stem}: it has {', '.join(known)}.")
    values = {name: _typed(known[name], given[name]) if name in given else known[name].default for name in known}
    for name in sorted(values, key=lambda name: name not in given):  # blame what was given, not what it clashes with
        value = values[name]
        for entry in value if isinstance(value, list) else [value]:
            _check_range(known[name], entry, values)
            _check_choice(known[name], entry)
    return values


def used(notebook, namespace):
    """The values that a running notebook has, checked as by `check`; namespace: its `globals()`."""
    return check(notebook, {name: namespace[name] for name in declared(notebook) if name in namespace})


def parse(notebook, name, text):
    """A value typed on the command line, as the type of the parameter's default.

    "0.95" for a float, "1,2,3" or "[1, 2, 3]" for a list, of words also without quotes, "true" or "false" for a bool. Raises InputError.
    """
    known = declared(notebook)
    if name not in known:
        check(notebook, {name: text})
    parameter = known[name]
    if isinstance(parameter.default, str):
        return text
    if isinstance(parameter.default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    listed = isinstance(parameter.default, list)
    if listed and not text.startswith("["):
        text = f"[{text}]"
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(text)
    if listed and isinstance(next(iter(parameter.default), None), str) and text.endswith("]"):
        return [word.strip().strip("'\"") for word in text[1:-1].split(",") if word.strip()]
    return text


def load_profile(name, notebook):
    """The changes that profile `name` makes to a notebook: "quick", a name in `notebooks/profiles/`, or a YAML file.

    Raises InputError if there is no such profile or the file is not a mapping of notebooks.
    """
    if name == repository.QUICK:
        return {}
    path = Path(name) if name.endswith((".yaml", ".yml")) else repository.NOTEBOOKS / "profiles" / f"{name}.yaml"
    if not path.is_file():
        known = [repository.QUICK, *sorted(path.stem for path in (repository.NOTEBOOKS / "profiles").glob("*.yaml"))]
        raise InputError(f"profile={name!r} is unknown: choose one of {', '.join(known)}, or give a .yaml file.")
    content = _profile(path)
    if not isinstance(content, dict):
        raise InputError(f"profile={name!r} must map the names of notebooks to their parameters.")
    return content.get(notebook) or {}


@functools.cache
def contents(value):
    """Of a parameter that names a file, a folder, a data set or a checkpoint: a hash of the sizes and times of what is there; "" of any
    other."""
    found = []
    photos = [repository.flowers_folder()] if value == "flowers" else []  # the one set that no hash is known of
    for path in (Path(value), repository.REPOSITORY / "checkpoints" / f"{value}.keras", *photos) if value else ():
        with contextlib.suppress(OSError):
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            found += [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if found else ""


def _profile(path):
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"profile={str(path)!r} cannot be read ({cause}): give a YAML file.") from error


def _typed(parameter, value):
    default = parameter.default
    wanted = type(default)
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if fits and wanted is list and default:
        fits = bool(value) and all(
            type(entry) is type(default[0]) or (type(default[0]) is float and type(entry) is int) for entry in value
        )
    if not fits:
        kind = (
            f"a non-empty list of {type(default[0]).__name__}"
            if wanted is list and default
            else f"of type {wanted.__name__}"
        )
        raise InputError(f"parameter {parameter.name}={value!r} must be {kind}, like its default {default!r}.")
    return float(value) if wanted is float else value


def _check_range(parameter, value, values):
    found = _RANGE.search(parameter.comment)
    if not found:
        return
    opening, low, high, closing = found.groups()
    low, high = (
        values.get(end.strip(), None) if end.strip().isidentifier() else float(end) if end.strip() else None
        for end in (low, high)
    )
    above = low is None or (value >= low if opening == "[" else value > low)
    below = high is None or (value <= high if closing == "]" else value < high)
    if not (above and below):
        others = [end.strip() for end in found.groups()[1:3] if end.strip().isidentifier()]
        where = "".join(f", where {name} is {values[name]:g}" for name in others if name in values)
        raise InputError(f"parameter {parameter.name}={value!r} must lie {found.group(0)}{where}.")


def _check_choice(parameter, value):
    found = _CHOICES.search(parameter.comment)
    if not found:
        return
    choices, _, other = found.group(1).partition(", or ")
    if value in [choice.strip() for choice in choices.split(",")]:
        return
    text = str(value)
    own = (".npz" in other and text.endswith(".npz")) or ("folder" in other and repository.names_folder(text))
    if not own:
        raise InputError(f"parameter {parameter.name}={value!r} must be one of {found.group(1).strip()}.")
    if not Path(value).exists():
        raise InputError(f"parameter {parameter.name}={value!r} names a path that does not exist.")
