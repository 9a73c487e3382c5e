"""Runs `.tflite` files where they are to be judged: in a child process here, or on another machine.

Needs Python, numpy and ai_edge_litert, nothing else of the lab, since this one file is copied to the other machine.

    python runner.py '{"task": "memory", "model": "model.tflite", "threads": 1}'

takes a job as JSON (from standard input if it is not an argument) and prints its answer as one line of JSON. A job that
fails answers {"error": a sentence, "kind": one of KINDS}. File names are relative to the working directory. The tasks:

    predict  model, samples (.npy, or .npz with x), batch, threads, show  ->  inputs, outputs (what the file declares),
             classes (the largest output of each sample), not_finite (samples with a NaN or infinite output), first (the
             outputs of the first `show` samples); instead of the last three `unusable` where the file is no classifier
             of these samples
    time     models (name -> file), samples, rounds, blocks, threads  ->  blocks: a list for each, of rounds, of seconds
             by name
    memory   model (or none), threads  ->  bytes, the resident high-water mark of the process
    machine  ->  system, cpu, cores, python, ai-edge-litert
    all      jobs  ->  answers, each job in a process of its own

Any job may give "limits": {"seconds": of the clock and of each thread's processor time, "bytes": of address space that a
model may add to the process}. They bound accidents: a file that crashes, hangs or allocates without end. A model file is data, but the
interpreter that reads it is native code, so files from strangers belong in a container as well.
"""

import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

# One timing lasts at least this long, so that the clock's resolution and a single interrupt do not decide it.
SAMPLE_SECONDS = 0.002
BLOCKS = 6
KINDS = ("refused", "crashed", "out of time", "out of memory", "garbled")
LONGEST_ANSWER = 2**26


def run(job, folder=None):
    """The answer to a job, given by a fresh process that works in `folder`; whatever befalls it becomes an answer."""
    limits = job.get("limits", {})
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    # -P: the modules beside this file must not pass for packages of the same name. Older Pythons do not know it.
    safe_path = ["-P"] if sys.version_info >= (3, 11) else []
    command = [sys.executable, *safe_path, os.path.abspath(__file__), json.dumps(job)]
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


def interleaved(load, x, rounds, blocks=BLOCKS, threads=1):
    """Time one sample on several models in turn: A B C, A B C, …

    load: name -> function(threads) that gives an interpreter with tensors allocated for one sample. x: (1, ...).
    Each block has interpreters of its own, since where their buffers happen to lie shifts their times for as long as they
    live. Returns a list of blocks, each a list of rounds, each name -> seconds.
    """
    found = []
    for _ in range(blocks):
        runners = {name: _Timed(function(threads), x) for name, function in load.items()}
        found.append([{name: runner.seconds() for name, runner in runners.items()} for _ in range(rounds // blocks)])
    return found


def admits_batches(model, size):
    """Whether a model with one input, resized to a batch of `size`, still computes each sample by itself.

    A constant batch size in the graph, as converters leave it when they saw one sample, can fail loudly (RESHAPE) or keep
    the first sample and repeat its values for all (SLICE). So every tensor that depends on the input must grow by `size`.
    model: path or bytes of a `.tflite`.
    """
    from ai_edge_litert.interpreter import OpResolverType

    try:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides what is inside it
        one, many = (_load(model, 1, batch, experimental_op_resolver_type=plain) for batch in (1, size))
        before, after = ({d["index"]: d["shape"] for d in it.get_tensor_details()} for it in (one, many))
        dependent = {one.get_input_details()[0]["index"]}
        for operator in one._get_ops_details():  # private, but nothing else tells what an operator reads
            if operator["op_name"] in ("WHILE", "IF", "CALL", "CALL_ONCE"):
                return False  # what happens in there is not listed
            if operator["op_name"] != "SHAPE" and dependent.intersection(operator["inputs"]):
                dependent.update(operator["outputs"])
        dependent.update(d["index"] for d in one.get_output_details())
        return all(after[index].prod() == size * before[index].prod() for index in dependent)
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return False


def batches(runner, x, size):
    """What a model puts out for samples, as stored: arrays (up to size, ...), one batch after the other.

    runner: an interpreter with one input and one output, its tensors allocated for batches of `size`. x: float32 (n, ...).
    """
    import numpy as np

    source, target = runner.get_input_details()[0], runner.get_output_details()[0]
    for start in range(0, len(x), size):
        part = as_stored(x[start : start + size], source)
        missing = size - len(part)
        if missing:  # the last batch is filled up, so that its shape and hence its kernels stay the same
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        runner.set_tensor(source["index"], part)
        runner.invoke()
        yield runner.get_tensor(target["index"])[: size - missing]


def as_stored(x, details):
    """Real numbers as a tensor holds them: rounded to its integers by its scale and zero point, if it has a scale.

    details: of the tensor, as an interpreter gives them.
    """
    import numpy as np

    if not np.issubdtype(details["dtype"], np.integer):
        return x.astype(details["dtype"], copy=False)
    scale, zero_point = details["quantization"]
    if not scale:
        return x.astype(details["dtype"], copy=False)  # whole numbers that stand for themselves, such as tokens
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(x / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def real_numbers(stored, details):
    """The inverse of `as_stored`, float32."""
    if stored.dtype.kind not in "iu":
        return stored
    scale, zero_point = details["quantization"]
    if not scale:
        return stored
    return ((stored.astype("float32") - zero_point) * scale).astype("float32")


class _Timed:
    """One loaded model that can be timed again and again."""

    def __init__(self, interpreter, x):
        self.interpreter = interpreter
        details = interpreter.get_input_details()[0]
        interpreter.set_tensor(details["index"], x[:1].astype(details["dtype"]))
        self.repeats = 1
        warm_up = time.perf_counter() + 20 * SAMPLE_SECONDS
        while time.perf_counter() < warm_up:
            interpreter.invoke()
        self.repeats = max(1, round(SAMPLE_SECONDS / self.seconds()))

    def seconds(self):
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.interpreter.invoke()
        return (time.perf_counter() - start) / self.repeats


# --- the process that runs a job


def _serve():
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

    x = _samples(job)
    _restrict(job)
    runner = _load(job["model"], job["threads"])
    inputs, outputs = (
        [_declared(d) for d in found] for found in (runner.get_input_details(), runner.get_output_details())
    )
    answer = {"inputs": inputs, "outputs": outputs}
    unusable = _unusable(inputs, outputs, x.shape)
    if unusable:
        return {**answer, "unusable": unusable}
    size = min(job["batch"], len(x))
    if size > 1 and admits_batches(job["model"], size):
        runner = _load(job["model"], job["threads"], size)
    else:
        size = 1
    classes, not_finite, first, target = [], 0, [], runner.get_output_details()[0]
    for raw in batches(runner, x, size):
        found = raw.reshape(len(raw), outputs[0]["shape"][-1])
        finite = np.isfinite(found).all(axis=-1) if found.dtype.kind == "f" else np.ones(len(found), bool)
        not_finite += int((~finite).sum())
        classes += found.argmax(axis=-1).tolist()
        room = max(0, job.get("show", 0) - len(first))
        first += real_numbers(found[:room], target).astype(float).tolist()
    return {**answer, "classes": classes, "not_finite": not_finite, "first": first}


def _time(job):
    x = _samples(job)[:1]
    _restrict(job)
    load = {name: lambda threads, file=file: _load(file, threads, 1) for name, file in job["models"].items()}
    return {"blocks": interleaved(load, x, job["rounds"], job["blocks"], job["threads"])}


def _memory(job):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401 - the empty process loads it as well

    _restrict(job)
    if job.get("model"):
        runner = _load(job["model"], job["threads"])
        details = runner.get_input_details()[0]
        runner.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
        for _ in range(3):
            runner.invoke()
    if os.path.exists("/proc/self/status"):  # Linux's ru_maxrss would start from the parent's memory
        with open("/proc/self/status") as status:
            return {"bytes": 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read()).group(1))}
    import resource

    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}  # macOS counts in bytes


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
    }


