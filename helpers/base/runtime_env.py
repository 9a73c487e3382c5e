"""Imported before TensorFlow, by everyone: quiet logs, legacy Keras, a fixed number of threads, seeds, a report.

Importing this module sets the environment variables below and nothing else; it does not load TensorFlow.
"""

import contextlib
import ctypes
import functools
import gc
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from importlib import metadata

import psutil

STARTED = time.monotonic()
_ASKED = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
THREADS = int(_ASKED) if _ASKED.isdigit() and int(_ASKED) else 2  # 0, or a word, is no number of threads
# LiteRT's numbers do not depend on its threads, and its kernels wait for each other in loops: no more than there are cores
# for this process.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LITERT_THREADS = min(THREADS, CORES)
MOST_ROUNDS_VARIABLE = "COMPRESSION_LAB_MOST_ROUNDS"  # bounds every timing from outside, where nobody reads it
SETTINGS = {
    "TF_USE_LEGACY_KERAS": "1",  # tfmot works on Keras 2 (tf-keras)
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    # The order of a sum depends on the number of threads and on the width of the vector instructions. Both are
    # fixed, so that training differs little between x86 machines with AVX2; recorded tolerances cover what is left.
    "TF_NUM_INTRAOP_THREADS": str(THREADS),
    "TF_NUM_INTEROP_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "litert-quantizer",
    "numpy",
    "papermill",
    "nbval",
)
# What makes int8 fast: name in the report -> names that processors report.
CPU_FEATURES = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx512vnni", "avx_vnni"},
    "AMX": {"amx_int8"},  # XNNPACK takes these kernels where they are, for good and ill
    "NEON dot product": {"asimddp", "dotprod"},
}

STRENGTHS = {  # the strongest first
    "AMX": "amx",
    "VNNI": "vnni",
    "AVX-512": "avx512",
    "AVX2": "avx2",
    "NEON dot product": "dotprod",
}
ARCHITECTURES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64"}

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError("TensorFlow was imported before helpers: import helpers first, since tfmot needs legacy Keras.")
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
os.environ["TF_NUM_INTRAOP_THREADS"] = str(THREADS)


def _keep_freed_memory():
    """Tell glibc to keep what is freed instead of giving it back to the kernel after every operation.

    Activations of a training step are allocated and freed again at each step; getting them page by page from the
    kernel took half the time of a MobileNetV2 training step. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # their numbers in malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)):
        mallopt(option, value)


_keep_freed_memory()
gc.set_threshold(
    50_000, 20, 50
)  # a graph is millions of objects that stay: looking for garbage took a tenth of its time


@contextlib.contextmanager
def quiet():
    """Swallow what native code writes to file descriptors 1 and 2 inside the block, and Python's warnings.

    Log levels do not stop the lines that TensorFlow writes before its logger starts, nor the converter's and
    XNNPACK's. If the block raises, what was swallowed is shown.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException:
            sink.seek(0)
            swallowed = sink.read().decode(errors="replace")
            if swallowed.strip():
                print(swallowed, file=sys.stderr)
            raise
        finally:
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            for logger in ("tensorflow", "absl"):  # TensorFlow sets its own level when it is imported
                logging.getLogger(logger).setLevel(logging.ERROR)


def hush():
    """In a Jupyter kernel, keep out of the outputs what others say on their way: native code, TensorFlow's log, its warnings.

    So that a cell may call the converter as it would stand in any project. What is printed by Python still shows, and so does every
    error; outside a kernel nothing changes.
    """
    if not type(sys.stderr).__module__.startswith("ipykernel"):
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(sink, descriptor)
    os.close(sink)
    for logger in ("tensorflow", "absl"):
        logging.getLogger(logger).addFilter(_is_an_error)  # a level would be set anew by TensorFlow's import
    warnings.filterwarnings(
        "ignore", module=r"(tensorflow|tf_keras|keras|tensorflow_model_optimization|ai_edge_litert)\b"
    )


def _is_an_error(record):
    return record.levelno >= logging.ERROR


def seed_everything(seed):
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's operations deterministic.

    Call it before every training that is to be repeatable: it restarts the sequence of random numbers.
    """
    with quiet():
        import tensorflow as tf
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


@functools.cache
def cpu():
    """The processor: `{"name": str, "features": [str, ...]}`, features being those of CPU_FEATURES."""
    from cpuinfo import get_cpu_info

    info = get_cpu_info()
    flags = set(info.get("flags", []))
    name = info.get("brand_raw") or platform.processor() or platform.machine()
    return {"name": name, "features": [feature for feature, names in CPU_FEATURES.items() if names & flags]}


def machine_name(found=None):
    """A machine by what decides its latencies, as in `results/`: "x86-64-vnni", "x86-64-avx2", "arm64-dotprod" ...

    found: what `machine` gives; this machine by default. Named are the architecture and the strongest of CPU_FEATURES.
    """
    found = found or machine()
    system = found["system"].split()[-1].lower()
    architecture = ARCHITECTURES.get(system, system)
    strongest = [name for feature, name in STRENGTHS.items() if feature in found["cpu_features"]]
    return "-".join([architecture, *strongest[:1]])


def versions():
    """Installed versions of Python and the packages that decide a result; None where one is missing."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def machine():
    """What a number measured here depends on: system, CPU, cores, memory (GB), threads used."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu()["name"],
        "cpu_features": cpu()["features"],
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "threads": int(os.environ["TF_NUM_INTRAOP_THREADS"]),
    }
