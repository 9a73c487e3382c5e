"""The targets by name: which there are, what each tells, and what one lacks here."""

from helpers.base.errors import RunError
from helpers.targets import accelerator, arm64, emulated, remote

PREPARED = {"arm64": arm64.prepare, "gpu": accelerator.prepare}


def opened(url):
    """The target that a name stands for: ssh://…, qemu://PROCESSOR, or gpu. Raises RunError, with the cure, for another name and for a
    target that is not ready."""
    if url.split(":")[0] == accelerator.URL:
        return accelerator.Target(url)
    if url.startswith(emulated.SCHEME):
        return emulated.Target(url)
    if url.startswith("ssh:"):
        return remote.Target(url)
    raise RunError(
        f"target={url!r} is unknown: name ssh://user@host, {emulated.SCHEME}cortex-a76 or {accelerator.URL}."
    )


def ready(url):
    """The target, or None where it cannot be used here and now; one over ssh is not asked."""
    try:
        return opened(url)
    except RunError:
        return None


def listed():
    """Each kind of target: (name, whether it is ready, what it tells or lacks)."""
    lacks = arm64.lacking()
    if lacks:
        arm = False, lacks
    elif not arm64.prepared():
        arm = False, f"not made: {arm64.PREPARE}"
    elif not arm64.counter():
        arm = True, f"answers; no instructions, since the counter is not compiled: install gcc, then {arm64.PREPARE}"
    else:
        arm = True, "answers, instructions per inference"
    names = accelerator.told()
    time = "answers" if accelerator.in_software() else "answers, latency"
    gpu = (True, f"{time}: {names}") if names else (False, f"no adapter; one in software: {accelerator.PREPARE}")
    return [
        ("ssh://user@host", True, "answers, latency, memory; see `measure --help`"),
        (emulated.SCHEME + "processor", *arm),
        (accelerator.URL, *gpu),
    ]
