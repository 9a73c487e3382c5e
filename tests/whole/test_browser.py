"""The real front end: notebook 01 in JupyterLab, and the site, in a headless Chromium. Only `make test-browser` runs it.

It installs nothing. It needs Playwright and a Chromium; each is asked for in one sentence if it is missing. Screenshots
go to `runs/browser/`.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.base import repository
from helpers.evidence import results, verdicts
from helpers.lab import website

pytestmark = pytest.mark.browser
NOTEBOOK = "01_mnist_mlp_pruning"
CHROMIUM_VARIABLE = "COMPRESSION_LAB_CHROMIUM"
MINUTES = 30  # until every cell has run; three on two idle cores
PHONE, DESK = 390, 1440  # pixels
# What stands out of the window, and in no box that scrolls.
CUT = """() => [...document.querySelectorAll("article *")].filter(element => {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1) return false;
    for (let around = element; around.tagName !== "BODY"; around = around.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(around).overflowX)) return false;
    return true;
}).map(element => element.outerHTML.slice(0, 200))"""
SETTINGS = {
    # All cells stay in the page, also those that are out of sight.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("This test needs Playwright: pip install playwright (its own browsers are not needed).")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get(CHROMIUM_VARIABLE) or next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.fail(f"This test needs a Chromium: install one, or name its program in ${CHROMIUM_VARIABLE}.")
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, who is at home in containers.
        words = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=path, args=words)
        yield running
        running.close()


@pytest.fixture(scope="module")
def pictures():
    """Where screenshots go: kept, so that somebody can look at them."""
    folder = repository.REPOSITORY / "runs" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on copies of the notebooks, since it saves what it runs: (address, token, output folder)."""
    shutil.copytree(repository.NOTEBOOKS, tmp_path / "notebooks")
    for name, content in SETTINGS.items():
        repository.write(tmp_path / "settings" / name, json.dumps(content))
    token, port = secrets.token_hex(16), _free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository.REPOSITORY),
        repository.OUTPUT_VARIABLE: str(tmp_path / "output"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    words = ["lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    words += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path / 'notebooks'}"]
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", *words], env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api", server, tmp_path / "server.log")
            yield address, token, tmp_path / "output"
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=60)
            server.kill()  # its kernels end by themselves when it is gone


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _wait_for(address, server, log, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{Path(log).read_text()[-2000:]}")


def test_notebook_01_runs_in_jupyterlab(browser, lab, pictures):
    address, token, output = lab
    page = browser.new_page(viewport={"width": DESK, "height": 1000})
    page.goto(f"{address}/lab/tree/{NOTEBOOK}.ipynb?token={token}")
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for(timeout=120_000)
    page.get_by_text("Python 3", exact=False).first.wait_for(timeout=120_000)  # the kernel's name, once it is there
    # The recorded outputs must go, or they would pass for new ones.
    for menu, entry in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
        page.get_by_role("menuitem", name=menu, exact=True).first.click()
        page.get_by_role("menuitem", name=entry, exact=True).first.click()
    code = json.loads((repository.NOTEBOOKS / f"{NOTEBOOK}.ipynb").read_text())["cells"]
    many = sum(cell["cell_type"] == "code" for cell in code)
    page.wait_for_function(
        """many => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.innerText.trim());
            const stopped = document.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]');
            return stopped || (prompts.length === many && prompts.every(text => /^\\[\\d+\\]:?$/.test(text)));
        }""",
        arg=many,
        timeout=MINUTES * 60_000,
    )
    told = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()  # tracebacks, too
    assert not told, "\n".join(told)
    table = page.locator(".jp-OutputArea table", has_text="verdict").last
    table.scroll_into_view_if_needed()
    page.screenshot(path=pictures / "jupyterlab.png")
    shown = table.inner_text()
    page.close()
    rows = [[each.strip() for each in row.split("\t")] for row in shown.splitlines() if "\t" in row]
    [column] = {row.index("verdict") for row in rows if "verdict" in row}
    found = {row[0]: row[column] for row in rows if row[0].startswith("C")}
    assert found == results.read(NOTEBOOK, root=output)["verdicts"], "what this run recorded is what it shows"
    timed = {
        name for name in found if any(number.startswith("latency") for number in verdicts.catalogue()[name].numbers)
    }
    recorded = results.read(NOTEBOOK)["verdicts"]
    assert found.keys() == recorded.keys() and found.items() - recorded.items() <= {
        (name, found[name]) for name in timed
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path_factory.mktemp("output")))
        yield website.build(main).parent


@pytest.fixture
def offline(browser):
    """Call it with a width for a page that has no network; what it asked for in vain, or failed at, must be nothing."""
    contexts, wrong = [], []

    def opened(width):
        contexts.append(browser.new_context(viewport={"width": width, "height": 844}, offline=True))
        page = contexts[-1].new_page()
        page.on("request", lambda it: None if it.url.startswith(("file:", "data:")) else wrong.append(it.url))
        page.on("requestfailed", lambda it: wrong.append(it.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_site_fits_and_is_complete(offline, site, pictures, width):
    page = offline(width)
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    assert len(paths) > 50
    for path in paths:
        place = path.relative_to(site)
        page.goto(path.as_uri())
        page.screenshot(path=pictures / f"{'_'.join(place.with_suffix('').parts)}_{width}.png")
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{place} is {wider} px wider than the window"
        assert page.evaluate(CUT) == [], f"{place}: cut off"
        missing = page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)")
        assert not missing, place
        scrolled = "[...document.querySelectorAll('.cell_input pre')].filter(code => code.scrollWidth > code.clientWidth).length"
        assert width == PHONE or page.evaluate(scrolled) == 0, f"{place}: a line of code does not fit on a desk"


def test_the_site_is_searched_without_network(offline, site, pictures):
    page = offline(DESK)
    page.goto(site.joinpath("search.html").as_uri() + "?q=representative_dataset")
    found = page.locator("#search-results li a")
    found.first.wait_for(timeout=20_000)
    assert "notebooks/03_mobilenetv2_ptq_and_qat.html" in " ".join(link.get_attribute("href") for link in found.all())
    page.screenshot(path=pictures / "search.png")


def test_a_figure_is_seen_alone(offline, site):
    page = offline(PHONE)
    page.goto(site.joinpath("index.html").as_uri())
    page.locator("article a:has(> img)").first.click()
    assert page.url.endswith("_images/07_ledger.svg")
