"""Other ways to spend a budget of bytes on the layers of a `.tflite`, to set beside `bits.search`: plans, of at most so many bytes.

Each takes `bits.Trials`, the most bytes that the file may have, and where it orders layers by damage, the table of `bits.sweep`;
and gives a plan with 4 bits, 8 bits or float32, and one scale for each channel, as such searches are published. None if not
even 4 bits throughout fit.
"""

import itertools

import numpy as np

from helpers.compress.bits import FLOAT, INT4, INT8, smallest

PATIENCE = 3  # layers that may fail one after another before the greedy search stops
HALVINGS = 6  # of the bound on the damage, until the greedy search's file has the size that is asked for


def plans(trials, table, limit, seed=0):
    """What each rival makes of so many bytes: uniform, ends, random (drawn by seed), per_byte (by bits alone) and greedy -> plan or None."""
    return {
        "uniform": uniform(trials, limit),
        "ends": ends(trials, limit),
        "random": shuffled(trials, limit, seed),
        "per_byte": per_byte(trials, _bits_alone(table), limit),
        "greedy": greedy(trials, table, limit),
    }


def uniform(trials, limit):
    """The same bits everywhere (8 where a layer has no kernel for 4), as many as fit."""
    plans = [trials.uniform(form) for form in (FLOAT, INT8, INT4)]
    return next((plan for plan in plans if trials.measure(plan)["bytes"] <= limit), None)


def ends(trials, limit):
    """The first and the last layer protected, in float32 if that fits; then 8 bits for the next ones from both ends inwards."""
    layers = list(trials.layers["layer"])
    inwards = [layers[place // 2] if place % 2 == 0 else layers[-1 - place // 2] for place in range(len(layers))]
    outer = inwards[:2]
    moves = [*((layer, form) for form in (INT8, FLOAT) for layer in outer), *((layer, INT8) for layer in inwards[2:])]
    return _promoted(trials, limit, moves)


def shuffled(trials, limit, seed=0):
    """8 bits for layers in random order, as long as they fit."""
    layers = np.random.default_rng(seed).permutation(trials.layers["layer"])
    return _promoted(trials, limit, [(layer, INT8) for layer in layers])


def per_byte(trials, table, limit):
    """From the smallest formats everywhere, the step up that removes most damage per byte first, as long as it fits; between those
    formats of a layer that are in the table, which may be others than 4 bits, 8 bits and float32."""
    moves = []
    for _, rows in table.sort_values("bytes", kind="stable").groupby("layer", sort=False):
        useful = rows[rows["damage"] < rows["damage"].cummin().shift(fill_value=np.inf)]
        for low, high in itertools.pairwise(useful.itertuples()):
            gained = low.damage - high.damage
            moves.append((gained / max(1, high.bytes - low.bytes), high.layer, high.format))
    moves.sort(key=lambda move: -move[0])
    return _promoted(trials, limit, [(layer, form) for gain, layer, form in moves if gain > 0], smallest(table))


def starts(trials, table):
    """Where a search may begin: bytes -> the plans of most damage per byte, by all formats of the table and by bits alone."""
    return lambda limit: [per_byte(trials, rows, limit) for rows in (table, _bits_alone(table))]


def greedy(trials, table, limit):
    """The two phases of the experiment runner that litert-quantizer publishes (LiteRT, experimental/skills/auto_quant,
    experiment_runner.md), turned to a budget of bytes.

    Phase 1 keeps fragile layers in float until a file of 8 bits is good enough: it is, beside one with layers of 4 bits, so that
    none is. Phase 2 takes layers from the most robust to the least, gives each 4 bits, measures the whole file, takes a step back
    that exceeds a bound on the damage, and stops after PATIENCE such steps in a row. The bound is what its user would say; here
    it is the least, by halving, whose file fits. Phase 3 measures once more which layers of that file to give 8 bits again, and does it
    in the order of error removed per byte as long as they fit.
    """
    alone = table[table["format"] == INT4].sort_values("damage", kind="stable")
    order = list(alone["layer"])
    low, high = trials.measure(trials.uniform(INT8))["damage"], trials.measure(trials.uniform(INT4))["damage"]
    best = _squashed(trials, order, np.inf)
    if trials.measure(best)["bytes"] > limit:
        return None
    low = max(low, 1e-6 * high)
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        plan = _squashed(trials, order, middle)
        fits = trials.measure(plan)["bytes"] <= limit
        low, high, best = (low, middle, plan) if fits else (middle, high, best)
    now, gains = trials.measure(best), []
    for layer in order:
        if best[layer] == INT4:
            back = trials.measure({**best, layer: INT8})
            if back["bytes"] <= limit and back["damage"] < now["damage"]:
                gains.append(((now["damage"] - back["damage"]) / max(1, back["bytes"] - now["bytes"]), layer))
    return _promoted(trials, limit, [(layer, INT8) for _, layer in sorted(gains, reverse=True)], best)


def _bits_alone(table):
    return table[table["format"].isin((INT4, INT8, FLOAT))]


def _squashed(trials, order, bound):
    plan, failed = trials.uniform(INT8), 0
    for layer in order:
        step = {**plan, layer: INT4}
        if trials.measure(step)["damage"] <= bound:
            plan, failed = step, 0
        else:
            failed += 1
            if failed == PATIENCE:
                break
    return plan


def _promoted(trials, limit, moves, plan=None):
    """The plan after all moves (layer, format) up that fit, in their order. None if not even the plan fits."""
    plan = plan or trials.uniform(INT4)
    if trials.size(plan) > limit:
        return None
    for layer, form in moves:
        step = {**plan, layer: form}
        if form in trials.choices[layer] and trials.size(plan) < trials.size(step) <= limit:
            plan = step
    return plan
