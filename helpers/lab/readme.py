"""What README, WORKSHOP.md and RESULTS.md say of `results/` is generated, so that no number there is typed by hand.

README and WORKSHOP.md are written by people, with generated parts in them, and so are the pages in Chinese (README.zh.md,
RESULTS.zh.md); RESULTS.md is generated throughout.
"""

import re

import pandas as pd

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import language, results
from helpers.evidence.language import ENGLISH
from helpers.lab import claim_tables, quiz, translated
from helpers.lab.notebook import find, overview
from helpers.lab.telling import NOT_RECORDED, entry, markdown, tell

README = repository.REPOSITORY / "README.md"
WORKSHOP = repository.REPOSITORY / "WORKSHOP.md"
RESULTS = repository.REPOSITORY / "RESULTS.md"
IN_CHINESE = (README.with_suffix(language.ENDING), RESULTS.with_suffix(language.ENDING))
VALUE = re.compile(r"<!-- value (\S+) (\S+) (\S+) (\S+) -->.*?<!-- end -->")
MARK = re.compile(r"<!-- (?:value [^>]*|end )-->|^<!-- (?:(?:begin|end) \S+|english \w+) -->\n?", re.MULTILINE)
INTRODUCTION = """# Results

Generated from `results/` by `make record`; a test says when it is not current. Numbers stand with their 95% interval in brackets;
differences are in points, paired on the same examples. A *profile* is a set of parameters: `quick` is what `make run` runs, on
data that come with this repository; `full` takes all of MNIST and Fashion-MNIST, `full_flowers` photos of flowers at 224 px.

Accuracy has a column for each profile: `quick` from the machine whose outputs stand in the notebooks, the others from the one
that recorded each notebook last; a rerun elsewhere stays within the tolerance that is recorded beside each number. Latency has
a row for each machine, named by what decides it. A ratio above 1 is faster; one thread, one sample at a time, interleaved with
the baseline.
"""

CLAIMS = """## The article's claims

The article is "TensorFlow模型压缩技术：剪枝与量化实战", signed 张小明, dated 2026-01-13; it has no stable address that we know of. A
condition *holds* if each of its intervals lies on the claim's side of the margin, and *fails* if one lies on the other. A claim is
*confirmed* if all its conditions hold, *refuted* if all fail, *depends* if one holds and another fails, and *undecided* otherwise:
an interval holds the margin, the trainings were too few, or what the rule asks for was not there, as an ARM processor. Of a claim
that something *can* happen one condition that holds is enough. The rules stand below. They were fixed before the numbers: a
recording carries the hash of each, and what was recorded before its rule is left out here until it is recorded again.

![Every claim and its verdict](figures/07_ledger.svg)
"""

FINDINGS = """
## What the lab found beside

Findings of our own, never counted with the article's claims.
"""

PUBLISHED = """
## Beside what others published

Figures that others printed for the same technique, and ours. Data, networks and schemes differ, as the last column says: these are
no reproductions.
"""

ZOO = """
## What the tools take

36 architectures, small and with random weights, each saved as a file and handed to every tool (`benchmarks/zoo.py` says what
counts as right). *Refused* means a sentence with the reason, and `results/zoo/` holds it. Sensitivity and gate judge them without
labels, each by what its outputs fit; the detector is told to be one.
"""

TASKS = """
## How the gate judges other tasks

Simulated models whose true scores are known (`benchmarks/task_errors.py`), the least favourable of three candidates. *Covered*: how
often the 95% interval holds what is truly lost. *At the limit*: a candidate that loses exactly what is allowed is accepted, or
rejected. *Worse*: one that loses 5 points more is accepted. *Harmless*: one that loses 5 points less is rejected.
"""

TRAINABLE = """
## Which files can be trained

The same architectures as float `.tflite`s, a file of PyTorch, and files of products, trained as `compression-lab train` does it
(`benchmarks/trainable.py`). *Exact*: the graph answers as LiteRT. *Gradient*: one reaches every weight that leads to an output.
*Simulation*: it is closer to the int8 file than that is to float32. *Trains*: with 4-bit kernels, 20 steps by its own answers do
not leave it worse. *Refused* means a sentence with the reason, and `results/trainable/` holds it.
"""

