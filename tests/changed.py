"""Which test files a change can reach: each has a key, of its own text and of all that it uses, kept after it has passed.

What a file uses is read from its text: the modules it imports, and what those import in turn; the parts of the repository that
it names (notebooks, results, guides ...). A test file that starts the commands uses all modules. For a notebook count its code
cells, its recorded outputs and its profile, not its prose; a test file reads notebooks whole unless `OF_NOTEBOOKS` says what
it reads of them. Whatever else decides the outcome, the lock and this machine's Python, is in every key.
"""

import ast
import functools
import hashlib
import json
import platform
import re
from pathlib import Path

import helpers
from helpers.base import repository

ROOT = repository.REPOSITORY
STORE = ROOT / ".pytest_cache" / "passed.json"
# A word in a test file, or in a module that it uses -> the files that it then reads.
NAMED = {
    "NOTEBOOKS": ("notebooks/**/*.ipynb", "notebooks/profiles/*.yaml"),
    "SOLUTIONS": ("notebooks/solutions/*.ipynb",),
    "RECORDED": ("results/**/*.json", "results/**/*.csv"),
    "README": ("README.md", "README.zh.md"),
    "RESULTS": ("RESULTS.md", "RESULTS.zh.md"),
    "language": ("notebooks/zh/*",),
    "WORKSHOP": ("WORKSHOP.md",),
    "CONTRIBUTING": ("CONTRIBUTING.md",),
    "CHECKPOINTS": ("checkpoints/*",),
    "fashion8k": ("data/*",),
    "lab.css": ("helpers/lab/site/**/*",),
    "LOCK": ("environment.yml",),
    "Makefile": ("Makefile",),
    "pyproject": ("pyproject.toml",),
    "GITHUB": (
        ".github/**/*",
        ".pre-commit*.yaml",
        ".devcontainer/*",
        ".binder/*",
        "action.yml",
        "CITATION.cff",
        "CHANGELOG.md",
    ),
    ".ci": (".ci/*",),
    "setup.py": ("setup.py",),
    "quiz.yaml": ("notebooks/quiz.yaml", "results/**/*.json"),
    "results.read(": ("results/**/*.json",),
}
# What a text runs or loads without importing it.
RUN = re.compile(r'"benchmarks" / "(\w+\.py)"')
LOADED = re.compile(r'import_module\("(helpers[\w.]+)"\)')
EVERYTHING = ("helpers.__main__", '"-m", "helpers"', "compression-lab", "HELPERS")
# Tests of notebooks as files read all of them; a module that merely knows where they lie does not.
BY_TEST_ALONE = (
    "NOTEBOOKS",
    "SOLUTIONS",
    "RECORDED",
    "README",
    "RESULTS",
    "WORKSHOP",
    "CONTRIBUTING",
    "language",
    "results.read(",
)


def _cells(path):
    """What decides a notebook's run and its comparison, as bytes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [
        [cell["source"], cell.get("outputs"), cell.get("metadata")]
        for cell in content["cells"]
        if cell["cell_type"] == "code"
    ]
    return json.dumps([code, content["metadata"].get("lab")], sort_keys=True).encode()


def _parameters(path):
    """What a notebook declares, as bytes: all that its exercises, and whoever asks for its defaults, read of it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell["source"] for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    return json.dumps(tagged).encode()


# Test file -> pattern -> what it reads of these notebooks; of all others it reads nothing, and makes what it needs.
OF_NOTEBOOKS = {
    "tests/compress/test_own_model.py": {"notebooks/your_own_model.ipynb": _cells},
    "tests/lab/test_exercises.py": {
        "notebooks/[0-9]*.ipynb": _parameters,
        "notebooks/solutions/*.ipynb": Path.read_bytes,
        "notebooks/exercises/*.ipynb": Path.read_bytes,
    },
    "tests/lab/test_parameters.py": {},
    "tests/lab/test_recorded.py": {"notebooks/*.ipynb": _cells},
    "tests/lab/test_pages.py": {},
    "tests/lab/test_run.py": {},
    "tests/lab/test_tour.py": {},
    "tests/lab/test_website.py": {},
    "tests/whole/test_offline.py": {"notebooks/[0-9]*.ipynb": _parameters, "notebooks/00*.ipynb": _cells},
    "tests/whole/test_workshop.py": {"notebooks/[0-9]*.ipynb": _parameters, "notebooks/template.ipynb": _cells},
}


