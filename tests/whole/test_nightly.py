"""What the nightly workflow tells: planted failures, numbers out of tolerance, dead links and newer packages are all told."""

import http.server
import json
import sys
import threading

import pytest

from helpers.base import repository
from helpers.evidence import results

sys.path.insert(0, str(repository.REPOSITORY / ".ci"))
import junit
import links
import recorded
import report

JOBS = {"canary": {"result": "failure"}, "record": {"result": "success"}, "links": {"result": "cancelled"}}
PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4">
<testcase classname="tests.whole.test_lock" name="test_pins" time="0.1"/>
<testcase classname="tests.whole.test_ssh" name="test_ssh"><skipped message="no server"/></testcase>
<testcase classname="notebooks/01.ipynb" name="Cell 4"><failure message="Cell 4, text/plain: number 2 was 97.1 and is now 95.0: off by
2.1, allowed 0.5">long</failure></testcase>
<testcase classname="tests.x" name="test_y"><error message="failed on setup">long</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def told(tmp_path):
    """The folders that three machines left: two of the canary, with the same failures, and one without any file of results."""
    for name in ("canary-macos-15-3.12", "canary-ubuntu-24.04-3.12"):
        place = tmp_path / "told" / name
        place.mkdir(parents=True)
        (place / "tests.xml").write_text(PYTEST)
        (place / "packages.txt").write_text("numpy==3.0.0\nTyping_Extensions==4.1\nnew-one==1.0\npip==99\n")
    (tmp_path / "told" / "canary-ubuntu-24.04-3.13").mkdir()
    return tmp_path / "told"


LOCK = (
    "numpy==2.5.0 \\\n    --hash=sha256:00\ntyping-extensions==4.1 ; python_version < '3.13' \\\n    --hash=sha256:11\n"
)


def test_what_pytest_wrote_is_read(tmp_path):
    (tmp_path / "tests.xml").write_text(PYTEST)
    first, second = junit.failures(tmp_path / "tests.xml")
    assert first.name == "notebooks/01.ipynb::Cell 4" and "was 97.1 and is now 95.0" in first.why
    assert second == junit.Failure("tests.x::test_y", "failed on setup")


def test_what_is_written_is_read_again(tmp_path):
    junit.write(tmp_path / "new" / "x.xml", "links", {"a": None, "b <&>": "gone\nin README", "c": None})
    text = (tmp_path / "new" / "x.xml").read_text()
    assert 'tests="3"' in text and 'failures="1"' in text
    assert junit.failures(tmp_path / "new" / "x.xml") == [junit.Failure("links::b <&>", "gone")]


def test_a_report_tells_each_failure_once_and_where(told):
    text = report.report(told, JOBS, LOCK)
    assert text.startswith("Failed: canary, links.\n")
    assert "- links ended before it could say why: see its log." in text
    assert "- canary ended" not in text and "- canary-ubuntu-24.04-3.13 left no results: see its log." in text
    assert text.count("number 2 was 97.1 and is now 95.0") == 1
    assert "- `tests.x::test_y`: failed on setup\n  on canary-macos-15-3.12, canary-ubuntu-24.04-3.12" in text
    assert "test_pins" not in text and "no server" not in text
    assert text.endswith("Packages that are not as in the lock:\n\n- new-one none → 1.0\n- numpy 2.5.0 → 3.0.0\n"), (
        "4.1 is as in the lock"
    )


def test_a_report_of_nothing_accuses_nobody(tmp_path):
    assert report.report(tmp_path, {"links": {"result": "success"}}, LOCK) == "Failed: nothing.\n\n"


def test_a_file_that_is_cut_off_is_told(told):
    (told / "canary-macos-15-3.12" / "tests.xml").write_text(PYTEST[:300])
    assert "- canary-macos-15-3.12/tests.xml is cut off." in report.report(told, JOBS, LOCK)


def test_a_report_fits_into_an_issue(told):
    cases = {f"test_{n}": f"{'x' * 5000} {n}" for n in range(500)}
    junit.write(told / "canary-ubuntu-24.04-3.13" / "tests.xml", "many", cases)
    text = report.report(told, JOBS, LOCK)
    assert "- and 462 more" in text and len(text) < 65_536, "500 and the two of both others, 40 of them told"


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Results of one notebook on two machines, the second beside the first: (its numbers) -> what `compared` says."""
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path))
    entry = next(it for it in results.recordings(repository.QUICK, "01_mnist_mlp_pruning") if it.reference)
    source = results.RECORDED / repository.QUICK / entry.machine / f"{entry.notebook}.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    [name] = [name for name in content["numbers"] if name == "delta_top1.pruned"]
    tolerance = content["numbers"][name]["tolerance"]

    def say(off):
        """off: by how many tolerances the second machine's number differs."""
        for machine, reference in ((entry.machine, True), ("arm64-planted", False)):
            numbers = json.loads(json.dumps(content["numbers"]))
            if not reference:
                numbers[name]["value"] += off * tolerance
            path = tmp_path / "results" / repository.QUICK / machine / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**content, "reference": reference, "numbers": numbers}))
        return recorded.compared("arm64-planted", root=tmp_path), name

    return say