TRAINING = """
## A file trained beside tfmot's way

MobileNetV2 on fashion8k, the same images, batches, steps (25 at 8 bits, 100 at 4) and rate on every route, five trainings each
(`benchmarks/training_a_file.py`). *tfmot*: a quantization-aware Keras model from this lab's calibrated start, with labels;
*tflite*: the graph of the file, with the same labels; *label free*: the file's own answers instead. *Agree*: the file and what
was simulated in training; XNNPACK and LiteRT's built-in kernels agree with each other on {kernels_8:.1%} at 8 bits and
{kernels_4:.1%} at 4. With labels the file's graph gains {gain_8:points} over tfmot at 8 bits and {gain_4:points} at 4; without,
{free_8:points} and {free_4:points}.
"""

SEARCH = """
## A search of bits beside its rivals, on photos that it was not developed with

MobileNetV2 of two sizes on the flowers, judged once (`benchmarks/search_unseen.py`, whose rule stood before the run). A column is a
budget: the bytes of 4 bits throughout, or of 4 bits with the first and the last layer in float32. The change of top-1 against float32,
and behind each rival what the search gains over it in the same bytes. By the rule the search keeps its promise
at a budget if the whole interval of each gain is above zero, on both networks.
"""


def render(text=None, told_in=ENGLISH):
    """A text, README's by default, with everything generated in it made anew, in a Language.

    A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; a single number between
    `<!-- value PROFILE[/MACHINE] NOTEBOOK NUMBER FORMAT -->` and `<!-- end -->` (see `value`).
    """
    text = README.read_text(encoding="utf-8") if text is None else text
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin in text:
            before, rest = text.split(begin, 1)
            text = before + begin + make(told_in) + "\n" + end + rest.split(end, 1)[1]
    return VALUE.sub(
        lambda found: f"<!-- value {' '.join(found.groups())} -->{value(*found.groups(), told_in)}<!-- end -->", text
    )


def unmarked(text):
    """A text without the marks of what is generated in it."""
    return MARK.sub("", text)


def update():
    """Write README, WORKSHOP.md, RESULTS.md and what is in Chinese with all that is generated in them made anew."""
    translated.write()
    for path in (README, WORKSHOP, *IN_CHINESE):
        repository.write(path, render(path.read_text(encoding="utf-8"), language.of(path)))
    repository.write(RESULTS, results_page())


def value(profile, notebook, number, form, told_in=ENGLISH):
    """One recorded number as text, with its interval if it has one; NOT_RECORDED if the notebook has not run.

    profile: its name, of the reference machine, or "quick/x86-64-avx2" for another one. notebook: as "01", a benchmark's results by
    their name, or "all" for the sum over those that were recorded. number: its name, or "minutes" that the recorded run took.
    form: as `Estimate` takes them, "points+" for points without the word. Raises InputError for a number that the notebook does
    not have.
    """
    if notebook == "all":
        single = (value(profile, name, number, ".6f") for name in overview().index)
        return format(sum(float(text) for text in single if text != NOT_RECORDED), form)
    name, _, machine = profile.partition("/")
    try:
        recorded = (
            notebook if results.recordings(name, notebook) else find(notebook).stem
        )  # a benchmark's, or a notebook's
        content = results.read(recorded, name, machine or None)
    except InputError:
        return NOT_RECORDED
    if number == "minutes":
        return format(content["provenance"]["seconds"] / 60, form)
    if number not in content["numbers"]:
        raise InputError(f"number={number!r} is not among the results of {notebook}: look into results/{profile}/.")
    return tell(content["numbers"][number], form, told_in)


