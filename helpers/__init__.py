"""The lab's front door: what notebooks import, by its name alone, whichever room it lives in.

    from helpers import lab, measure, quantize

Each module is loaded when it is first asked for, so that nobody waits for a TensorFlow that he does not use. Importing
`helpers` itself sets the environment that TensorFlow reads when it loads (`base.runtime_env`), and so comes first. A module that needs
what is not installed says in one sentence how to install it.
"""

import importlib

from helpers.base import extras, runtime_env

ROOMS = {
    "base": ("repository", "runtime_env"),
    "evidence": ("diagrams", "plots", "results", "stats", "verdicts", "verification"),
    "networks": (
        "bench",
        "checkpoints",
        "data",
        "detector",
        "embedder",
        "glyphs",
        "minilm",
        "models",
        "scenes",
        "sentences",
        "training",
    ),
    "tflite": ("causes", "heads", "inputs", "inside", "litert", "measure", "scales", "tasks"),
    "lab": ("parameters", "selfcheck"),
    "targets": ("across",),
    "compress": (
        "affine",
        "bits",
        "bits_rivals",
        "channels",
        "equalization",
        "lowbit",
        "minilm_variants",
        "outliers",
        "own_data",
        "own_model",
        "qat",
        "quantize",
        "requantize",
        "rescue",
        "sensitivity",
        "sparsity",
        "tflite_equalization",
        "tflite_graph",
        "tflite_pruning",
        "tflite_training",
    ),
    "deploy": ("gate", "gate_report", "package"),
}
_PLACES = {name: f"helpers.{room}.{name}" for room, names in ROOMS.items() for name in names}
_PLACES |= {"lab": "helpers.lab", "doctor": "helpers.doctor", "errors": "helpers.base.errors"}

__all__ = sorted(_PLACES)


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(f"module 'helpers' has no {name!r}: it hands out {', '.join(__all__)}.")
    with extras.needed(f"helpers.{name}"), runtime_env.quiet():
        found = importlib.import_module(_PLACES[name])
    globals()[name] = found
    return found


def __dir__():
    return __all__
