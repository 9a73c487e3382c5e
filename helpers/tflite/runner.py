"""Runs `.tflite` files where they are to be judged: in a child process here, or on another machine.

Needs Python, numpy and ai_edge_litert, and of the lab the file `interpreting.py` beside it: both are copied to the other
machine. The task `alone` and the accelerator, which are asked for here only, need `packing.py` and `accelerated.py` as well.

    python runner.py '{"task": "memory", "model": "model.tflite", "threads": 1}'

takes a job as JSON (from standard input if it is not an argument) and prints its answer as one line of JSON. A job that
fails answers {"error": a sentence, "kind": one of KINDS}. File names are relative to the working directory. The tasks:

    predict  model, samples (.npz, uncompressed: an array for each input by its name; any name where there is one), batch, threads, show,
             write (how the names of files begin)  ->  inputs, outputs (what the file declares), first (of each
             output the real numbers for the first `show` samples); and, where `write` is given, of each output a file
             <write><place>.npy, float32 (n, ...); instead of all that `unusable`, why these samples do not fit the file
    time     models (name -> file), samples, rounds, blocks, threads  ->  blocks: a list for each, of rounds, of seconds
             by name
    memory   model (or none), shapes (of one sample for each input: name -> shape, dtype), threads  ->  bytes, the resident
             high-water mark of the process
    count    models (name -> file), samples, times  ->  names, in the order of the marks that a counter outside finds in what this process
             executed: for each model one, another at once, then one behind each inference of the first sample, one thread
    alone    model, signature (a name), write (a file's name)  ->  {}; the file with that signature alone, or no file where the model
             has no other; or `unusable`, why not
    machine  ->  system, cpu, cores, python, ai-edge-litert; and with an accelerator its adapters
    call     module, function, path (of the folder that its package lies in), samples  ->  what the function answers to the job
             and the samples; for what is only asked here
    all      jobs  ->  answers, each job in a process of its own

`predict`, `time` and `machine` take an "accelerator": "gpu" is LiteRT's, one sample at a time, "gpu:float32" the same without float16.
Any job may give "limits": {"seconds": of the clock and of each thread's processor time, "bytes": of address space that a
model may add to the process}. They bound accidents: a file that crashes, hangs or allocates without end. A model file is data, but the
interpreter that reads it is native code, so files from strangers belong in a container as well.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile


def _beside(name):
    """A module in this file's folder, which is kept from the path where this file runs by itself."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


if __package__:
    from helpers.tflite import interpreting
else:
    interpreting = _beside("interpreting")

KINDS = ("refused", "crashed", "out of time", "out of memory", "garbled")
MARK = 1886  # of the user whose priority is asked for, as the counter knows it
LONGEST_ANSWER = 2**26


