"""Do intervals of true accepts hold what is true? Simulated identities, two models, draws of some identities.

    python benchmarks/verification.py          # some minutes
    python benchmarks/verification.py 50       # fewer draws

A population of identities is made, some harder than others and some alike, and what two models answer to pictures of them:
the second one has the first one's noise and more. True is the share over the population, with the threshold of the population.
A draw is some identities; coverage is how often its 95% interval holds what is true: of each model, of the difference, with the
threshold set anew from the draw and with one that was known before.
"""

import sys

DRAWS = 400
IDENTITIES, PICTURES, NUMBERS = 3000, 5, 16
SIZES = (60, 120)  # identities of a draw
NOISE = ((0.55, 0.25), (0.9, 0.6))  # of the first model, and what the second one has more: an easy case and a hard one


def population(random, noise, more):
    """Vectors of two models, (identities, pictures, numbers) each."""
    import numpy as np

    families = random.normal(size=(IDENTITIES // 10, NUMBERS))
    centres = random.normal(size=(IDENTITIES, NUMBERS)) + 0.7 * families[random.integers(0, len(families), IDENTITIES)]
    hard = np.exp(random.normal(0, 0.4, (IDENTITIES, 1, 1)))
    shape = IDENTITIES, PICTURES, NUMBERS
    first = centres[:, None] + noise * hard * random.normal(size=shape)
    return first, first + more * hard * random.normal(size=shape)


def truth(vectors, rate):
    """The threshold and the share of true accepts of a population; pairs of different identities by one picture of each."""
    import numpy as np

    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    first = unit[:, 0]
    strange = (first @ first.T)[np.triu_indices(len(first), 1)]
    end = np.quantile(strange, 1 - rate)
    same = np.einsum("ian,ibn->iab", unit, unit)[:, *np.triu_indices(PICTURES, 1)]
    return float(end), float((same > end).mean())


def coverage(random, models, rate, size, draws):
    """name -> share of the draws whose interval holds what is true."""
    import numpy as np

    from helpers.evidence import stats, verification

    ends, shares = zip(*(truth(each, rate) for each in models), strict=True)
    who, held = np.repeat(np.arange(size), PICTURES), {}
    for _ in range(draws):
        chosen = random.choice(IDENTITIES, size, replace=False)
        drawn = [each[chosen].reshape(-1, NUMBERS) for each in models]
        anew = [verification.true_accepts(each, who, rate) for each in drawn]
        known = [
            verification.true_accepts(*each, threshold=end) for *each, end in zip(drawn, [who] * 2, ends, strict=True)
        ]
        for name, sets in (("anew", anew), ("known", known)):
            intervals = {
                f"{name}, first": (stats.score(sets[0]), shares[0]),
                f"{name}, second": (stats.score(sets[1]), shares[1]),
                f"{name}, difference": (stats.score_difference(*sets), shares[1] - shares[0]),
            }
            for what, (interval, true) in intervals.items():
                held.setdefault(what, []).append(interval.low <= true <= interval.high)
    return {name: float(np.mean(each)) for name, each in held.items()}


def main(draws=DRAWS):
    """Print how often the interval of a rate of true accepts holds the truth, for each noise and number of pairs."""
    import numpy as np

    random = np.random.default_rng(0)
    for noise, more in NOISE:
        models = population(random, noise, more)
        for rate in (0.01, 0.001):
            told = ", ".join(f"{truth(each, rate)[1]:.3f}" for each in models)
            for size in SIZES:
                found = coverage(random, models, rate, size, draws)
                print(f"true accepts {told} at {rate:g}; {size} identities, {draws} draws:")
                print("   " + "  ".join(f"{name} {share:.1%}" for name, share in found.items()), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
