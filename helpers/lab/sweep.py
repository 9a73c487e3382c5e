"""A grid of parameters over one notebook, its points computed by Dask: on the cores of this machine or on a cluster.

A point has a folder of its own, laid out like an output folder: the executed copy, and `results/<profile>/<machine>/`. It is
written as soon as the point is finished, the numbers last, so that a rerun computes only what is missing. Beside the
points: `points.csv`, `summary.csv` when there are seeds to average over, and a figure for each key number.
"""

import contextlib
import hashlib
import itertools
import json
import math
import re
import tempfile
import traceback
from concurrent.futures import CancelledError
from pathlib import Path

import nbformat
import pandas as pd
from dask.system import CPU_COUNT
from distributed import as_completed, get_worker
from distributed.comm import get_address_host_port
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from helpers.base import repository
from helpers.base.errors import InputError, ResultsError
from helpers.evidence import plots, results, stats
from helpers.lab import notebook as notebooks
from helpers.lab import parameters, tour
from helpers.lab import workers as pool

SEEDS = ("seed", "seeds")  # parameters that only repeat a measurement
LARGEST = 5000  # points; checking so many takes half a minute
SHOWN = 50  # rows of the table on the screen
WRITTEN = "written.json"  # names of the tables and figures that belong to the last grid
_WHOLE_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::([1-9]\d*))?")
_COMMA = re.compile(r",(?![^\[]*\])")  # outside brackets