def run(job, folder=None, python=None, variables=None):
    """The answer to a job, given by a fresh process that works in `folder`; whatever befalls it becomes an answer.

    python: the command that starts one, with its options. variables: of its environment, beside those of this process."""
    limits = job.get("limits", {})
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **(variables or {})}
    # -P: the modules beside this file must not pass for packages of the same name. Older Pythons do not know it.
    here = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    command = [*(python or here), os.path.abspath(__file__), json.dumps(job)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(limits.get("seconds"))
        except subprocess.TimeoutExpired:
            return _error("out of time", f"it was stopped after {limits['seconds']:g} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return _answer(code, _tail(out, LONGEST_ANSWER), _tail(errors, 4096), limits)


def run_all(jobs, folder=None):
    """The answers to several jobs, each from a process of its own, in order."""
    return [run(job, folder) for job in jobs]


# --- the process that runs a job


def _end_with_parent():
    """Let this process be killed when the one that started it is gone, which may have been killed itself. Linux only."""
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes  # which not every Python has

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _serve():
    if len(sys.argv) > 1:  # started by `run`
        _end_with_parent()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints must not mix with the answer
    job = json.loads(sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read())
    try:
        answer = _TASKS[job["task"]](job)
    except ImportError as error:
        answer = {**_error("refused", _sentence(error)), "missing": error.name}
    except MemoryError as error:
        answer = _error("out of memory", _sentence(error))
    except Exception as error:  # the interpreter raises ValueError, RuntimeError and what its bindings let through
        answer = _error("refused", _sentence(error))
    channel.write(json.dumps(answer) + "\n")
    channel.flush()
    os._exit(0)  # the destructors of a damaged model must not turn an answer into a crash


def _predict(job):
    import numpy as np

    samples = _samples(job)
    _restrict(job)
    opened = interpreting.opened(job["model"], job["threads"])
    inputs, outputs = interpreting.declared(opened)
    answer = {"inputs": inputs, "outputs": outputs}
    unusable = (
        interpreting.ambiguous(opened)
        or interpreting.unusable(inputs, outputs, samples)
        or interpreting.remembers(opened, job["model"], samples)
    )
    if unusable:
        return {**answer, "unusable": unusable}
    arrays = interpreting.fed(inputs, samples)
    size = 1 if job.get("accelerator") else interpreting.at_a_time(arrays, job["batch"])
    if size > 1 and interpreting.admits_batches(job["model"], size, samples):
        runner = interpreting.load(job["model"], job["threads"], size, samples)
    else:
        size = 1
        runner = _loaded(job, job["model"], job["threads"], samples)
    first, shapes, targets = [[] for _ in outputs], None, runner.get_output_details()
    files = [open(f"{job['write']}{place}.npy", "wb") for place in range(len(outputs))] if job.get("write") else []
    for raw in interpreting.batches(runner, arrays, size):
        found = [np.asarray(interpreting.real_numbers(*each), "float32") for each in zip(raw, targets)]
        if shapes is None:
            shapes = [each.shape[1:] for each in found]
            for file, shape in zip(files, shapes):
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(arrays[0]), *shape)}
                np.lib.format.write_array_header_1_0(file, header)
        if [each.shape[1:] for each in found] != shapes:
            return {**answer, "unusable": "its outputs have other shapes for other samples"}
        for each, kept in zip(found, first):
            kept += each[: max(0, job.get("show", 0) - len(kept))].astype(float).tolist()
        for each, file in zip(found, files):
            file.write(np.ascontiguousarray(each, "<f4").tobytes())
    for file in files:
        file.close()
    return {**answer, "first": first}


def _time(job):
    samples = {name: array[:1] for name, array in _samples(job).items()}
    _restrict(job)
    load = {
        name: lambda threads, file=file: _loaded(job, file, threads, samples) for name, file in job["models"].items()
    }
    return {"blocks": interpreting.interleaved(load, samples, job["rounds"], job["blocks"], job["threads"])}


def _loaded(job, file, threads, samples):
    """For one sample at a time."""
    if job.get("accelerator"):
        return _beside("accelerated").Accelerated(file, job["accelerator"].endswith(":float32"))
    return interpreting.load(file, threads, samples=samples)


def _count(job):
    samples = {name: array[:1] for name, array in _samples(job).items()}
    _restrict(job)
    gc.disable()
    for file in job["models"].values():
        runner = interpreting.load(file, 1, samples=samples)
        interpreting.put(runner, samples)
        for _ in range(2):
            runner.invoke()
        for times in (0, 0, *[1] * job["times"]):
            for _ in range(times):
                runner.invoke()
            with contextlib.suppress(OSError):
                os.getpriority(os.PRIO_USER, MARK)
    return {"names": list(job["models"])}


def _memory(job):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401 - the empty process loads it as well

    _restrict(job)
    if job.get("model"):
        samples = {name: np.zeros(shape, dtype) for name, (shape, dtype) in job.get("shapes", {}).items()}
        runner = interpreting.load(job["model"], job["threads"], samples=samples or None)
        interpreting.put(runner, samples or None)
        for _ in range(3):
            runner.invoke()
    if os.path.exists("/proc/self/status"):  # Linux's ru_maxrss would start from the parent's memory
        with open("/proc/self/status") as status:
            return {"bytes": 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read()).group(1))}
    import resource

    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}  # macOS counts in bytes


