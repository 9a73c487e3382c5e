"""JUnit XML, as pytest writes it: the form in which every nightly job hands on what failed. Needs nothing installed."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Failure:
    """What failed: the test's name, and why, the first line being the reason in short."""

    name: str
    why: str


def write(path, suite, cases):
    """Write `cases` (name -> why it failed, or None) as the suite of that name; folders are made."""
    root = ElementTree.Element("testsuites")
    counts = {"tests": len(cases), "failures": sum(map(bool, cases.values())), "errors": 0, "skipped": 0}
    inner = ElementTree.SubElement(root, "testsuite", {"name": suite, **{key: str(n) for key, n in counts.items()}})
    for name, why in cases.items():
        case = ElementTree.SubElement(inner, "testcase", {"classname": suite, "name": name})
        if why:
            ElementTree.SubElement(case, "failure", {"message": why.splitlines()[0]}).text = why
    ElementTree.indent(root)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def failures(path):
    """The Failures and errors of a file, in its order. Raises ElementTree.ParseError where it is cut off."""
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        for told in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.get('classname', '')}::{case.get('name', '')}".strip(":")
            found.append(Failure(name, told.get("message") or (told.text or "").strip() or told.tag))
    return found
