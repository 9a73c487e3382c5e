"""The lab's own sentences, and how well an encoder's vectors tell them apart.

A paraphrase has to find its statement among statements that differ from it in one detail: who did it, whether, with what, how many, where,
when. `data/README.md` has their card.
"""

import csv
import hashlib
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from helpers.base import repository
from helpers.base.errors import InputError

FILE = repository.REPOSITORY / "data" / "sentences.csv"
COLUMNS = ("role", "group", "detail", "text")
SHA256 = "c5a13eac094ac408d81d4d8a18eb6ce094e4783dc1ed9867337b3dfe1a7fd7bd"
CALIBRATION, STATEMENT, PARAPHRASE = "calibration", "statement", "paraphrase"
BASE = "base"  # the detail of a group's first statement, from which each of the others differs in one


@dataclass(frozen=True)
class Sentences:
    """calibration: sentences to calibrate with. statements, paraphrases: (n,), the paraphrase at a place says what the statement
    there says, and no other. groups: int64 (n,), statements that differ in one detail share a number. details: which."""

    calibration: tuple[str, ...]
    statements: tuple[str, ...]
    paraphrases: tuple[str, ...]
    groups: np.ndarray
    details: tuple[str, ...]

    @property
    def judged(self):
        """All statements, then all paraphrases."""
        return self.statements + self.paraphrases


def load(path=FILE):
    """The sentences of the repository. Raises InputError if the file is missing or a single letter differs."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): `git checkout -- data/{FILE.name}`.") from error
    if fingerprint(rows) != SHA256:
        raise InputError(
            f"{path} does not hold the lab's sentences: `git checkout -- data/{FILE.name}` brings them back."
        )
    by_role = {role: [row for row in rows if row["role"] == role] for role in (CALIBRATION, STATEMENT, PARAPHRASE)}
    texts = {role: tuple(row["text"] for row in some) for role, some in by_role.items()}
    return Sentences(
        *texts.values(),
        np.array([int(row["group"]) for row in by_role[STATEMENT]]),
        tuple(row["detail"] for row in by_role[STATEMENT]),
    )


def fingerprint(rows):
    """SHA-256 of rows, name of a column -> text, however their file ends its lines."""
    lines = ("\t".join(str(row.get(column)) for column in COLUMNS) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def found(vectors):
    """Which paraphrases are nearer, by cosine, to their own statement than to any other: bool (n,).

    vectors: float (2 n, width), of all statements, then of all paraphrases. One that is as near to another finds nothing.
    """
    near = cosines(*np.split(_known(vectors), 2)[::-1])
    own = near.diagonal().copy()
    np.fill_diagonal(near, -np.inf)
    return own > near.max(axis=1)


def found_both_ways(vectors):
    """The same of all sentences: which statements are nearer to their own paraphrase than to any other, then `found`: bool (2 n,).

    vectors: as `found` takes them.
    """
    statements, paraphrases = np.split(vectors, 2)
    return np.concatenate([found(np.concatenate([paraphrases, statements])), found(vectors)])


def by_group(right, groups):
    """The share of each group that is right, float (groups,): members of a group are no independent samples, groups are."""
    return np.array([right[groups == group].mean() for group in np.unique(groups)])


def fidelity(exact, vectors):
    """The cosine of each vector with the float model's, float (n,)."""
    exact, vectors = _pair(exact, vectors)
    return (_unit(exact) * _unit(vectors)).sum(axis=1)


def agreement(exact, vectors):
    """Spearman's rank correlation of the cosines of all pairs of sentences, between the float model's vectors and others; 0 where
    all of these are alike."""
    exact, vectors = _pair(exact, vectors)
    upper = np.triu_indices(len(exact), 1)
    pairs = [cosines(each, each)[upper] for each in (exact, vectors)]
    if min(map(np.ptp, pairs)) == 0:
        return 0.0
    return float(scipy_stats.spearmanr(*pairs).statistic)


def cosines(rows, columns):
    """The cosine of each of some vectors with each of others: (n, width), (m, width) -> float64 (n, m)."""
    return _unit(rows) @ _unit(columns).T


def _unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _known(vectors):
    """Raises InputError for vectors that are not finite."""
    if not np.isfinite(vectors).all():
        raise InputError("vectors hold NaN or infinity: this file cannot be judged; look at its layers one by one.")
    return vectors


def _pair(exact, vectors):
    if np.shape(exact) != np.shape(vectors) or np.ndim(exact) != 2 or len(exact) < 2:
        raise InputError(
            f"vectors have shapes {np.shape(exact)} and {np.shape(vectors)}: give two or more vectors of the same sentences."
        )
    return _known(exact), _known(vectors)