def run(notebook, texts, scheduler=None, workers=None, threads=1, output=None):
    """Compute what is missing of a grid, print what happens, write tables and figures, and return an exit code.

    notebook: as for `notebook.find`. texts: the grid as typed, see `parse`. scheduler: address of a Dask
    scheduler, or a cluster object of one of Dask's deployers; without it, `workers` processes are started here, by
    default as many as the cores carry. threads: TensorFlow's for each point; part of what decides the bits of a
    result. output: folder, by default `sweeps/<notebook>` in the output folder.
    Returns 0, 1 if a point failed, 130 after Ctrl-C. Raises InputError before
    anything is started, and InputError when the scheduler is lost; finished points are kept whatever happens. Points that
    run on another machine when the sweep is stopped come to their end there, unheard.
    """
    if scheduler and workers:
        raise InputError(f"workers={workers} is for a cluster on this machine: start them where {scheduler} is.")
    if isinstance(scheduler, str):
        _check_address(scheduler)
    path = notebooks.find(notebook).resolve()
    stops = plan(path, parse(path, texts))
    folder = Path(output) if output else repository.output_root() / "sweeps" / path.stem
    points = {folder / _name(stop, threads): stop for stop in stops}
    missing = {point: stop for point, stop in points.items() if _recorded(point, stop) is None}
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(points)} points, {len(points) - len(missing)} of them finished before.")
    repository.write(folder / "points.csv", table(points).to_csv(index=False))  # tells now whether it can be written
    _remove_former(folder)
    failed, code = [], 0
    try:
        if missing:
            workers = workers or min(max(1, CPU_COUNT // threads), len(missing))
            with pool.client(scheduler, workers) as client:
                failed = _compute(client, missing, threads, console)
        code = int(bool(failed))
    except KeyboardInterrupt:
        console.print("Interrupted: finished points are kept, and the same command goes on from there.")
        code = tour.INTERRUPTED
    finally:
        _conclude(folder, table(points), path, console)
    if failed:
        console.print(f"{len(failed)} of {len(points)} points failed; the same command tries them again.")
    return code


def parse(notebook, texts):
    """A grid as typed, name -> values: `name=0.5,0.8`, `name=0:5` (whole numbers, end excluded), `name=0:10:2`.

    Of a parameter that is a list, a value may be one entry (`seeds=0:5` makes five lists of one) or a list in
    brackets (`hidden_units=[256,128],[64]`). Raises InputError for what cannot be read, InputError for a name that
    the notebook does not declare.
    """
    grid = {}
    for text in texts:
        name, equals, typed = (part.strip() for part in text.partition("="))
        if not (name and equals):
            raise InputError(f"grid={text!r} must read name=value,value or name=start:end.")
        if name in grid:
            raise InputError(f"grid names {name!r} twice: give all its values at once, as in {name}=1,2.")
        values = _range(notebook, name, typed)
        if values is None:
            words = [word.strip() for word in _COMMA.split(typed)]
            values = [parameters.parse(notebook, name, word) for word in words] if all(words) else []
        if not values:
            raise InputError(f"grid={text!r} holds no value, or an empty one: it must read name=value,value.")
        for place, value in enumerate(values):
            if value in values[:place]:
                raise InputError(f"grid={text!r} holds {value!r} twice: every point is computed once.")
        grid[name] = values
    return grid


def plan(path, grid):
    """The Stops of all combinations of a grid (name -> values), each checked. Raises InputError."""
    size = math.prod(len(values) for values in grid.values())
    if not grid:
        raise InputError("grid is empty: give at least one parameter, as in seed=0:5.")
    if size > LARGEST:
        raise InputError(f"grid has {size:,} points, more than {LARGEST:,}: make it coarser, or sweep it in parts.")
    parameters.contents.cache_clear()
    return [tour.stop_at(path, dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]


def table(points):
    """The finished among `points` (folder -> Stop) as a tidy frame: point, a column for each parameter of the grid, number,
    value, low, high, unit; a row for each number of each point. Of points from several machines, numbers that belong to a
    machine, such as latency, have its name in another column, `machine`, and are neither averaged nor drawn together."""
    names = list(dict.fromkeys(name for stop in points.values() for name in stop.changes))
    rows, machines = [], set()
    for point, stop in points.items():
        at = {name: json.dumps(value) if isinstance(value, list) else value for name, value in stop.changes.items()}
        found = _recorded(point, stop)
        if found is None:
            continue
        machines.add(found["machine"])
        for number, estimate in found["numbers"].items():
            of = "" if found["tolerances"][number] is not None else found["machine"]
            rows.append({"point": point.name, **at, "machine": of, "number": number, **vars(estimate)})
    told = ["machine"] if len(machines) > 1 else []
    frame = pd.DataFrame(rows, columns=["point", *names, *told, "number", "value", "low", "high", "unit"])
    return frame.astype({"value": float, "low": float, "high": float})


def summary(frame):
    """Means over the seeds of a `table`, with their t intervals: the same columns without point and seeds, and
    `repetitions`, how many seeds there were. A single seed has no interval."""
    kept = [name for name in _parameters(frame) if name not in SEEDS] + ["number"]
    rows = []
    for at, part in frame.groupby(kept, sort=False):
        estimate = stats.mean(part["value"], part["unit"].iloc[0])
        rows.append({**dict(zip(kept, at, strict=True)), **vars(estimate), "repetitions": len(part)})
    columns = [*kept, "value", "low", "high", "unit", "repetitions"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def figure(frame, number):
    """One number of a `table` or `summary`: against the first numeric parameter as lines, one for each combination of
    the others, or all combinations one above the other if none is numeric."""
    part = frame[frame["number"] == number]
    names = _varied(part)
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(part[name]) and part[name].dtype != bool]
    others = part[[name for name in names if name not in numeric[:1]]].to_dict("records")
    labels = [", ".join(f"{name}={value}" for name, value in at.items()) or number for at in others]
    repeated = "repetitions" in part
    title = f"{number}: {'means over seeds (95% interval)' if repeated else 'each point as it was recorded'}"
    unit = part["unit"].iloc[0]
    label = f"{number}, {unit}" if unit else number
    if not numeric:
        named = part.assign(index=labels).set_index("index")
        return plots.intervals(named, title, label, percent=unit == "share")
    x = numeric[0]
    lines = part.assign(by=labels).sort_values(x, kind="stable")
    return plots.curves(lines, x, "value", "by", title, x, label, percent="y" if unit == "share" else "")


def compute(source, name, changes, threads):
    """Run one point; this is what a worker does. source: the notebook as text. Returns texts and lines:
    (executed copy, recorded numbers as (place in the output folder, text) or None, error or None)."""
    with tempfile.TemporaryDirectory(prefix="point-", dir=get_worker().local_directory) as folder:
        copy = Path(folder) / f"{name}.ipynb"
        environment = {
            repository.OUTPUT_VARIABLE: folder,
            repository.PROFILE_VARIABLE: repository.CUSTOM,
            "TF_NUM_INTRAOP_THREADS": str(threads),
        }
        error = tour.execute(nbformat.reads(source, as_version=4), changes, copy, environment, progress=False)
        if error:
            return copy.with_suffix(".failed.ipynb").read_text(encoding="utf-8"), None, error
        recorded = list(Path(folder).glob(f"results/*/*/{name}.json"))
        if not recorded:
            error = [f"{name} recorded no numbers: a notebook to sweep ends with run.conclude(...)."]
            return copy.read_text(encoding="utf-8"), None, error
        found = recorded[0].relative_to(folder).as_posix(), recorded[0].read_text(encoding="utf-8")
        return copy.read_text(encoding="utf-8"), found, None


def _range(notebook, name, typed):
    """The whole numbers of `start:end[:step]`, or None if it is no range. Raises InputError where they do not fit."""
    found = _WHOLE_RANGE.fullmatch(typed)
    declared = parameters.declared(notebook).get(name)
    if not found or not declared or isinstance(declared.default, str):
        return None
    several = isinstance(declared.default, list)
    if type(declared.default[0] if several and declared.default else declared.default) is not int:
        raise InputError(
            f"grid={name}={typed!r} is a range of whole numbers, and {name} takes others: list its values."
        )
    start, end, step = (int(part or 1) for part in found.groups())
    return [[value] if several else value for value in range(start, end, step)]


def _name(stop, threads):
    """The name of a point's folder: readable, and another one whenever anything changes that decides its numbers."""
    told = _file_name("-".join(f"{name}={value}" for name, value in stop.changes.items()))
    return f"{told[:80]}-{hashlib.sha256(f'{stop.key} {threads}'.encode()).hexdigest()[:10]}"


def _file_name(text):
    return re.sub(r"[^\w.=+-]+", "_", text)


def _recorded(point, stop):
    """What a finished point recorded, as `results.read` gives it, or None."""
    with contextlib.suppress(ResultsError, OSError):
        return results.read(stop.name, stop.profile, root=point)


def _check_address(scheduler):
    try:
        get_address_host_port(scheduler)
    except ValueError as error:
        raise InputError(f"scheduler={scheduler!r} is no address ({error}): it reads tcp://host:8786.") from error


def _compute(client, missing, threads, console):
    """Have the points computed and write each; returns the folders of those that failed."""
    path = next(iter(missing.values())).path
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []  # megabytes that nobody reads
    source = nbformat.writes(notebook)
    if not client.scheduler_info()["workers"]:
        console.print("The scheduler has no workers yet: waiting for them.")
    waiting = {
        client.submit(compute, source, path.stem, stop.changes, threads, pure=False): point
        for point, stop in missing.items()
    }
    failed, told = [], set()
    with Progress(console=console) as progress:
        bar = progress.add_task("points", total=len(missing))
        for future in as_completed(list(waiting), loop=client.loop):
            point = waiting.pop(future)  # the cluster forgets the result, since nobody holds it any more
            error, origin = _write(point, missing[point], future)
            if error:
                failed.append(point)
                console.print(f"{point.name} failed: {error}")
                if error not in told:
                    console.print(Text.from_ansi(origin))
                told.add(error)
            progress.advance(bar)
    return failed


def _write(point, stop, future):
    """Put a finished point in its folder; its error, if any, as (one line, traceback)."""
    failed = point / f"{stop.name}.failed.ipynb"
    try:
        copy, recorded, error = future.result()
    except CancelledError as lost:
        raise InputError("the scheduler was lost: finished points are kept, and the same command goes on.") from lost
    except Exception as raised:  # the cluster's: workers that died one after another, or have no helpers installed
        return f"{type(raised).__name__}: {raised}".splitlines()[0], "".join(traceback.format_exception(raised))
    if error:
        repository.write(failed, copy)
        return " ".join(error), _traceback(copy)
    repository.write(point / f"{stop.name}.ipynb", copy)
    place, text = recorded
    repository.write(point / place, text)
    failed.unlink(missing_ok=True)
    return None, ""


def _traceback(copy):
    outputs = (out for cell in nbformat.reads(copy, as_version=4).cells for out in cell.get("outputs", []))
    return "\n".join(line for out in outputs if out.output_type == "error" for line in out.traceback)


def _conclude(folder, frame, path, console):
    """Write the tables and figures of what is finished, and print the key numbers."""
    repository.write(folder / "points.csv", frame.to_csv(index=False))
    if frame.empty:
        return
    written = ["points.csv"]
    repeated = any(name in SEEDS for name in _parameters(frame))
    numbers = notebooks.key_numbers(path, list(dict.fromkeys(frame["number"])))
    drawn = [f"{_file_name(number)}.svg" for number in numbers]
    repository.write(folder / WRITTEN, json.dumps([*["summary.csv"] * repeated, *drawn]))
    if repeated:
        frame = summary(frame)
        repository.write(folder / "summary.csv", frame.to_csv(index=False))
        written.append("summary.csv")
    for number, name in zip(numbers, drawn, strict=True):
        written.append(name)
        plots.write(figure(frame, number), folder / name)
    names = _varied(frame)
    shown = Table(*names, *numbers)
    groups = list(frame.groupby(names, sort=False)) if names else [((), frame)]
    for at, part in groups[:SHOWN]:
        found = part.drop_duplicates("number").set_index("number")
        shown.add_row(*map(str, at), *(_cell(found.loc[name]) if name in found.index else "" for name in numbers))
    console.print(shown)
    if len(groups) > SHOWN:
        console.print(f"and {len(groups) - SHOWN} more")
    console.print(f"{folder}: {', '.join(written)}")


def _remove_former(folder):
    """Remove what a sweep over another grid wrote beside its points, and nothing else."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        for name in json.loads((folder / WRITTEN).read_text()):
            (folder / Path(name).name).unlink(missing_ok=True)
        (folder / WRITTEN).unlink()


def _parameters(frame):
    return [name for name in frame.columns[: list(frame.columns).index("number")] if name != "point"]


def _varied(frame):
    return [name for name in _parameters(frame) if name not in SEEDS and frame[name].nunique() > 1]


def _cell(row):
    """A number as text, with its interval where it has one: four significant digits."""
    ends = "" if pd.isna(row["low"]) else f" [{row['low']:.4g}, {row['high']:.4g}]"
    return f"{row['value']:.4g}{ends} {row['unit']}".strip()
