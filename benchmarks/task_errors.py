"""Are the gate's intervals and decisions as honest for every task as for classes? Simulated models whose true scores are known.

    python benchmarks/task_errors.py          # some minutes; the shares go to results/rules/
    python benchmarks/task_errors.py 50       # fewer draws, nothing is kept

Of every task a population of samples is made, with the truth, a baseline's answers and those of three candidates: its answers with
noise of three sizes, more on hard samples than on easy ones. What a candidate truly loses is what it loses over the population.
A draw is some samples of it. Coverage: how often the 95% interval of the difference holds what is truly lost. Errors of the gate,
whose limit is LIMIT, or lies where the world says:

    margin   the candidate loses exactly what is allowed: accepted or rejected in at most 5% each
    worse    it loses LIMIT more than allowed: accepted never, or nearly
    harmless it loses LIMIT less than allowed: rejected never, or nearly
"""

import sys
from pathlib import Path

DRAWS, SEVERAL = 1000, 400  # draws; fewer where each takes seconds
POPULATION, SAMPLES = 20_000, 400
LIMIT = 0.05
NOISE = (0.1, 0.3, 0.8)  # of candidates, in units of the baseline's own


def worlds(random, n=POPULATION):
    """Of every task: name, settings, truth, and clean answers with the size that a baseline's noise has, by output."""
    import numpy as np

    y = random.integers(0, 5, n)
    yield "classification", y, 3.0 * np.eye(5)[y], 1.0
    yes = (y < 1).astype(int)
    yield "binary", yes, 3.0 * yes[:, None] - 1.5, 1.0
    several = (random.random((n, 6)) < 0.3).astype(int)
    yield "multi-label", several, 3.0 * several - 1.5, 0.8
    values = random.normal(size=(n, 2)) * [1, 20]
    yield "regression", values, values, np.array([0.3, 6])
    places = np.repeat(np.repeat(random.integers(0, 3, (n, 3, 3)), 2, 1), 2, 2)
    yield "segmentation", places, 3.0 * np.eye(3)[places], 1.0
    yield "detection", *scenes(random, n // 10)
    of = random.integers(0, 40, n // 10)
    centres = random.normal(size=(40, 16))
    yield "embedding", of, centres[of], 0.6
    several = random.integers(0, n // 10, (n, 2))
    pairs = np.column_stack([several, of[several[:, 0]] == of[several[:, 1]]])
    alike = [np.flatnonzero(pairs[:, 2] == each) for each in (0, 1)]
    yield "pairs", pairs[np.concatenate([random.choice(each, n // 4) for each in alike])], centres[of], 0.6


def scenes(random, n, anchors=16):
    """True boxes of two classes on a grid of anchors; answers (n, anchors, 4 + 2); noise by column."""
    import numpy as np

    low = 30.0 * np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(1, anchors, 2)
    boxes = np.tile(np.concatenate([low, low + 20], axis=-1), (n, 1, 1))
    there, of = random.random((n, anchors)) < 0.12, random.integers(0, 2, (n, anchors))
    sure = 0.9 * np.eye(2)[of] * there[..., None]
    most = max(int(there.sum(axis=1).max()), 1)
    truth = np.full((n, most, 5), -1.0)
    for row, place in enumerate(there):
        number = place.sum()
        truth[row, :number, 0], truth[row, :number, 1:] = of[row, place], boxes[row, place]
    return truth, np.concatenate([boxes, sure], axis=-1), np.array([1.0, 1, 1, 1, 0.22, 0.22])


def models(random, clean, size):
    """Answers of a baseline and of candidates, which have its noise and more."""
    import numpy as np

    hard = np.exp(random.normal(0, 0.5, (len(clean), *[1] * (clean.ndim - 1))))
    baseline = clean + size * hard * random.normal(size=clean.shape)
    more = size * hard * random.normal(size=clean.shape)
    return [(baseline + each * more).astype("float32") for each in (0, *NOISE)]


def scorer(name, task, answers, truth):
    """What `task.scores` would give some samples: chosen, their truth -> scores. What belongs to a sample alone is computed once."""
    from helpers.tflite import detection

    if name == "detection":
        found = task.found(answers)
        return lambda chosen, known: detection.average_precision([found[place] for place in chosen], known)
    if name in ("regression", "embedding", "pairs"):
        return lambda chosen, known: task.scores({"out": answers["out"][chosen]}, known)
    scores = task.scores(answers, truth)
    return lambda chosen, known: scores[chosen]


def drawn(random, name, truth, vectors):
    """A draw of samples, and their labels: of pairs some pairs of all vectors, of vectors as many of each kind."""
    import numpy as np

    if name == "pairs":
        return np.arange(vectors), truth[random.integers(0, len(truth), SAMPLES)]
    if name == "embedding":
        kinds = [np.flatnonzero(truth == each) for each in np.unique(truth)]
        chosen = np.concatenate([random.choice(each, SAMPLES // len(kinds), replace=False) for each in kinds])
    else:
        chosen = random.integers(0, len(truth), SAMPLES)
    return chosen, truth[chosen]


def value(scores):
    """Mean of scores, without an interval."""
    import numpy as np

    return float(scores.of(np.ones((1, len(scores))))[0] if hasattr(scores, "of") else np.mean(scores))


def simulated(name, y, clean, size, draws):
    """Coverage and the gate's errors of one task: name of a number -> Estimate, the least favourable candidate's."""
    import numpy as np

    from helpers.deploy import policy
    from helpers.evidence import stats
    from helpers.tflite import tasks

    random, found = np.random.default_rng(1), {}
    baseline, *candidates = ({"out": each} for each in models(random, clean, size))
    task = tasks.choose({"out": clean.shape[1:]}, asked="embedding" if name == "pairs" else name)
    truth = task.truth(y, len(clean))
    task = task.settled(baseline, truth)
    before = scorer(name, task, baseline, truth)
    for candidate in candidates:
        after = scorer(name, task, candidate, truth)
        samples = [drawn(random, name, truth, len(clean)) for _ in range(draws)]
        changes = [stats.score_difference(before(*each), after(*each)) for each in samples]
        if name == "embedding":  # how near the nearest is depends on how many there are: the truth is that of so many
            lost = np.mean([change.value for change in changes])
        else:
            everything = np.arange(len(clean)), truth
            lost = value(after(*everything)) - value(before(*everything))
        asked = {"margin": -lost, "worse": -lost - LIMIT, "harmless": -lost + LIMIT}
        said = {
            world: [policy.at_least("drop", change, -limit, "").outcome for change in changes]
            for world, limit in asked.items()
        }
        shares = {
            f"coverage.{name}": [change.low <= lost <= change.high for change in changes],
            f"gate_error.{name}.margin_accepted": [each == policy.PASS for each in said["margin"]],
            f"gate_error.{name}.margin_rejected": [each == policy.FAIL for each in said["margin"]],
            f"gate_error.{name}.worse": [each == policy.PASS for each in said["worse"]],
            f"gate_error.{name}.harmless": [each == policy.FAIL for each in said["harmless"]],
        }
        told = (f"{key.split('.')[-1]} {np.mean(of):.1%};" for key, of in shares.items())
        print(f"{name:15} loses {-lost:6.1%}:", *told, flush=True)
        for key, of in shares.items():
            share = stats.proportion(np.array(of))
            worst = min if key.startswith("coverage") else max
            found[key] = worst(found.get(key, share), share, key=lambda each: each.value)
    return found


def main():
    """Simulate every task with the number of draws that is named; keep what all of them gave."""
    import numpy as np

    from helpers.base import repository
    from helpers.evidence import results

    asked = int(sys.argv[1]) if sys.argv[1:] else None
    numbers = {}
    for name, *world in worlds(np.random.default_rng(0)):
        numbers |= simulated(name, *world, asked or (SEVERAL if name in ("detection", "embedding", "pairs") else DRAWS))
    if asked is None:
        import os

        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
        print("Kept:", results.record("tasks", "rules", {"draws": DRAWS, "samples": SAMPLES}, numbers))


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        raise SystemExit
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
