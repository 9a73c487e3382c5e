"""What is in Chinese follows the English: README line by line, claims word by word, notebooks cell by cell.

A change in English that was not carried over fails here with what is to be done.
"""

import dataclasses
import difflib
import re
from collections import Counter

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import claims, language, verdicts
from helpers.evidence.language import Language
from helpers.lab import claim_tables, readme, telling, translated

README = readme.README.read_text()
README_ZH, RESULTS_ZH = (page.read_text() for page in readme.IN_CHINESE)
MARK = re.compile(r"^<!-- english (\w+) -->\n", re.MULTILINE)
SOURCES = translated.sources()


def plain(text):
    """A page without its generated numbers and tables, and without marks."""
    text = readme.VALUE.sub(lambda found: f"<!-- value {' '.join(found.groups())} -->", MARK.sub("", text))
    return re.sub(r"(<!-- begin (\w+) -->\n).*?(?=<!-- end \2 -->)", r"\1", text, flags=re.S)


def signatures(text):
    """(line, what both languages must have in it) of each line of a page: kind, commands and code, numbers, links."""
    found, fenced = [], False
    for line in filter(str.strip, plain(text).splitlines()):
        fence = line.startswith("```")
        if fenced or fence:
            found.append((line, line))
        else:
            kind = re.match(r"#+ |- |\||!|<!-- (?:begin|end)|", line).group()
            links = {re.sub(r"\.zh\b|\bzh/", "", link) for link in re.findall(r"\]\(([^)]+)\)", line)}
            numbers = Counter(re.findall(r"<!-- .*? -->", line))
            code = frozenset(re.findall(r"`([^`]+)`", line))
            found.append((line, (kind, line.count(" |"), code, frozenset(numbers.items()), frozenset(links))))
        fenced ^= fence
    return found


def not_carried_over(english, chinese):
    """Where the Chinese README lacks what a line of the English one has, or has more: a sentence each."""
    ours, theirs = signatures(english), signatures(chinese)
    matcher = difflib.SequenceMatcher(None, [of for _, of in ours], [of for _, of in theirs], autojunk=False)
    problems = []
    for what, begin, end, begin_zh, end_zh in matcher.get_opcodes():
        if what != "equal":
            lines = [line[:80] for line, _ in ours[begin:end]] or ["nothing"]
            lines_zh = [line[:80] for line, _ in theirs[begin_zh:end_zh]] or ["nothing"]
            problems.append(
                f"README.md has {' / '.join(lines)} where README.zh.md has {' / '.join(lines_zh)}: carry over the line with "
                "its code, links and <!-- value --> tags, then run readme.update()."
            )
    return problems


def sections(text):
    """The parts of a page that its headings begin."""
    return re.split(r"^(?=##? )", plain(text), flags=re.MULTILINE)[1:]


def changed_since(english, chinese):
    """A sentence for each text (list of str) that is not what was translated, by the marks below the Chinese headings."""
    marks = MARK.findall(chinese)
    assert len(marks) == len(english), (
        f"{len(english)} sections, and {len(marks)} marks <!-- english ... --> in the Chinese page"
    )
    return [
        f"{text.strip().splitlines()[0]!r} has changed since it was translated: bring the Chinese up to it, and write "
        f"<!-- english {translated.fingerprint(text)} --> below its heading."
        for text, mark in zip(english, marks, strict=True)
        if translated.fingerprint(text) != mark
    ]


def test_every_line_of_readme_has_its_counterpart():
    problems = not_carried_over(README, README_ZH)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("| remove channels |", "| remove the channels | `--all` |\n| remove channels |", "--all"),
        ("## The map", "## A section more\n\n## The map", "## "),
        ("points -->", "kB -->", "The schedule of pruning"),
        ("make doctor", "make fitness", "make fitness"),
        ("](WORKSHOP.md)", "](CONTRIBUTING.md)", "make lab"),
        ("`py -3.12", "`py -3.13", None),
        ("py -3.12 -m venv", "py -3.13 -m venv", "py -3.13"),
    ],
)
def test_a_line_that_was_not_carried_over_is_named(before, after, told):
    problems = not_carried_over(README.replace(before, after, 1), README_ZH)
    assert bool(problems) == bool(told) and all(told in problem and "carry over" in problem for problem in problems)


