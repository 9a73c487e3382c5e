"""What is shipped for an accepted model: the file, a manifest that a device can verify, and a model card.

    folder/model.tflite    the file that the gate judged, byte for byte
    folder/manifest.json   hash, size, version, inputs and outputs, provenance, policy and checks
    folder/MODEL_CARD.md   the same for people, with limits and licence

The manifest proves that nothing was damaged or mixed up on the way. Who wrote it is proved only by a signature over it,
which the update service adds.
"""

import datetime
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError
from helpers.deploy import gate, gate_report
from helpers.tflite import inputs

MODEL, MANIFEST, CARD = "model.tflite", "manifest.json", "MODEL_CARD.md"
FORMAT = 1
_VERSION = re.compile(r"\d+(\.\d+){0,3}")


@dataclass(frozen=True)
class About:
    """What a package says of its model besides what was measured. name, description: what it is. version: numbers with
    dots, such as 1.2.0. date: ISO, such as 2025-01-31. licence: SPDX name. data: what it was trained and judged on. limits:
    sentences on what it was not tested for. Raises InputError, naming the field, for unusable words.
    """

    name: str
    version: str
    date: str
    licence: str
    description: str
    data: str
    limits: tuple[str, ...] = ()

    def __post_init__(self):
        for key in ("name", "licence", "description", "data"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"{key}={value!r} must be some words.")
        _numbers(self.version)
        try:
            datetime.date.fromisoformat(self.date)
        except (TypeError, ValueError):
            raise InputError(f"date={self.date!r} must read like 2025-01-31.") from None


def write(folder, model, decision, about, source=None):
    """Write the package of an accepted model; returns the folder's Path.

    model: bytes or path of the `.tflite` that `decision` is about. about: an About. source: bytes or path of the model it
    was made from. The manifest is written last, so that an interrupted package never verifies.
    Raises InputError for a decision that is not accepted, and for another file than the one judged.
    """
    if decision.outcome != gate.ACCEPTED:
        raise InputError(f"decision is {decision.outcome}: only an accepted model is packaged.")
    blob = inputs.content(model, "model")
    if hashlib.sha256(blob).hexdigest() != decision.candidate["sha256"]:
        raise InputError("model is not the file that the gate judged: its SHA-256 differs.")
    origin = None if source is None else hashlib.sha256(inputs.content(source, "source")).hexdigest()
    manifest = {
        "format": FORMAT,
        "name": about.name,
        "version": about.version,
        "date": about.date,
        "licence": about.licence,
        "model": {"file": MODEL, **decision.candidate},
        "provenance": {
            "source_sha256": origin,
            "baseline": decision.baseline,
            "data": {"description": about.data, **decision.data},
            "versions": runtime_env.versions(),
            "machine": decision.machine,
        },
        **{key: value for key, value in decision.as_dict().items() if key in ("policy", "checks", "measured")},
    }
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    repository.write(folder / MODEL, blob)
    repository.write(folder / CARD, _card(manifest, decision, about))
    repository.write(folder / MANIFEST, json.dumps(gate_report.finite(manifest), indent=1, allow_nan=False) + "\n")
    return folder


def verify(folder, installed=None):
    """The manifest of a package that may be installed: whole, and newer than the version `installed`, if one is given.

    Raises InputError with the reason why it may not.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        form, version, entry = manifest["format"], manifest["version"], manifest["model"]
        file, length, digest = entry["file"], entry["bytes"], entry["sha256"]
    except OSError as error:
        raise InputError(f"{MANIFEST} cannot be read ({error.strerror}): the package is incomplete.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{MANIFEST} is damaged ({type(error).__name__}): fetch the package again.") from error
    if form != FORMAT:
        raise InputError(f"{MANIFEST} has format {form!r}, this version knows {FORMAT}: update the installer.")
    if file != MODEL:
        raise InputError(f"{MANIFEST} names the file {file!r}: it must be {MODEL}.")
    if installed is not None and _numbers(version) <= _numbers(installed):
        raise InputError(f"version {version} is not newer than {installed}, which is installed.")
    blob = inputs.content(folder / MODEL, MODEL)
    if len(blob) != length:
        raise InputError(f"{MODEL} has {len(blob):,} bytes instead of {length:,}: fetch it again.")
    if hashlib.sha256(blob).hexdigest() != digest:
        raise InputError(f"{MODEL} has another SHA-256 than {MANIFEST} says: fetch it again.")
    return manifest


def _numbers(version):
    """(1, 2, 0, 0) for "1.2"."""
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InputError(f"version={version!r} must be numbers with dots, such as 1.2.0.")
    found = [int(part) for part in version.split(".")]
    return tuple(found + [0] * (4 - len(found)))


def _card(manifest, decision, about):
    model, provenance = manifest["model"], manifest["provenance"]
    numbers = [f"| {name} | {gate_report.told(name, estimate)} |" for name, estimate in decision.measured.items()]
    checks = [f"| {check.name} | {check.outcome} | {check.because} |" for check in decision.checks]
    where = decision.machine or {}
    place = f"{where['cpu']}, {where['cores']} cores, {where['system']}" if where else "not measured"
    known = [
        *about.limits,
        f"Accuracy holds for data like the {decision.data['samples']:,} examples it was judged on.",
        f"Latency and memory hold for the machine they were measured on ({place}), one thread, one sample at a time.",
    ]
    lines = [
        f"# {manifest['name']} {manifest['version']}",
        "",
        about.description,
        "",
        f"- File: `{MODEL}`, {model['bytes']:,} bytes, SHA-256 `{model['sha256']}`",
        *(
            f"- {kind.capitalize()}: `{tensor['name']}`, {tensor['dtype']} {tuple(tensor['shape'])}{_scale(tensor)}"
            for kind in ("input", "output")
            for tensor in model[f"{kind}s"]
        ),
        f"- Date: {manifest['date']}",
        f"- Licence: {manifest['licence']}",
        f"- Data: {provenance['data']['description']}; judged on {decision.data['samples']:,} examples",
        f"- Judged against: a baseline of {decision.baseline['bytes']:,} bytes, SHA-256 `{decision.baseline['sha256']}`",
        "",
        "## Measured",
        "",
        "Brackets: 95% intervals; for memory, the smallest and largest of three runs.",
        "",
        "| number | value |",
        "| --- | --- |",
        *numbers,
        "",
        "## Checks that it passed",
        "",
        "| check | outcome | measured |",
        "| --- | --- | --- |",
        *checks,
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in known),
        "",
    ]
    return "\n".join(lines)


def _scale(tensor):
    return "" if tensor["scale"] is None else f", scale {tensor['scale']:.6g}, zero point {tensor['zero_point']}"