def notebooks_table(told_in=ENGLISH):
    """The notebooks with the question each asks and the minutes of its recorded run, as two Markdown tables: the core path in its
    order, and the side paths with where each leaves it. Each row leads to the notebook, or to the translated one if there is one."""
    rows = {"": {}, "side": {}}
    for row in overview().itertuples():
        minutes = NOT_RECORDED if pd.isna(row.seconds) else f"{max(row.seconds / 60, 0.1):.1f}"
        question = told_in.say(row.question)
        path = translated.path(row.Index, told_in).relative_to(repository.REPOSITORY).as_posix()
        told = [question, row.leaves, minutes] if row.leaves else [question, minutes]
        rows["side" if row.leaves else ""][f"[{row.Index}]({path})"] = told
    core = pd.DataFrame.from_dict(rows[""], orient="index", columns=["the core path asks", "minutes"])
    side = pd.DataFrame.from_dict(rows["side"], orient="index", columns=["a side path asks", "leaves after", "minutes"])
    return "\n\n".join(markdown(table.rename(columns=told_in.say)) for table in (core, side))


def results_page():
    """The text of RESULTS.md."""
    parts = [INTRODUCTION, CLAIMS, claim_tables.claims_table(claim_tables.counting())]
    apart = claim_tables.claims_by_machine(claim_tables.counting())
    if apart:
        parts += ["\nWhere the machines of one profile come to different verdicts:\n", apart]
    parts += ["\n### The rules\n", claim_tables.rules_table()]
    parts += [FINDINGS, claim_tables.findings_table(), PUBLISHED, claim_tables.published_table()]
    for name, row in overview().iterrows():
        tables = notebook_tables(name)
        if tables:
            parts += [f"\n## [{row.question}](notebooks/{name}.ipynb)\n", *tables, *_pictures(name)]
    if results.recordings("rules", "tasks"):
        parts += [TASKS, tasks_table()]
    if results.recordings("training_a_file"):
        parts += training()
    if results.recordings("search"):
        parts += [SEARCH, search_table()]
    for introduction, name in ((ZOO, "zoo"), (TRAINABLE, "trainable")):
        if outcomes_file(name) is not None:
            parts += [introduction, outcomes_table(name)]
    return "\n".join(parts).rstrip() + "\n"


def outcomes_file(name):
    """The table that `benchmarks/zoo.py` or `benchmarks/trainable.py` kept last; None if there is none."""
    found = [results.RECORDED / name / it.machine / f"{name}.csv" for it in results.recordings(name, name)]
    return next((path for path in found if path.is_file()), None)


def outcomes_table(name):
    """What was made of each model in each column, and the reasons for what is not right, as Markdown."""
    table = pd.read_csv(outcomes_file(name), keep_default_na=False)
    model, columns = table.columns[0], list(dict.fromkeys(table["column"]))
    cells = table.pivot(index=model, columns="column", values="outcome")[columns]
    cells = cells.loc[list(dict.fromkeys(table[model]))].replace("right", "yes").astype(object)
    total = [(cells[column] == "yes").sum() for column in columns]
    if "made_by" in table:
        cells.insert(0, "made by", table.drop_duplicates(model).set_index(model)["made_by"])
        total = ["", *total]
    cells.loc["**yes, of " + str(len(cells)) + "**"] = total
    reasons = [
        f"- {row[1]}, {row.column}: {row.outcome}. {row.why}"
        for row in table.itertuples()
        if row.outcome not in ("right", "refused")
    ]
    return markdown(cells.rename(columns=lambda column: column.replace("_", " "))) + "\n\n" + "\n".join(reasons)


def tasks_table():
    """The coverage of each task's intervals and the errors of its gate, as recorded, as a Markdown table."""
    numbers, rows = results.read("tasks", "rules")["numbers"], {}
    for name in (name.removeprefix("coverage.") for name in numbers if name.startswith("coverage.")):
        accepted, rejected, worse, harmless = (
            numbers[f"gate_error.{name}.{world}"]
            for world in ("margin_accepted", "margin_rejected", "worse", "harmless")
        )
        at_limit = f"{accepted.value:.1%}, {rejected.value:.1%}"
        rows[name] = [f"{numbers[f'coverage.{name}']:.1%}", at_limit, f"{worse:.1%}", f"{harmless:.1%}"]
    return markdown(
        pd.DataFrame.from_dict(rows, orient="index", columns=["covered", "at the limit", "worse", "harmless"])
    )


