"""Sets of sentence pairs with scores, from tables on disk or from the Hub."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.evaluation.tables import columns, is_table, pick, place, setting_named
from unsee_dist.files.hub import is_load_error, load_failure, reason
from unsee_dist.metrics.sts import Pairs

FIRST = ("sentence1", "sentence_1", "text1")
SECOND = ("sentence2", "sentence_2", "text2")
SCORE = ("score", "label", "similarity_score", "relatedness_score")


def load_pairs(source: str | Path) -> Pairs:
    """Pairs from a .tsv, .csv or .jsonl file, or from the Hub: "owner/name" or "owner/name:split".

    The header names sentence1, sentence2 and score (or label, similarity_score). A Hub name without a
    split means its validation split. UserError: it cannot be read.
    """
    wanted = (FIRST, SECOND, SCORE)
    path = Path(source)
    if path.exists() or is_table(path):
        return _pairs(columns(path, wanted), str(path), partial(place, path))
    return _pairs(_from_hub(str(source), wanted), str(source), lambda row: f"{source}, row {row + 1}")


def load_sets(sources: str | Sequence[str]) -> dict[str, Pairs]:
    """Several sets by name: a file's stem, or the Hub's name. UserError: two share one.

    On the Hub: mteb/sts12-sts:test to sts16-sts:test, mteb/stsbenchmark-sts:validation, mteb/sickr-sts:test,
    mteb/biosses-sts:test.
    """
    sets: dict[str, Pairs] = {}
    for source in [sources] if isinstance(sources, str) else sources:
        name = Path(source).stem if is_table(Path(source)) else source
        if name in sets:
            raise UserError(f"evaluate.sts: two sets are called {name}. Rename one of the files.")
        with setting_named("evaluate.sts"):
            sets[name] = load_pairs(source)
    return sets


def _pairs(rows: list[tuple[object, ...]], source: str, where: Callable[[int], str]) -> Pairs:
    """where: the words for the place of a row, by its number from 0."""
    scores = np.array([_number(score) for _, _, score in rows], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{where(row)}: score = {rows[row][2]} is not a number. Write a number, such as 3.5, or delete the pair."
        )
    if len(scores) < 2 or scores.max() == scores.min():
        raise UserError(
            f"{source}: the {len(scores)} scores are all equal, so they give no order. Give at least two pairs with different scores."
        )
    return Pairs([str(first) for first, _, _ in rows], [str(second) for _, second, _ in rows], scores)


def _number(score: object) -> float:
    """NaN for what is no finite number, as people write one."""
    try:
        return math.nan if "_" in str(score) else float(str(score))
    except ValueError:
        return math.nan


def _from_hub(source: str, wanted: tuple[tuple[str, ...], ...]) -> list[tuple[object, ...]]:
    name, _, split = source.partition(":")
    # Not at the top: it takes seconds to import, and most runs read a file.
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split or "validation")
    except Exception as error:
        if not is_load_error(error, RuntimeError):  # "Dataset scripts are no longer supported"
            raise
        sentence = (
            f"{source} is neither a file here nor a dataset that could be loaded ({reason(error)}). "
            "Write the path of a .tsv, .csv or .jsonl file, or load the dataset once where there is a "
            f"network: python -c \"import datasets; datasets.load_dataset('{name}')\"."
        )
        raise load_failure(sentence, error) from error
    return pick(rows, wanted, source)