def test_numbers_within_tolerance_are_as_recorded(recordings):
    assert recordings(0.9)[0] == {"01_mnist_mlp_pruning": None}


def test_a_number_out_of_tolerance_is_told(recordings, told):
    cases, name = recordings(1.5)
    [why] = cases.values()
    assert (
        why.startswith(f"{name} is ")
        and why.count("\n") == 0
        and "on arm64-planted, recorded" in why
        and "allowed" in why
    )
    junit.write(told / "record-ubuntu-24.04-arm" / "told" / "numbers.xml", "numbers", cases)
    text = report.report(told, {"record": {"result": "failure"}}, LOCK)
    assert f"- `numbers::01_mnist_mlp_pruning`: {name} is " in text and "  on record-ubuntu-24.04-arm" in text


def test_a_machine_is_not_compared_with_itself(recordings, tmp_path, monkeypatch):
    recordings(0.0)
    [reference] = [it.machine for it in results.recordings(root=tmp_path) if it.reference]
    assert recorded.compared(reference, root=tmp_path) == {}
    monkeypatch.setattr(recorded, "compared", lambda machine: {})
    assert recorded.main(tmp_path / "numbers.xml") == 1
    [failure] = junit.failures(tmp_path / "numbers.xml")
    assert "nothing was recorded on" in failure.why


PAGE = """# A page

A [guide](other.md#part), a [web](http://HOST/good "with a title"), <http://HOST/gone>, http://HOST/good_(of_things).
`[no](code.md)`, ![picture](nosuch.svg), [closed](http://HOST/closed), [again](http://HOST/good#part), [here](#top)

```
[nor](this.md)
```

<img src="figure.svg"> [away](../../away.md) [mail](mailto:someone@example.org) [slow](http://HOST/busy)
"""
ANSWERS = {"/good": 200, "/good_(of_things)": 200, "/gone": 404, "/closed": 403, "/busy": 503}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page whose links on the web lead to a server here; what it was asked for."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(ANSWERS[self.path])
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(links, "ROOT", tmp_path)
    monkeypatch.setattr(links, "PAUSE", 0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("other.md", "figure.svg"):
        (tmp_path / name).touch()
    path = tmp_path / "README.md"
    path.write_text(PAGE.replace("HOST", f"127.0.0.1:{server.server_port}"))
    yield path, asked, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_links_are_found_where_a_reader_finds_them(page):
    path, _, host = page
    assert links.links(path) == [
        "other.md#part",
        f"{host}/good",
        "nosuch.svg",
        f"{host}/closed",
        f"{host}/good#part",
        "#top",
        "../../away.md",
        "mailto:someone@example.org",
        f"{host}/busy",
        "figure.svg",
        f"{host}/gone",
        f"{host}/good_(of_things)",
    ]


def test_dead_links_are_told_and_refusals_are_not_called_dead(page, tmp_path, capsys):
    _, asked, host = page
    assert links.main(tmp_path / "links.xml") == 1
    found = {failure.name: failure.why for failure in junit.failures(tmp_path / "links.xml")}
    assert found == {
        f"links::{host}/gone": "404 Not Found; in README.md",
        "links::README.md to nosuch.svg": "nosuch.svg does not exist",
        "links::README.md to ../../away.md": "../../away.md does not exist",
    }
    assert f"Not sure: {host}/closed: 403 Forbidden; in README.md" in capsys.readouterr().out
    assert asked.count("/good") == 1 and asked.count("/busy") == links.TRIES and asked.count("/closed") == 1


def test_a_host_that_does_not_answer_is_dead(monkeypatch):
    monkeypatch.setattr(links, "PAUSE", 0)
    why, remark = links.outside("http://127.0.0.1:9/")
    assert why.startswith("no answer (") and remark is None


def test_without_a_network_no_link_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(links, "ROOT", tmp_path)
    monkeypatch.setattr(links, "PAUSE", 0)
    (tmp_path / "README.md").write_text("[one](http://127.0.0.1:9/one) [two](http://127.0.0.1:9/two) [file](nosuch.md)")
    assert links.main(tmp_path / "links.xml") == 1 and "it is the network here" in capsys.readouterr().out
    assert [failure.name for failure in junit.failures(tmp_path / "links.xml")] == ["links::README.md to nosuch.md"]
    (tmp_path / "nosuch.md").touch()
    assert links.main(tmp_path / "links.xml") == 0


def test_the_notebooks_text_is_read_and_their_code_is_not(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["See [it](https://example.org/a)", "."]},
        {"cell_type": "code", "source": "'https://example.org/b'"},
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    assert links.links(tmp_path / "x.ipynb") == ["https://example.org/a"]


def test_every_link_into_the_repository_leads_somewhere():
    pages = {path for pattern in links.PAGES for path in links.ROOT.glob(pattern)}
    inner = [
        (path.name, link)
        for path in pages
        for link in links.links(path)
        if "//" not in link and ":" not in link and links.inside(path, link)
    ]
    guides = {links.ROOT / f"{name}.md" for name in ("README", "RESULTS", "WORKSHOP", "CONTRIBUTING", "CHANGELOG")}
    assert pages >= guides | set(repository.NOTEBOOKS.glob("*.ipynb")) and not inner