def training():
    """What `benchmarks/training_a_file.py` recorded: its introduction and its table, as Markdown."""
    numbers, rows = results.read("training", "training_a_file")["numbers"], {}
    told = {f"kernels_{bits}": numbers[f"agreement.kernels_{bits}"] for bits in (8, 4)}
    for name, route in (("gain", "tflite"), ("free", "tflite_label_free")):
        told |= {f"{name}_{bits}": numbers[f"gain.{route}_over_tfmot_{bits}"] for bits in (8, 4)}
    for bits in (8, 4):
        for route in ("tfmot", "tflite", "tflite_label_free"):
            named = f"{route}_{bits}"
            seconds = [f"{numbers[f'seconds.{named}.{part}'].value:.2f}" for part in ("build", "step", "convert")]
            accuracy = f"{numbers[f'top1.{named}']:.1%}", f"{numbers[f'delta_top1.{named}']:points}"
            agree = f"{numbers[f'agreement.{named}']:.1%}"
            rows[f"{route.replace('_', ' ')}, {bits} bits"] = [*accuracy, agree, *seconds]
    columns = ["top-1", "minus float32", "agree", "seconds to build", "a step", "to convert"]
    return TRAINING.format(**told), markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def search_table():
    """What `benchmarks/search_unseen.py` recorded, a row a network and method, as a Markdown table."""
    rows = {}
    for it in results.recordings("search"):
        numbers = results.read(it.notebook, "search", it.machine)["numbers"]
        for method in ("search", "uniform", "ends", "random", "per_byte", "greedy"):
            row = rows[f"{it.notebook.replace('_', ' ')}: {method.replace('_', ' ')}"] = []
            for budget in ("int4", "ends"):
                gained = numbers.get(f"gain.search_over_{method}_{budget}")
                change = f"{numbers[f'delta_top1.search_{budget}_{method}']:points}"
                row.append(f"{change}; gain {gained:points}" if gained else change)
    columns = ["bytes of 4 bits", "bytes of the ends in float32"]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def notebook_tables(notebook):
    """The labelled numbers of a notebook as Markdown: accuracy by profile, then latency by machine; [] if it has none."""
    found = {}
    for it in results.recordings(notebook=notebook):
        found[it.profile, it.machine] = results.read(notebook, it.profile, it.machine)
    labels = next((content["labels"] for content in found.values() if content["labels"]), {})
    labels = {name: label for name, label in labels.items() if any(name in it["numbers"] for it in found.values())}
    tolerances = {name: content["tolerances"][name] for content in found.values() for name in content["tolerances"]}
    by_machine = [name for name in labels if tolerances.get(name, 0) is None]
    columns, machines, rows = {}, {}, {}
    for (profile, machine), content in found.items():
        if profile not in {name for name, _ in machines}:
            data = content["provenance"]["data"]
            title = f"{profile}: {data['name']}" if data else profile
            columns[title] = {labels[name]: entry(content, name) for name in labels if name not in by_machine}
        told = content["provenance"]["machine"]
        machines[profile, machine] = f"{told['cpu']} ({', '.join(told['cpu_features'])}), {told['cores']} cores"
        rows[f"{profile}, {machine}"] = {labels[name]: entry(content, name) for name in by_machine}
    tables = []
    if len(labels) > len(by_machine):
        tables.append(markdown(pd.DataFrame(columns)) + "\n")
    if by_machine:
        tables.append(markdown(pd.DataFrame.from_dict(rows, orient="index")) + "\n")
    if tables:
        where = "; ".join(f"{', '.join(key)}: {machine}" for key, machine in machines.items())
        tables.append(f"Measured on {where}.\n")
    return tables


def _pictures(notebook):
    figures = sorted((repository.REPOSITORY / "figures").glob(f"{notebook[:2]}_*.svg"))
    return [f"![{path.stem[3:].replace('_', ' ')}](figures/{path.name})\n" for path in figures]


PARTS = {
    "notebooks": notebooks_table,
    "claims": lambda told_in: claim_tables.claims_table(claim_tables.counting(told_in), told_in),
    "machines": lambda told_in: claim_tables.claims_by_machine(claim_tables.counting(told_in), told_in) or NOT_RECORDED,
    "rules": claim_tables.rules_table,
    "findings": claim_tables.findings_table,
    "quiz": lambda _: quiz.printed(),
}