def _alone(job):
    packing = _beside("packing")
    _restrict(job)
    with open(job["model"], "rb") as file:
        blob = file.read()
    names, single = packing.signatures(blob)
    try:
        place = interpreting.chosen(names, job["signature"])
    except ValueError as error:
        return {"unusable": str(error)}
    if not single:
        with open(job["write"], "wb") as file:
            file.write(packing.alone(blob, place))
    return {}


def _machine(job):
    import ai_edge_litert

    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as found:
            names = re.findall(r"^(?:model name|Model)\s*: (.*)", found.read(), re.MULTILINE)
        cpu = names[0] if names else cpu
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ai-edge-litert": getattr(ai_edge_litert, "__version__", None),
        **({"adapters": _beside("accelerated").adapters()} if job.get("accelerator") else {}),
    }


def _call(job):
    sys.path.append(job["path"])
    function = getattr(importlib.import_module(job["module"]), job["function"])
    samples = _samples(job)
    _restrict(job)
    return function(job, samples)


def _all(job):
    return {"answers": run_all(job["jobs"])}


_TASKS = {
    "predict": _predict,
    "time": _time,
    "memory": _memory,
    "count": _count,
    "alone": _alone,
    "machine": _machine,
    "call": _call,
    "all": _all,
}


def _samples(job):
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401 - before the limits, which count from here

    with zipfile.ZipFile(job["samples"]) as archive, open(job["samples"], "rb") as file:
        return {entry.filename[: -len(".npy")]: _mapped(file, entry) for entry in archive.infolist()}


def _mapped(file, entry):
    """An array of an uncompressed `.npz`, mapped: to read a thousand photos takes longer than to start a process."""
    import numpy as np

    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed: numpy.savez stores arrays as they are")
    file.seek(entry.header_offset + 26)
    file.seek(
        entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    )  # behind a name and what else there is
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    order = "F" if by_columns else "C"
    return np.memmap(file, dtype, "r", file.tell(), shape, order)


def _restrict(job):
    """Set the job's limits on this process, from now on."""
    limits = job.get("limits")
    if not limits:
        return
    import resource

    def limit(what, soft, hard):
        _, least = resource.getrlimit(what)  # of whoever started this process; it cannot be raised
        if least != resource.RLIM_INFINITY:
            soft, hard = min(soft, max(0, least - (hard - soft))), min(hard, least)
        resource.setrlimit(what, (soft, hard))

    limit(resource.RLIMIT_CORE, 0, 0)
    longest = max(LONGEST_ANSWER, int(limits["bytes"]))  # what a model answers is written to files
    limit(resource.RLIMIT_FSIZE, longest, longest)
    seconds = math.ceil(limits["seconds"] * job.get("threads", 1))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += math.ceil(used.ru_utime + used.ru_stime)
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    if os.path.exists("/proc/self/statm"):  # elsewhere the kernel does not keep this limit
        with open("/proc/self/statm") as status:
            now = int(status.read().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, now + limits["bytes"], now + limits["bytes"])


# --- the process that asked for it


def _answer(code, out, errors, limits):
    reason = ([line for line in errors.strip().splitlines() if not line.startswith("INFO: ")] or [""])[-1]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGXCPU":
            return _error("out of time", f"it used up its {limits['seconds']:g} s of processor time")
        if "bad_alloc" in errors or "MemoryError" in errors:
            return _error("out of memory", f"it asked for too much memory ({reason})")
        return _error("crashed", f"it crashed the interpreter ({name}){': ' + reason if reason else ''}")
    if code:
        return _error("crashed", reason or f"it ended with exit code {code}")
    try:
        answer = json.loads(out)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("error", ""), str):
        return _error("garbled", f"it answered {out[:60]!r} instead of a line of JSON")
    return answer


def _tail(file, length):
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - length))
    return file.read().decode("utf-8", "replace")


def _error(kind, sentence):
    return {"error": interpreting.printable(sentence).rstrip("."), "kind": kind}  # whoever quotes it ends the sentence


def _sentence(error):
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    _serve()
