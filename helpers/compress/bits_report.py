"""What `compression-lab search` does with a file of the user's: search the bits of its layers, judge what it found, and tell."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.compress import bits, bits_rivals, own_data, own_model, requantize, sensitivity
from helpers.evidence import stats
from helpers.tflite import heads, inputs, litert, measure

ROUNDS = 30  # of latency
FILE = "model.tflite"  # in the folder of results
ACTIVATIONS = {"8": 8, "dynamic": requantize.DYNAMIC, "float": None}


@dataclass(frozen=True)
class Wanted:
    """How `search_file` searches. scales: as in `bits.formats`; activations: a key of ACTIVATIONS; tries: as in `bits.search`; rounds:
    of latency, as `measure.latency` takes them."""

    scales: str = "both"
    activations: str = "8"
    tries: int = bits.TRIES
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Report:
    """own: the Model. found: a `bits.Found`. layers: a row for each layer of the file found: layer, kind, op, weights, format, bits,
    bytes (of its kernel and bias, with their scales), damage (that this format alone does to the int8 file). tried: every file that
    was measured, as `bits.Trials.measured` has them, with a name for some. judged: a row for float32, int8, 4 bits
    throughout, and the one found: bytes, and of each task of the purpose the mean score, such as top1, or same, the share of
    float32's answers, and gain, an Estimate: what the file found scores more. heads: of the samples to choose by. speed: a row for float32,
    int8 and the one found, as `measure.latency` gives them against int8."""

    own: object
    found: bits.Found
    layers: pd.DataFrame
    tried: pd.DataFrame
    judged: pd.DataFrame
    heads: list
    speed: pd.DataFrame

    @property
    def unit(self):
        """Of damage, in words."""
        return " + ".join(head.task.unit for head in self.heads)


def gain(judged, one, other):
    """What answers `other` score more than answers `one` of the same samples, both name of an output -> array: an Estimate, of the
    head that gains least. judged: a list of `heads.Head`."""
    gains = [
        stats.score_difference(*(head.task.scores(head.of(answers), head.truth) for answers in (one, other)))
        for head in judged
    ]
    return min(gains, key=lambda each: each.value)


def search_file(path, samples, budget, wanted=None, progress=iter, purpose=None, **opened):
    """`bits.search` for a model that `own_model.load(path, **opened)` takes, and arrays in `.npz` files as `inputs.judged` reads
    them: a Report.

    samples: name -> path: "calibration" sets the ranges of activations; "selection" is what plans are measured on, by default the
    same; "test" is what the file found is judged on, once, by default the selection, which flatters it. budget: as
    `bits.Budget.read` takes it. Raises InputError for files and budgets that cannot be used.
    """
    asked, wanted = bits.Budget.read(budget), wanted or Wanted()
    given = {name: path for name, path in samples.items() if path}
    given.setdefault("selection", given["calibration"])
    given.setdefault("test", given["selection"])
    arrays = {name: inputs.judged(each, name) for name, each in given.items()}
    own = own_model.load(path, **opened)
    fitted = {name: own_data.fitted(x, own, f"{name}={str(given[name])!r}") for name, (x, *_) in arrays.items()}
    labels = {name: y for name, (_, y, _) in arrays.items()}
    blocks = (32, 64) if wanted.activations == requantize.DYNAMIC and wanted.scales == "both" else ()
    forms = bits.formats(ACTIVATIONS[wanted.activations], wanted.scales, blocks)
    trials = bits.Trials(
        own.file, fitted["calibration"], fitted["selection"], labels["selection"], forms, own.layers, purpose
    )
    table = bits.sweep(trials, progress)
    found = bits.search(trials, table, asked, wanted.tries, bits_rivals.starts(trials, table))
    bits.trace(trials, table)
    named = {"int8": trials.uniform(bits.INT8), "int4": trials.uniform(bits.INT4), "found": found.plan}
    layers, tried = layers_of(trials, table, found), _tried(trials, named)
    judged = _judged(trials, named, fitted["test"], labels["test"], purpose)
    timed = {"float32": own.file, "int8": trials.file(named["int8"]), "found": found.file}
    speed = measure.latency(timed, "int8", inputs.by_name(fitted["test"]), wanted.rounds)
    return Report(own, found, layers, tried, judged, trials.heads, speed)


def layers_of(trials, table, found):
    """The layers of a file that was found, as a Report has them."""
    kinds = sensitivity.kinds(trials.layers)
    held = trials.held(found.file)
    one = table.set_index(["layer", "format"])["damage"]
    forms = [found.plan[layer] for layer in trials.layers["layer"]]
    return trials.layers.drop(columns="name").assign(
        kind=kinds,
        format=forms,
        bits=held["dtype"].str.extract(r"(\d+)")[0].astype(int),
        bytes=held["bytes"],
        damage=[one[place] for place in zip(trials.layers["layer"], forms, strict=True)],
    )


def _tried(trials, named):
    for plan in named.values():
        trials.measure(plan)
    table = trials.measured()
    names = [next((name for name, plan in reversed(named.items()) if plan == each), "") for each in table["plan"]]
    return table.assign(name=names)


def _judged(trials, named, x, y, purpose):
    samples = inputs.by_name(x)
    files = {"float32": trials.model, **{name: trials.file(plan) for name, plan in named.items()}}
    answers = {name: litert.run(file, samples, batch=litert.BATCH) for name, file in files.items()}
    judged, rows = heads.heads(answers["float32"], y, purpose), {}
    for name, file in files.items():
        rows[name] = {"bytes": len(file)}
        for head in judged:
            suffix = f".{head.name}" if head.name else ""
            scores = head.task.scores(head.of(answers[name]), head.truth)
            measure = head.task.measure if head.labelled or not head.task.discrete else "same"
            rows[name][measure + suffix] = stats.score(scores).value
        rows[name]["gain"] = gain(judged, answers[name], answers["found"])
    return pd.DataFrame.from_dict(rows, orient="index")


def title(report, name):
    """A sentence for the figure of the files that were tried."""
    sizes = report.judged["bytes"]
    return f"{name}: {sizes['found']:,} bytes, {sizes['found'] / sizes['int8']:.0%} of the int8 file's"


def told(report, judged_on_others):
    """What was found, in sentences."""
    table, found = report.judged, report.found
    sizes, change = table["bytes"], 100 * found.numbers["change"]
    yield f"Task: {'; '.join(map(str, report.heads))}. Damage: {report.unit}."
    yield (
        f"Found: {sizes['found']:,} bytes, {sizes['found'] / sizes['int8']:.1%} of int8's {sizes['int8']:,} and "
        f"{sizes['found'] / sizes['float32']:.1%} of float32's; damage {found.numbers['damage']:.3g} against {found.guess['damage']:.3g} "
        f"of the first guess; {change:+.1f} points against float32 on the samples it was chosen by. {found.files} files were measured."
    )
    if not found.reached:
        yield (
            f"No file that was found loses so few points: this one loses least, {-change:.1f}. Allow as many, or train the file for "
            "its bits (compression-lab train)."
        )
    scores = [name for name in table if name not in ("bytes", "gain")]
    for name, row in table.iterrows():
        values = ", ".join(f"{column} {row[column]:.1%}" for column in scores)
        than = "" if name == "found" else f"; found scores {row['gain']:points} more"
        yield f"{name}: {row['bytes']:,} bytes, {values}{than}"
    yield faster(report.speed)
    if not judged_on_others:
        yield "Judged on the samples that it was chosen by, which flatters it: give others (--test FILE.npz)."


def faster(speed):
    """Whether fewer bits are less time here, in a sentence. speed: as a Report has it."""
    times = {name: f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]" for name, row in speed.iterrows()}
    found = speed.loc["found"]
    if found.high < 1:
        so = "slower: its fewer bits save bytes, not time"
    elif found.low > 1:
        so = "faster"
    else:
        so = "neither faster nor slower, as far as so few rounds tell"
    return f"Speed here, of one sample on one thread: {times['found']} times int8's, so {so}. float32's: {times['float32']} times int8's."


def check_output(model, output):
    """Raises InputError where `write` would write over the model itself."""
    if (Path(output) / FILE).resolve() == Path(model).resolve():
        raise InputError(f"output={str(output)!r} holds the model itself, as {FILE}: name another folder.")


def write(report, output):
    """Write the file, and the tables of layers and of the front, into a folder."""
    output = Path(output)
    repository.write(output / FILE, report.found.file)
    repository.write(output / "layers.csv", report.layers.to_csv(index=False))
    front = report.tried[report.tried["front"] | (report.tried["name"] != "")]
    repository.write(output / "front.csv", front.drop(columns="plan").to_csv(index=False))
