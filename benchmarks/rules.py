"""Are the intervals and the rules as honest as they say? Simulated worlds in which the truth is known.

    python benchmarks/rules.py          # some minutes; the shares go to results/rules/
    python benchmarks/rules.py 100      # fewer draws, nothing is kept

Coverage: how often a 95% interval holds the truth, by method, in the least favourable of some worlds. Rules: every rule judges
numbers drawn in worlds where its claim is plainly true, plainly false, true under its first condition and false under the
others, or exactly on its margin. Each number is drawn as the lab measures it, by the lab's own estimator. What is exact (bytes,
a yes) has no chance in it and stands where its world puts it.
"""

import sys
from pathlib import Path

DRAWS = 1000
TRUE, FALSE, MIXED, MARGIN = "true", "false", "mixed", "margin"
WORLDS = (TRUE, FALSE, MIXED, MARGIN)
EXAMPLES, LAYERS, PLANTED, BLOCKS = 2000, 53, 80, 6  # test images, layers of a sweep, files for the gate, timing blocks
SCENES = 500  # of a detector's test
POINTS_APART, TIMES_APART, SPREADS_APART = 0.04, 1.3, 40.0  # plainly: so far from the margin


def paired(random, difference, trainings=0, spread=1.0, examples=EXAMPLES, apart=0.03):
    """The answers of two models, bool (trainings, examples) or (examples,), of which one is better by so much on average.

    spread: of the trainings' means, in units of what the choice of examples moves the mean. apart: share of the examples that
    only the one has right, and of those that only the other has, beside the difference.
    """
    import numpy as np

    shares = [max(sign * difference, 0) + apart for sign in (-1, 1)]
    lost, gained = (random.beta(0.3, 0.3 * (1 - share) / share, examples) for share in shares)  # not equally hard
    moved = random.normal(0, spread * np.sqrt(sum(shares) / examples), (trainings or 1, 1)) * bool(trainings)
    shape = (trainings or 1, examples)
    loses = random.random(shape) < np.clip(lost * (1 - moved / shares[0]), 0, 1)
    gains = random.random(shape) < gained
    pair = loses & ~gains, gains & ~loses
    return pair if trainings else (pair[0][0], pair[1][0])


def trained(random, spread, trainings, examples=100_000):
    """Which answers some trainings have right: bool (trainings, examples), whose accuracies differ by `spread`."""
    import numpy as np

    accuracy = np.clip(0.5 + random.normal(0, spread, (trainings, 1)), 0, 1)
    return np.arange(examples) < np.round(accuracy * examples)


def sweep(random, place, smallest=1e-3):
    """A sweep's table whose layer "l0" truly has this place. smallest: damage of the least sensitive layer, where the most
    sensitive has 1 and each damage is known to a tenth of itself; the larger, the more layers are hard to tell apart."""
    import numpy as np
    import pandas as pd

    damage = np.geomspace(1.0, smallest, LAYERS)
    kl = np.insert(np.delete(damage, place - 1), 0, damage[place - 1])
    table = pd.DataFrame({"layer": [f"l{n}" for n in range(LAYERS)], "mode": "alone", "damage_error": 0.1 * kl})
    return table.assign(damage=random.normal(kl, 0.1 * kl))


def drawn(random, bound, truth):
    """A bound's number as the lab would measure it where it truly has this value; None if it is exact."""
    import dataclasses

    import numpy as np

    from helpers.compress import sensitivity
    from helpers.evidence import stats

    kind = bound.number.split(".")[0]
    if kind in ("delta_top1", "gain"):
        return stats.paired_difference(*paired(random, truth, bound.trainings))
    if kind == "delta_map50":  # `task_errors` draws whole scenes, and found that this interval holds the truth
        return stats.mean(random.normal(truth, 0.3, SCENES))
    if kind == "recovered":
        found = stats.paired_difference(*paired(random, truth - 1, bound.trainings))
        return dataclasses.replace(found, value=1 + found.value, low=1 + found.low, high=1 + found.high)
    if kind == "spread_ratio":
        return stats.spread_ratio(
            trained(random, 0.004 * truth, bound.trainings), trained(random, 0.004, bound.trainings)
        )
    if kind == "latency_ratio":
        return stats.geometric_mean(truth * np.exp(random.normal(0, 0.04, BLOCKS)))
    if kind == "sensitivity":
        found = sensitivity.rank(sweep(random, max(1, round(truth * LAYERS))), "l0")
        return stats.Estimate(found.value / LAYERS, found.low / LAYERS, found.high / LAYERS)
    if kind == "gate_error":
        return stats.proportion(random.random(PLANTED) < truth)
    return None


def apart(bound, holds):
    """A value that is plainly on one side of the margin."""
    sign = (1 if bound.side == "at least" else -1) * (1 if holds else -1)
    kind = bound.number.split(".")[0]
    if kind in ("delta_top1", "delta_map50", "gain", "recovered"):
        return bound.margin + sign * POINTS_APART
    if kind == "gate_error":
        return 0.0 if sign < 0 else 0.3
    if kind == "sensitivity":
        return (1 if sign < 0 else 20) / LAYERS
    times = {"latency_ratio": TIMES_APART, "spread_ratio": SPREADS_APART}.get(kind)
    return bound.margin * times**sign if times else bound.margin + sign * (abs(bound.margin) + 1)