def _all(job):
    return {"answers": run_all(job["jobs"])}


_TASKS = {"predict": _predict, "time": _time, "memory": _memory, "machine": _machine, "all": _all}


def _load(model, threads, batch=None, **options):
    """An interpreter with its tensors allocated. model: path, or bytes."""
    from ai_edge_litert.interpreter import Interpreter

    source = "model_content" if isinstance(model, bytes) else "model_path"
    runner = Interpreter(**{source: model}, num_threads=threads, **options)
    if batch:
        details = runner.get_input_details()[0]
        runner.resize_tensor_input(details["index"], [batch, *details["shape"][1:]])
    runner.allocate_tensors()
    return runner


def _samples(job):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401 - before the limits, which count from here

    loaded = np.load(job["samples"])
    return np.asarray(loaded["x"] if hasattr(loaded, "files") else loaded, "float32")


def _restrict(job):
    """Set the job's limits on this process, from now on."""
    limits = job.get("limits")
    if not limits:
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST_ANSWER, LONGEST_ANSWER))
    seconds = math.ceil(limits["seconds"] * job.get("threads", 1))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += math.ceil(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if os.path.exists("/proc/self/statm"):  # elsewhere the kernel does not keep this limit
        with open("/proc/self/statm") as status:
            now = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + limits["bytes"], now + limits["bytes"]))


def _declared(details):
    """What a file says of an input or output, as plain values; scale is None where there is none that can be used."""
    scale, zero_point = details["quantization"]
    import numpy as np

    return {
        "name": _printable(details["name"]),
        "shape": [int(size) for size in details["shape"]],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale) if math.isfinite(scale) and scale > 0 else None,
        "zero_point": int(zero_point),
    }


def _unusable(inputs, outputs, shape):
    """Why a file with these inputs and outputs is no classifier of samples of this shape, or None."""
    for kind, found in (("input", inputs), ("output", outputs)):
        if len(found) != 1:
            return f"it has {len(found)} {kind}s, one is needed"
        dtype = found[0]["dtype"]
        if dtype != "float32" and (dtype not in ("int8", "uint8", "int16") or found[0]["scale"] is None):
            return f"its {kind} is {dtype}{'' if found[0]['scale'] else ' without a scale'}: float32, or integers with one, are needed"
    if inputs[0]["shape"][1:] != list(shape[1:]) or inputs[0]["shape"][:1] != [1]:
        return f"its input has shape {tuple(inputs[0]['shape'])}, one sample has {(1, *shape[1:])}"
    if len(outputs[0]["shape"]) != 2 or outputs[0]["shape"][0] != 1 or outputs[0]["shape"][1] < 2:
        return f"its output has shape {tuple(outputs[0]['shape'])}, (1, classes) with 2 classes or more is needed"
    return None


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
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return _error("garbled", f"it answered {out[:60]!r} instead of a line of JSON")
    return answer


def _tail(file, length):
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - length))
    return file.read().decode("utf-8", "replace")


def _error(kind, sentence):
    return {"error": _printable(sentence).rstrip("."), "kind": kind}  # whoever quotes it ends the sentence


def _sentence(error):
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _printable(text, longest=300):
    """Text from a file that nobody vouches for, safe for terminals and XML."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])


if __name__ == "__main__":
    _serve()