def key(path):
    """The key of a test file or notebook: a hash that changes with whatever can change its outcome."""
    digest = hashlib.sha256(f"{platform.python_version()} {_lock()}".encode())
    for _, part in _read(path):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def older(path, than):
    """Whether nothing that a test file or notebook uses was written since a time (`time.time()`)."""
    return all(file.stat().st_mtime < than for file, _ in _read(path))


def _read(path):
    """What a test file or notebook uses: (file, what counts of it, as bytes)."""
    path = Path(path).resolve()
    if path.suffix == ".ipynb":
        used = modules(_code(path)) | {ROOT / "helpers" / "lab" / "recorded.py"}
        profiles = sorted((ROOT / "notebooks" / "profiles").glob("*.yaml"))
        parts = [(path, _cells(path)), *((file, file.read_bytes()) for file in profiles)]
        words = ["CHECKPOINTS fashion8k"] * ("bench" in _code(path))
        words += ["RECORDED"] * any(word in _code(path) for word in ("verdicts", "results", "findings", "recorded"))
        files = _named(" ".join(words), ())
    else:
        text = path.read_text(encoding="utf-8")
        used, parts = modules(text), [(path, text.encode())]
        files = _named(text, used)
        narrow = OF_NOTEBOOKS.get(path.relative_to(ROOT).as_posix())
        if narrow is not None:
            files = {file for file in files if file.suffix != ".ipynb"}
            parts += [(file, read(file)) for pattern, read in narrow.items() for file in sorted(ROOT.glob(pattern))]
    return [*parts, *((file, file.read_bytes()) for file in sorted(used | files | {ROOT / "tests" / "conftest.py"}))]


def modules(text):
    """The files of the lab that a Python text uses, directly or through others."""
    if any(word in text for word in EVERYTHING):
        return set(repository.HELPERS.rglob("*.py"))
    found, waiting = set(), list(_imported(text))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports_of(path, path.stat().st_mtime_ns)
    return found


def passed():
    """What is stored: file -> its key when it last passed; {} if nothing can be read."""
    try:
        return json.loads(STORE.read_text())
    except (OSError, ValueError):
        return {}


def store(keys):
    """Add file -> key of files that have just passed, or None of those that have not."""
    known = {name: key for name, key in {**passed(), **keys}.items() if key}
    repository.write(STORE, json.dumps(known, indent=1, sort_keys=True) + "\n")


@functools.cache
def _imports_of(path, _modified):
    return tuple(_imported(path.read_text(encoding="utf-8")))


def _imported(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("helpers", "tests"):
            for alias in node.names:
                yield from _files(node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("helpers", "tests"):
                    yield from _files(alias.name, "")
    for name in LOADED.findall(text):
        yield from _files(*name.rpartition(".")[::2])
    yield from (file for name in RUN.findall(text) if (file := ROOT / "benchmarks" / name).is_file())


def _files(module, name):
    """The files behind `from module import name`: the front door knows where its names live."""
    if module == "helpers" and name in helpers.__all__:
        room = next((room for room, names in helpers.ROOMS.items() if name in names), None)
        module, name = (f"helpers.{room}", name) if room else ("helpers", name)
        if name == "errors":
            module = "helpers.base"
        if name == "lab":  # what `lab.begin` stands for
            yield ROOT / "helpers" / "lab" / "run.py"
    base = ROOT.joinpath(*module.split("."))
    for path in (base / f"{name}.py", base / name / "__init__.py", base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            yield path


def _named(text, used):
    words = {word for word in NAMED if word in text}
    for path in used:
        content = path.read_text(encoding="utf-8")
        words |= {word for word in NAMED if word in content and word not in BY_TEST_ALONE}
    return {path for word in words for pattern in NAMED[word] for path in ROOT.glob(pattern) if path.is_file()}


def _code(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(source for source in sources if not source.lstrip().startswith(("%", "!")))


@functools.cache
def _lock():
    return hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