def verdict(random, claim, world):
    """What a rule says of numbers drawn in a world."""
    from helpers.evidence.stats import Estimate

    numbers = {name: Estimate(1.0) for name in claim.numbers}
    numbers |= {need.number: Estimate(need.at_least) for need in claim.needs}
    placed = set()
    for place, together in enumerate(claim.conditions.values()):
        for bound in together:
            numbers |= {need.number: Estimate(need.at_least) for need in bound.needs}
            if bound.number in placed:  # two conditions may read one number
                continue
            placed.add(bound.number)
            holds = world == TRUE or (world == MIXED and place == 0)
            truth = bound.margin if world == MARGIN else apart(bound, holds)
            numbers[bound.number] = drawn(random, bound, truth) or Estimate(truth, trainings=bound.trainings)
    return claim.judge(numbers)[0]


def allowed(claim, world):
    """The verdicts that are not wrong in a world; on the margin only the one that decides nothing is right."""
    from helpers.evidence import verdicts

    found = {
        TRUE: verdicts.CONFIRMED,
        FALSE: verdicts.REFUTED,
        MIXED: verdicts.CONFIRMED if claim.can else verdicts.DEPENDS,
        MARGIN: verdicts.UNDECIDED,
    }
    return {found[world], verdicts.UNDECIDED}


def exact(claim):
    """Whether chance has no part in a claim's numbers."""
    import numpy as np

    bounds = [bound for together in claim.conditions.values() for bound in together]
    return all(drawn(np.random.default_rng(0), bound, apart(bound, True)) is None for bound in bounds)


def errors(name, draws):
    """Shares of wrong verdicts by world, and of right ones where the claim is plainly true or false: name -> Estimate."""
    import numpy as np

    from helpers.evidence import stats, verdicts

    claim, found = verdicts.catalogue()[name], {}
    for world in WORLDS:
        if (world == MIXED and len(claim.conditions) < 2) or (world == MARGIN and exact(claim)):
            continue
        random = np.random.default_rng(0)
        said = [verdict(random, claim, world) for _ in range(1 if exact(claim) else draws)]
        right = allowed(claim, world)
        counted = {"error": [each not in right for each in said]}
        if world != MARGIN:
            counted["power"] = [each in right - {verdicts.UNDECIDED} for each in said]
        for what, cases in counted.items():
            share = float(cases[0]) if exact(claim) else stats.proportion(np.array(cases))
            found[f"rule_{what}.{name}.{world}"] = share
    return found


def methods(random):
    """Of each method some worlds: method -> list of (draws an Estimate, the truth)."""
    import numpy as np

    from helpers.compress import sensitivity
    from helpers.evidence import stats

    def over_seeds(trainings, spread):
        return lambda: stats.paired_difference(*paired(random, -0.02, trainings, spread, 400)), -0.02

    def agreeing(trainings, apart):  # often on every example
        return lambda: stats.paired_difference(*paired(random, 0.0, trainings, 0.0, 400, apart)), 0.0

    def rank(place, smallest):
        return lambda: sensitivity.rank(sweep(random, place, smallest), "l0"), place

    shares = (0.5, 0.9, 0.98)
    return {
        "proportion": [(lambda p=p: stats.proportion(random.random(500) < p), p) for p in shares],
        "paired_difference": [
            (lambda d=d: stats.paired_difference(*paired(random, d)), d) for d in (0.0, -0.005, -0.1)
        ],
        **{
            f"over_{trainings}_seeds": [over_seeds(trainings, spread) for spread in (0.0, 0.5, 1.0, 2.0)]
            for trainings in (2, 3, 5)
        },
        **{
            f"over_{trainings}_agreeing_seeds": [agreeing(trainings, apart) for apart in (0.0005, 0.002)]
            for trainings in (3, 5)
        },
        "spread_ratio": [
            (lambda s=s: stats.spread_ratio(trained(random, 0.01 * s, 5), trained(random, 0.01, 5)), s)
            for s in (1.0, 3.0)
        ],
        "mean": [(lambda n=n: stats.mean(random.normal(3, 1, n)), 3) for n in (3, 5, 10)],
        "geometric_mean": [(lambda: stats.geometric_mean(np.exp(random.normal(0.4, 0.1, BLOCKS))), np.exp(0.4))],
        "median": [(lambda: stats.median(random.exponential(size=31)), np.log(2))],
        "rank": [rank(place, smallest) for place in (1, 5, 20) for smallest in (1e-3, 0.1, 0.5)],
    }


def coverage(draws):
    """The share of intervals that hold the truth, by method, in its least favourable world: name -> Estimate."""
    import numpy as np

    from helpers.evidence import stats

    found = {}
    for method, worlds in methods(np.random.default_rng(0)).items():
        shares = []
        for draw, truth in worlds:
            held = [estimate.low <= truth <= estimate.high for estimate in (draw() for _ in range(draws))]
            shares.append(stats.proportion(np.array(held)))
        found[f"coverage.{method}"] = min(shares, key=lambda share: share.value)
        print(f"{method:20}", *(f"{share:.1%}" for share in shares), flush=True)
    return found


def main():
    """Simulate with the number of draws that is named; keep what all of them gave."""
    draws = int(sys.argv[1]) if sys.argv[1:] else DRAWS
    numbers = coverage(draws)
    from helpers.base import repository
    from helpers.evidence import results, verdicts

    known = {name: claim for name, claim in verdicts.catalogue().items() if claim.conditions}
    for name in known:
        found = errors(name, draws)
        numbers |= found
        print(
            f"{name:6}",
            *(f"{key.split('.', 1)[0][5:]} {key.split('.')[-1]} {of:.1%};" for key, of in found.items()),
            flush=True,
        )
    if not sys.argv[1:]:
        import os

        os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
        rules = {name: claim.hash for name, claim in known.items()}
        print("Kept:", results.record("rules", "rules", {"draws": draws}, numbers, rules=rules))


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        raise SystemExit
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
