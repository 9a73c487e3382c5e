"""Do the links in the guides and the notebooks lead anywhere? Needs nothing installed.

    python3 .ci/links.py runs/links.xml

A link into the repository must name a file that is there. A link to the web is asked for; refusals that may be meant for
machines alone (forbidden, too many requests, a server's own fault) are told and are no failure. Exit code 1 if a link is dead.
"""

import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import junit

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "[a-z]*/*.md", "notebooks/**/*.ipynb", "CITATION.cff")
MARKDOWN = re.compile(r"\]\(\s*<?([^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
TAG = re.compile(r"\b(?:href|src)=\"([^\"]+)\"")
BARE = re.compile(r"https?://[^\s<>\"'`\\|]+")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
TRIES, PAUSE, PATIENCE = 3, 5, 20  # seconds between tries, and for an answer
DEAD, SILENT = (404, 410), "no answer"


def links(path):
    """The links of a Markdown file or of a notebook's text cells, in order, each once; code is left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = CODE.sub("", text)
    named = [*MARKDOWN.findall(text), *TAG.findall(text)]
    bare = [trimmed(url) for url in BARE.findall(MARKDOWN.sub("](", TAG.sub("", text)))]
    return list(dict.fromkeys([*named, *bare]))


def trimmed(url):
    """A bare address without the punctuation that ends its sentence or bracket."""
    while url and (url[-1] in ".,;:!?*_" or (url[-1] == ")" and url.count("(") < url.count(")"))):
        url = url[:-1]
    return url


def inside(path, link):
    """Why a link into the repository leads nowhere, or None."""
    target = unquote(urlsplit(link).path)
    there = (path.parent / target).resolve()
    return None if not target or (there.exists() and there.is_relative_to(ROOT)) else f"{target} does not exist"


def outside(url):
    """(why a link to the web is dead, or None; what else is to be told, or None)."""
    for left in reversed(range(TRIES)):
        request = urllib.request.Request(url, headers={"User-Agent": "compression-lab link check"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE):
                return None, None
        except urllib.error.HTTPError as error:
            if error.code in DEAD:
                return f"{error.code} {error.reason}", None
            if error.code < 500 or not left:
                return None, f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not left:
                return f"{SILENT} ({getattr(error, 'reason', error)})", None
        time.sleep(PAUSE)


def check(pages):
    """Look at every link of `pages` (paths). Returns dead (link -> why, and where it stands) and told (the same)."""
    dead, told, web = {}, {}, {}
    for page in pages:
        name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
        for link in links(page):
            if urlsplit(link).scheme in ("http", "https"):
                web.setdefault(urldefrag(link).url, []).append(name)
            elif not urlsplit(link).scheme and (why := inside(page, link)):
                dead[f"{name} to {link}"] = why
    with ThreadPoolExecutor(8) as threads:
        for (url, names), (why, remark) in zip(web.items(), threads.map(outside, web), strict=True):
            for kind, sentence in ((dead, why), (told, remark)):
                if sentence:
                    kind[url] = f"{sentence}; in {', '.join(names)}"
    return dead, told, [*web]


def main(report):
    """Check every page and write the report; the exit code."""
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern) if ".ipynb_checkpoints" not in path.parts})
    dead, told, web = check(pages)
    if web and all(dead.get(link, "").startswith(SILENT) for link in web):
        print("Not one address on the web answers: it is the network here, and no link is judged by it.")
        dead = {link: why for link, why in dead.items() if link not in web}
    for link, why in told.items():
        print(f"Not sure: {link}: {why}")
    for link, why in dead.items():
        print(f"Dead: {link}: {why}")
    print(f"{len(pages)} pages, {len(web)} addresses on the web, {len(dead)} dead links.")
    junit.write(report, "links", {**dict.fromkeys(web), **dead})
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
