"""Docstrings as Sphinx reads them: ours are Markdown with prose about parameters, Sphinx wants reStructuredText.

Paragraphs, lists, indented code, `code` and *emphasis* are all that docstrings hold; nothing else in them is markup.
"""

import inspect
import re
from textwrap import indent

from markdown_it import MarkdownIt

_NO_MARKUP = "heading lheading hr html_block html_inline entity link image autolink escape emphasis"
_MARKDOWN = MarkdownIt("commonmark").disable(_NO_MARKUP.split())
_MARKUP = re.compile(r"([\\*`_|:])")  # a colon begins a field, two of them code
_BEGINS = re.compile(r"^(?=[-=~.+#^\"'(>])", re.MULTILINE)  # a title, a list, a directive
_EMPHASIS = re.compile(r"(?<![\w\"])\\\*(\w(?:[^*`]*\w)?)\\\*(?![\w\"])")  # not "*", and no product


def as_restructured(text, names=(), known=None):
    """A docstring (Markdown) as the lines of reStructuredText.

    names: of parameters; where the prose explains one, `name: what it is`, the name is bold. known: what stands between
    backticks -> full name of the object that it leads to, for what has a page of its own.
    """
    known, blocks, depth = known or {}, [], 0
    for token in _MARKDOWN.parse(text):
        depth += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        if token.type == "inline":
            told = _EMPHASIS.sub(r"\\ *\1*\\ ", "".join(_inline(token.children, known)))
            told = _BEGINS.sub(r"\\", _explained(told, names))
            blocks.append(told if not depth else _item(told, depth))
        elif token.type in ("code_block", "fence"):
            blocks.append("::\n\n" + indent(token.content.rstrip(), "    "))
    return "\n\n".join(blocks).splitlines()


def names_of(thing):
    """The names of what can be given to a function or class; () for anything else."""
    try:
        return tuple(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return ()


def objects(modules):
    """What a docstring may lead to: "judge", "gate.judge" and the full name -> full name, for the public functions and
    classes that have a docstring in these modules; short names only where they are no one else's."""
    found, twice = {}, set()
    for module in modules:
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == module.__name__ and inspect.getdoc(thing)
            if name.startswith("_") or not own or not (inspect.isfunction(thing) or inspect.isclass(thing)):
                continue
            full = f"{module.__name__}.{name}"
            for short in (name, f"{module.__name__.rpartition('.')[2]}.{name}", full):
                twice |= {short} & found.keys()
                found[short] = full
    return {short: full for short, full in found.items() if short not in twice}


def _inline(children, known):
    for child in children:
        if child.type == "code_inline":
            full = known.get(child.content.partition("(")[0])
            yield rf"\ :py:obj:`{child.content} <{full}>`\ " if full else rf"\ ``{child.content}``\ "
        elif child.type in ("softbreak", "hardbreak"):
            yield "\n"
        else:
            yield _MARKUP.sub(r"\\\1", child.content)


def _explained(text, names):
    """The text with the names of parameters bold where one, or several with commas between, stand before a colon."""
    if not names:
        return text
    one = "|".join(re.escape(_MARKUP.sub(r"\\\1", name)) for name in sorted(names, key=len, reverse=True))
    listed = re.compile(rf"(?:(?<=[.;]\s)|^)((?:{one})(?:, (?:{one}))*)(?=\\:\s)", re.MULTILINE)
    return listed.sub(lambda found: re.sub(one, lambda name: f"**{name.group()}**", found.group()), text)


def _item(text, depth):
    return indent(f"- {indent(text, '  ')[2:]}", "  " * (depth - 1))