def test_what_was_translated_has_not_changed():
    problems = changed_since(sections(README), README_ZH)
    problems += changed_since([readme.INTRODUCTION, readme.CLAIMS, readme.FINDINGS], RESULTS_ZH)
    assert not problems, "\n".join(problems)


def test_changed_words_are_noticed_and_new_numbers_are_not():
    known = changed_since(sections(README), README_ZH)
    changed = changed_since(sections(README.replace("Five dead channels", "Six dead channels")), README_ZH)
    (problem,) = {*changed} - {*known}
    assert "'## Six findings' has changed" in problem and "<!-- english " in problem
    number = re.search(r"(?<=points -->).*?(?=<!-- end)", README).group()
    assert changed_since(sections(README.replace(number, "+9.9 points", 1)), README_ZH) == known


class Asked(dict):
    """Translations that note what they were asked for."""

    def __init__(self, words):
        super().__init__(words)
        self.asked = set()

    def get(self, text, otherwise):
        self.asked.add(text)
        return super().get(text, otherwise)


def texts_of(told):
    """Every text in a claim's rule that a page may show, whatever was measured."""
    bounds = [*told.hints, *(bound for together in told.conditions.values() for bound in together)]
    needs = [*told.needs, *(need for bound in bounds for need in bound.needs)]
    of_bounds = [text for bound in bounds for text in (bound.told, bound.why)]
    beside = [text for _, text, _ in told.beside]
    texts = [told.section, told.statement, told.test_by, *told.conditions, *of_bounds, *beside]
    return set(filter(None, [*texts, *(need.otherwise for need in needs)]))


def asked():
    """Every English text that the pages in Chinese ask for."""
    words = Asked(language.chinese().words)
    for make in readme.PARTS.values():
        make(Language(words))
    told = words.asked.union(verdicts.VERDICTS, *map(texts_of, verdicts.catalogue().values()))
    return told - {"", telling.NOT_RECORDED}


def untranslated(texts):
    """A sentence for each text (set of str) that has no translation."""
    return [
        f"{text!r} has no translation: add it to words.yaml."
        for text in sorted(texts - language.chinese().words.keys())
    ]


def test_all_that_is_told_has_its_translation():
    problems = untranslated(asked())
    assert not problems, "\n".join(problems)


def test_no_translation_is_left_of_what_is_not_told_any_more():
    code = "".join(path.read_text() for path in sorted(repository.HELPERS.rglob("*.py")))
    left = [text for text in language.chinese().words.keys() - asked() if text not in code]
    assert not left, f"take out of words.yaml what nobody says any more: {left}"


def test_a_changed_claim_needs_another_translation_and_stands_in_english_until_then(monkeypatch):
    changed = dataclasses.replace(claims.CLAIMS["C07"], statement="int8 takes a fifth of float32's storage")
    monkeypatch.setitem(claims.CLAIMS, "C07", changed)
    assert untranslated(texts_of(changed)) == [f"{changed.statement!r} has no translation: add it to words.yaml."]
    numbers = {"size_ratio.int8": 0.25, "size_ratio.mlp_int8": 0.25}
    row = verdicts.judge(numbers, "C07", language=language.chinese()).loc["C07"]
    assert row["statement"] == changed.statement and row["verdict"] == verdicts.CONFIRMED
    assert language.chinese().say("{claimed}: {outcome}", claimed="", outcome="成立") in row["because"]


def test_a_text_stands_in_one_group():
    groups = language.groups()
    assert sum(map(len, groups.values())) == len(language.chinese().words), "a text stands in two groups"


def test_translations_keep_places_and_numbers():
    for english, own in language.chinese().words.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", own)), english
        assert not Counter(re.findall(r"\d+", english)) - Counter(re.findall(r"\d+", own)), english


