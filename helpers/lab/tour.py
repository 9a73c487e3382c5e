"""The tour: the notebooks in order with papermill, resumable, with one table at the end; and recording them.

What a tour writes goes under `repository.output_root()`: `<profile>/<notebook>.ipynb` are the executed copies,
`<profile>/tour.json` is the journal, and the notebooks themselves write `results/` and `figures/`.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from helpers.base import company, repository, runtime_env
from helpers.base.errors import InputError, OutputError, ResultsError
from helpers.evidence import results
from helpers.lab import notebook, parameters

INTERRUPTED = 130  # what a shell reports for Ctrl-C
# papermill, and nbclient through it, log what is reported here in one line, or is of no use to the reader.
logging.getLogger("papermill").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Stop:
    """One notebook of a tour: its file, the parameters to change (name -> value), the profile under which it
    records, and a key that changes with whatever decides its outcome."""

    path: Path
    changes: dict
    profile: str
    key: str

    @property
    def name(self):
        return self.path.stem


def run(only=(), profile=repository.QUICK, given=None, fresh=False, jobs=1):
    """Execute notebooks, print what happens, and return an exit code.

    only: notebooks by number, name or path; all if empty. profile: a name or a YAML file. given: parameters
    as typed, name -> text; each goes to every notebook that declares it. fresh: forget an interrupted tour. jobs: how many run at
    the same time; while one of them times something, the others stand still.
    Returns 0, 1 if a notebook failed or nothing could be written, 130 after Ctrl-C.
    Raises InputError before anything is started.
    """
    stops = plan(only, profile, given or {})
    # A run with other parameters, or by a private profile, whatever its name, stays apart from the profiles' own.
    label = repository.CUSTOM if given or Path(profile).suffix else profile
    folder = repository.output_root() / label
    journal = folder / ("-".join(["tour", *(stop.name[:2] for stop in stops if only)]) + ".json")
    finished = {} if fresh else _resumable(journal, stops, jobs, folder)
    if finished:
        print(f"Resuming the interrupted tour: {', '.join(finished)} finished before (--fresh reruns all).")
    try:
        _note(journal, finished)  # tells before the first notebook whether the folder can be written
        missing = [stop for stop in stops if stop.name not in finished]
        jobs = max(1, min(jobs, len(missing)))
        visits = _one_by_one(missing, folder) if jobs == 1 else _side_by_side(missing, folder, jobs)
        with contextlib.closing(visits):
            for stop, entry in visits:
                finished[stop.name] = {**entry, "jobs": jobs}
                _note(journal, finished)
        _note(journal, finished, complete=True)
    except KeyboardInterrupt:
        print("Interrupted: the next run resumes after the last finished notebook.")
        return INTERRUPTED
    except OSError as error:
        print(f"Error: {error}")
        return 1
    Console(markup=False, highlight=False).print(_summary({stop.name: finished[stop.name] for stop in stops}))
    return int(any(entry["error"] for entry in finished.values()))


def plan(only, profile, given):
    """The stops of a tour, every parameter checked. Arguments as for `run`, and so are the errors: InputError before anything runs."""
    parameters.contents.cache_clear()
    paths = notebook.selected(only)
    changes = {path: parameters.load_profile(profile, path.stem) for path in paths}
    if profile != repository.QUICK:
        skipped = [path.stem for path in paths if not changes[path]]
        paths = [path for path in paths if changes[path]]
        if not paths:
            raise InputError(f"profile={profile!r} mentions none of {', '.join(skipped)}.")
        if skipped:
            print(f"Skipped, since profile {profile} does not mention them: {', '.join(skipped)}.")
    declared = {path: list(parameters.declared(path)) for path in paths}
    known = sorted({name for names in declared.values() for name in names})
    for name in given:
        if name not in known:
            raise InputError(
                f"parameter {name!r} is unknown to {', '.join(path.stem for path in paths)}: "
                f"choose one of {', '.join(known)}."
            )
    stops = []
    for path in paths:
        own = {name: text for name, text in given.items() if name in declared[path]}
        wanted = {**changes[path], **{name: parameters.parse(path, name, text) for name, text in own.items()}}
        stops.append(stop_at(path, wanted))
    return stops


def stop_at(path, wanted):
    """The Stop of one notebook with parameters `wanted` (name -> value). Raises InputError as `parameters.check` does."""
    used = parameters.check(path, wanted)
    return Stop(path, {name: used[name] for name in wanted}, parameters.profile_of(path, used), _key(path, used))


def record(names=()):
    """Execute notebooks with their defaults and save them in place, without what differs from run to run.

    Results and figures go to the repository, where this machine becomes the reference. A notebook that fails stays as it
    was. Prints what happens and returns an exit code as `run` does; raises InputError for an unknown name.
    """
    code, revision = 0, results.git_revision() or ""
    for path in notebook.selected(names):
        copy = repository.REPOSITORY / "runs" / "record" / path.name
        try:
            environment = {
                repository.OUTPUT_VARIABLE: str(repository.REPOSITORY),
                repository.REVISION_VARIABLE: revision,
            }
            with _as_it_was(path.stem) as made:
                failure = execute(notebook.to_record(path), {}, copy, environment)
                if failure:
                    _tell(path.stem, failure, copy)
                    code = 1
                else:
                    executed = notebook.without_noise(nbformat.read(copy, as_version=4))
                    repository.write(path, nbformat.writes(executed) + "\n")
                    made()
        except KeyboardInterrupt:
            print(f"Interrupted: {path.name} is unchanged.")
            return INTERRUPTED
        except OSError as error:
            print(f"Error: {error}")
            return 1
    return code


@contextlib.contextmanager
def _as_it_was(name):
    """Put figures and results of a notebook back as they were, unless what is yielded was called: they belong to its outputs."""

    def there():
        figures = (repository.REPOSITORY / repository.figures_folder(repository.QUICK)).glob(f"{name[:2]}_*.svg")
        return [*figures, *results.RECORDED.glob(f"{repository.QUICK}/*/{name}.json")]

    former, recorded = {path: path.read_bytes() for path in there()}, []
    try:
        yield lambda: recorded.append(name)
    finally:
        if not recorded:
            for path in set(there()) - set(former):
                path.unlink()
            for path, content in former.items():
                repository.write(path, content)


def keep(profile, names=(), machine=False):
    """Copy the results of a finished run of `profile` on this machine from the output folder into the repository, its figures too.

    names: of the notebooks that ran, as `run` takes them; what lies there of others is left. machine: keep only the results, as those
    of one machine more, and leave reference and figures as they are.
    Returns the names of the notebooks whose results were kept. Raises ResultsError when there are none.
    """
    root, ran = repository.output_root(), [path.stem for path in notebook.selected(names)]
    kept = results.keep(profile, root, reference=not machine, notebooks=ran)
    folder = root / repository.figures_folder(profile)
    figures = [] if machine else sorted(path for name in kept for path in folder.glob(f"{name[:2]}_*.svg"))
    for path in figures:
        repository.write(repository.REPOSITORY / repository.figures_folder(profile) / path.name, path.read_bytes())
    return kept


def _key(path, used):
    """A hash of the notebook's cells without their outputs, of the helpers, of the packages, and of the parameters, with what the
    files hold that they name."""
    named = [each for value in used.values() for each in (value if isinstance(value, list) else [value])]
    files = [parameters.contents(each) for each in named if isinstance(each, str)]
    decisive = [notebook.code_hash(path), _versions(), used, files]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


_versions = functools.cache(runtime_env.versions)  # of thousands of points


def _resumable(journal, stops, jobs, folder):
    """The entries of an interrupted tour that still hold: name -> entry. A tour that ended leaves none; what ran in larger company
    than now is run again, and so is what another tour has run since with other parameters."""
    try:
        former = json.loads(journal.read_text())
        entries = {} if former["complete"] else former["notebooks"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: nothing is lost but time
        return {}
    return {
        stop.name: entry
        for stop in stops
        if (entry := entries.get(stop.name))
        and entry["key"] == stop.key
        and not entry["error"]
        and entry["jobs"] <= jobs
        and _ran_with(folder / stop.path.name) == stop.changes
    }


def _ran_with(copy):
    """The parameters that an executed copy was given, or None."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]["parameters"]


def _note(journal, finished, complete=False):
    repository.write(journal, json.dumps({"complete": complete, "notebooks": finished}, indent=1) + "\n")


def _one_by_one(stops, folder):
    """Execute stops, and yield each with its journal entry."""
    for stop in stops:
        yield stop, _entry(stop, folder, *_visit(stop, folder, {}))


def _side_by_side(stops, folder, jobs):
    """The same, several at a time: those that took long on record are begun first, and each is yielded when it ends."""
    from distributed import as_completed  # not before it is needed: it takes a while

    from helpers.lab import workers

    company.clear()
    try:
        with workers.client(None, jobs) as client, Progress(console=Console()) as progress:
            bar = progress.add_task("notebooks", total=len(stops))
            threads = min(runtime_env.THREADS, max(1, runtime_env.CORES // jobs))  # more would wait for each other
            together = company.environment() | {"TF_NUM_INTRAOP_THREADS": str(threads)}
            longest_first = sorted(stops, key=_seconds_on_record, reverse=True)
            waiting = {
                client.submit(_visit, stop, folder, together, progress=False, pure=False): stop
                for stop in longest_first
            }
            for future in as_completed(list(waiting), loop=client.loop):
                stop = waiting.pop(future)
                entry = _entry(stop, folder, *future.result())
                if entry["error"]:
                    company.go_on()  # it may have died while the others stood still for it
                progress.console.print(f"{stop.name}: {entry['seconds']:.0f} s", highlight=False)
                progress.advance(bar)
                yield stop, entry
    finally:
        company.go_on()


def _seconds_on_record(stop):
    try:
        return results.read(stop.name, stop.profile)["provenance"]["seconds"]
    except (ResultsError, KeyError):
        return float("inf")  # not to be left for the end


def _visit(stop, folder, environment, progress=True):
    """Execute one stop: what `execute` returns, when it began, and the seconds it took."""
    started, clock = time.time(), time.monotonic()
    environment = {**environment, repository.PROFILE_VARIABLE: folder.name}
    failure = execute(str(stop.path), stop.changes, folder / stop.path.name, environment, progress)
    return failure, started, round(time.monotonic() - clock, 1)


def _entry(stop, folder, failure, started, seconds):
    """What the journal keeps of a stop."""
    if failure:
        _tell(stop.name, failure, folder / stop.path.name)
    numbers, verdicts = ([], {}) if failure else _recorded(stop, started)
    error = failure[0].partition(":")[0] if failure else None
    return {"key": stop.key, "seconds": seconds, "error": error, "numbers": numbers, "verdicts": verdicts}


def execute(source, changes, copy, environment, progress=True):
    """Run a notebook (path or node) with other parameters and put the executed copy in place in one step.

    environment: variables for the kernel, over those of this process. progress: whether to show a bar.
    Returns None, or the lines of the error that stopped the notebook; its copy is then `<copy>.failed.ipynb`. Raises
    OutputError when the copy cannot be written, KeyboardInterrupt when the user stops it; a former copy is then unchanged.
    """
    partial = copy.with_name(f".{copy.name}")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        failure = _failure(source, changes, partial, environment, progress)
        failed = copy.with_suffix(".failed.ipynb")
        failed.unlink(missing_ok=True)
        partial.replace(failed if failure else copy)  # a failing run does not take a good copy's place
    except OSError as error:
        raise OutputError(
            f"{os.path.relpath(copy)} could not be made ({error.strerror or error}): free some space or "
            f"choose a writable folder in ${repository.OUTPUT_VARIABLE}; former files are unchanged."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return failure


def _failure(source, changes, copy, environment, progress):
    class Kernel(AsyncKernelManager):  # not os.environ: notebooks may run side by side in threads
        def start_kernel(self, **options):
            return super().start_kernel(**options, env={**os.environ, **environment})

    try:
        papermill.execute_notebook(
            source,
            copy,
            changes,
            kernel_name="python3",
            language="python",
            coalesce_streams=True,
            extra_arguments=["--log-level=CRITICAL"],  # else the kernel warns of TCP, in the midst of the progress bar
            progress_bar={"desc": copy.stem.strip("."), "dynamic_ncols": True} if progress else False,
            kernel_manager_class=Kernel,
            iopub_timeout=600,  # seconds: a kernel that stands still for another one has not lost its outputs
        )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}".splitlines()
    except OSError:
        raise
    except Exception as error:  # a kernel that dies or does not start raises many kinds
        if not copy.exists():  # papermill did not get as far as the notebook
            raise
        return f"{type(error).__name__}: {error}".splitlines()
    return None


def _tell(name, failure, copy):
    lines = failure if len(failure) <= 6 else [failure[0], "…", *failure[-4:]]
    print(
        f"{name} failed:",
        *lines,
        f"Executed copy: {os.path.relpath(copy.with_suffix('.failed.ipynb'))}",
        sep="\n  ",
        flush=True,
    )


def _recorded(stop, started):
    """What came out (texts), and the verdicts (claim -> verdict); both are empty if this run recorded nothing.

    Key numbers stand beside those that this very machine recorded before; how many agree is counted against the reference,
    whichever machine that was, since numbers that belong to the machine are not compared.
    """
    root = repository.output_root()
    path = root / "results" / stop.profile / runtime_env.machine_name() / f"{stop.name}.json"
    if not path.is_file() or path.stat().st_mtime < started:
        return [], {}
    content = results.read(stop.name, stop.profile, runtime_env.machine_name(), root)
    numbers, here = content["numbers"], {}
    with contextlib.suppress(ResultsError):
        here = results.read(stop.name, stop.profile, runtime_env.machine_name())["numbers"]
    told = []
    for name in notebook.key_numbers(stop.path, numbers):
        former = f" (was {_short(here[name])})" if name in here else ""
        told.append(f"{name} {_short(numbers[name])}{former}")
    with contextlib.suppress(ResultsError):  # nothing was recorded under these parameters
        table = results.compare(numbers, results.read(stop.name, stop.profile))
        agrees, absent = table["agrees"].dropna(), results.absent(table)
        lost = f", {len(absent)} recorded ones not made" if absent else ""
        told.append(f"{agrees.sum()} of {len(agrees)} numbers as recorded{lost}")
    return told, content["verdicts"]


def _short(estimate):
    value = f"{estimate.value:,.0f}" if abs(estimate.value) >= 1000 else f"{estimate.value:.4g}"
    return f"{value} {estimate.unit}".strip()


def _summary(entries):
    """A table for a terminal of 80 columns."""
    table = Table("notebook", Column("s", justify="right"), "what came out", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, entry in entries.items():
        parts = [f"failed: {entry['error']}"] if entry["error"] else entry["numbers"]
        for verdict in dict.fromkeys(entry["verdicts"].values()):
            claims = " ".join(claim for claim, given in entry["verdicts"].items() if given == verdict)
            parts = [*parts, f"{verdict}: {claims}"]
        table.add_row(name, f"{entry['seconds']:.0f}", "; ".join(parts))
    return table