def test_every_verdict_is_told_with_its_number_in_chinese():
    chinese = language.chinese()
    rows = re.findall(
        r"^\| (C\d+[a-z]?) \|.*\| (.*) \|$", claim_tables.claims_table(verdicts.ledger(chinese), chinese), re.MULTILINE
    )
    assert [name for name, _ in rows] == list(verdicts.catalogue())
    told = chinese.say("{where}: {told}", where=chinese.say("dense layers"), told="")
    assert told in dict(rows)["C05b"]
    for _, because in rows:
        assert re.search(r"\d", because) and not re.search(r"\b(?:claimed|holds|fails|open|points|seed)\b", because)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_translated_notebook_is_current(source):
    problems = translated.outdated(source)
    assert not problems, "\n".join(problems)
    written = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert translated.text(source) == written, f"zh/{source.stem}.ipynb is not current: run readme.update()"


def test_a_translated_notebook_has_a_source_and_links_lead_somewhere():
    pages = sorted(language.folder().glob("*.ipynb"))
    assert [page.stem for page in pages] == [source.stem for source in SOURCES] and pages
    for page in pages:
        for cell in nbformat.read(page, as_version=4).cells:
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source if cell.cell_type == "markdown" else ""):
                assert (page.parent / target).exists(), target


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_translation_names_the_same_code(source):
    english = nbformat.read(repository.NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)
    own = translated.prose(source)
    for cell in english.cells:
        if cell.cell_type == "markdown":
            code = {*re.findall(r"`[^`]+`", cell.source)} - {*re.findall(r"`[^`]+`", own[cell.id][1])}
            assert not code, f"cell {cell.id} lacks {code}"


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A notebook of its own with two texts, the first of them translated; call it to write and read the Chinese one."""
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path)
    output = new_output("stream", text="2\n")
    cells = [new_markdown_cell("# Ask", id="a"), new_code_cell("1 + 1", id="b", outputs=[output], execution_count=1)]
    english = new_notebook(
        cells=[*cells, new_markdown_cell("See [next](01_next.ipynb), [out](https://example.org).", id="c")]
    )
    source = tmp_path / "zh" / "00_lesson.md"

    def write(cells=english.cells):
        nbformat.write(new_notebook(cells=cells), tmp_path / "00_lesson.ipynb")
        translated.write()
        return nbformat.read(source.with_suffix(".ipynb"), as_version=4)

    write.english, write.source = english, source
    repository.write(source, f"<!-- cell a english {translated.fingerprint('# Ask')} -->\n# 提问\n")
    return write


def test_prose_is_translated_code_and_outputs_stay(lesson):
    first, code, last = lesson().cells
    assert first.source == "# 提问" and code == lesson.english.cells[1]
    assert last.source == "See [next](../01_next.ipynb), [out](https://example.org).", "in English, from its own folder"


def test_what_is_to_be_translated_is_said_and_saying_so_helps(lesson):
    lesson()
    (problem,) = translated.outdated(lesson.source)
    assert "'See [next]" in problem and "has no translation" in problem
    mark = re.search(r"<!-- .* -->", problem).group()
    repository.write(lesson.source, lesson.source.read_text() + f"\n{mark}\n见[下一篇](../01_next.ipynb)。\n")
    assert lesson().cells[2].source == "见[下一篇](../01_next.ipynb)。" and not translated.outdated(lesson.source)


def test_a_changed_cell_stands_in_english_until_it_is_translated_anew(lesson):
    lesson.english.cells[0].source = "# Ask again"
    assert lesson().cells[0].source == "# Ask again"
    problem, _ = translated.outdated(lesson.source)
    assert "'# Ask again' has changed" in problem and translated.fingerprint("# Ask again") in problem
    lesson(lesson.english.cells[1:])
    assert any(
        "cell a is not in the English notebook any more" in problem for problem in translated.outdated(lesson.source)
    )


@pytest.mark.parametrize(
    "text", ["", "words\n<!-- cell a english 1 -->\nwords", 2 * "<!-- cell a english 1 -->\nwords\n"]
)
def test_a_file_of_another_form_is_refused(lesson, text):
    repository.write(lesson.source, text)
    with pytest.raises(InputError, match=r"00_lesson\.md must consist of cells"):
        translated.prose(lesson.source)
