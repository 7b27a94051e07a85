"""The files of a local task, read by its kind into the columns that mteb's task classes need.

Refused are data on which any encoder scores the same: a single label, a label for each text, no relevant document.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unsee_dist.errors import UserError
from unsee_dist.evaluation.question_files import load_questions
from unsee_dist.evaluation.sts_files import FIRST, SECOND, load_pairs
from unsee_dist.evaluation.tables import columns, place

TEXT, LABEL = ("text", "sentence", "sentences"), ("label", "labels")
BEIR = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")

Table = dict[str, list[Any]]  # column -> cells: texts, numbers, or lists of texts
Data = dict[str, Table]  # part ("train", "test", "corpus", ...) -> table


def _table(path: Path, lists: Sequence[str] = (), **wanted: tuple[str, ...]) -> Table:
    rows = columns(path, list(wanted.values()), lists)
    return {name: [row[place] for row in rows] for place, name in enumerate(wanted)}


def _sts(files: dict[str, Path]) -> Data:
    pairs = load_pairs(files["file"])
    return {
        "test": {
            "sentence1": pairs.first,
            "sentence2": pairs.second,
            "score": [float(s) for s in pairs.scores],
        }
    }


def _pair_classification(files: dict[str, Path]) -> Data:
    names = {"sentence1": FIRST, "sentence2": SECOND, "labels": LABEL}
    table = _strings(_table(files["file"], **names), *names)
    wrong = sorted(set(table["labels"]) - {"0", "1"})
    if wrong:
        where = place(files["file"], table["labels"].index(wrong[0]))
        raise UserError(f"{where}: label = {wrong[0]} is neither 0 nor 1. Write 0 and 1.")
    if len(set(table["labels"])) < 2:
        raise UserError(f"{files['file']}: label = {table['labels'][0]} everywhere. Write 0 and 1.")
    return {"test": table | {"labels": [int(label) for label in table["labels"]]}}


def _classification(files: dict[str, Path]) -> Data:
    parts = {
        part: _strings(_table(path, text=TEXT, label=LABEL), "text", "label") for part, path in files.items()
    }
    known = _labels(parts["train"]["label"], files["train"])
    unknown = sorted(set(parts["test"]["label"]) - set(known))
    if unknown:
        raise UserError(
            f"{place(files['test'], parts['test']['label'].index(unknown[0]))}: label = {unknown[0]} is not in {files['train']}. Add examples of it."
        )
    number = {label: place for place, label in enumerate(known)}
    return {
        part: table | {"label": [number[label] for label in table["label"]]} for part, table in parts.items()
    }


def _clustering(files: dict[str, Path]) -> Data:
    table = _strings(_table(files["file"], sentences=TEXT, labels=LABEL), "sentences", "labels")
    if len(_labels(table["labels"], files["file"])) == len(table["labels"]):
        raise UserError(
            f"{files['file']}: every text has a label of its own, so any clusters are right. Give topics that "
            "several texts share."
        )
    return {"test": table}


def _labels(labels: list[str], path: Path) -> list[str]:
    """The different ones, sorted. UserError: there is only one."""
    known = sorted(set(labels))
    if len(known) < 2:
        raise UserError(
            f"{path}: label = {known[0]} everywhere, so any encoder is right. Give two labels or more."
        )
    return known


def _reranking(files: dict[str, Path]) -> Data:
    lists = ("positive", "negative")
    table = _table(files["file"], lists, query=("query",), positive=("positive",), negative=("negative",))
    return {"test": _strings(table, "query")}


def _questions(files: dict[str, Path]) -> Data:
    pairs = load_questions(files["file"])
    documents = [f"d{place}" for place in range(len(pairs.answers))]
    queries = [f"q{place}" for place in range(len(pairs.queries))]
    qrels = {
        "query": queries,
        "document": [documents[own] for own in pairs.own],
        "score": [1] * len(queries),
    }
    return {
        "corpus": {"id": documents, "text": pairs.answers},
        "queries": {"id": queries, "text": pairs.queries},
        "qrels": qrels,
    }


def _retrieval(files: dict[str, Path]) -> Data:
    folder = files["folder"]
    corpus, queries = (_texts(folder / name) for name in BEIR[:2])
    path = folder / BEIR[2]
    qrels = _table(path, query=("query-id",), document=("corpus-id",), score=("score",))
    qrels = _strings(qrels, "query", "document", "score")
    for name, known in (("query", queries["id"]), ("document", corpus["id"])):
        unknown = sorted(set(qrels[name]) - set(known))
        if unknown:
            raise UserError(
                f"{place(path, qrels[name].index(unknown[0]))}: the {name} {unknown[0]} is not among the _id of the {name} file. Add it there, or delete the line."
            )
    wrong = [score for score in qrels["score"] if not re.fullmatch(r"-?\d{1,9}(\.0*)?", score)]
    if wrong:
        where = place(path, qrels["score"].index(wrong[0]))
        raise UserError(f"{where}: score = {wrong[0]} is not a whole number. Write whole numbers, such as 1.")
    qrels["score"] = [int(float(score)) for score in qrels["score"]]
    given: dict[tuple[str, str], int] = {}
    for query, document, score in zip(qrels["query"], qrels["document"], qrels["score"], strict=True):
        if given.setdefault((query, document), score) != score:
            raise UserError(
                f"{path}: the query {query} and the document {document} have the scores {given[query, document]} and {score}. "
                "Keep one of them."
            )
    if max(qrels["score"]) < 1:
        raise UserError(
            f"{path}: no score is above 0, so no query has a document to find. Write 1 for the documents that answer a query."
        )
    return {"corpus": corpus, "queries": queries, "qrels": qrels}


def _texts(path: Path) -> Table:
    table = _strings(_table(path, id=("_id", "id"), text=("text",)), "id", "text")
    twice = next((one for one, count in Counter(table["id"]).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: _id = {twice} appears twice. Give every text its own.")
    titles = (json.loads(line).get("title") or "" for line in _lines(path))
    return table | {
        "text": [f"{title} {text}".strip() for title, text in zip(titles, table["text"], strict=True)]
    }


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())


def _strings(table: Table, *names: str) -> Table:
    return table | {name: [str(cell) for cell in table[name]] for name in names}


def texts(data: Data) -> Iterator[str]:
    """Every text of a task, repeated ones repeatedly."""
    for part in data.values():
        for name in ("text", "sentences", "sentence1", "sentence2", "query"):
            if name != "query" or "positive" in part:
                yield from part.get(name, ())
        for name in ("positive", "negative"):
            for cell in part.get(name, ()):
                yield from cell


READERS: dict[str, Callable[[dict[str, Path]], Data]] = {
    "sts": _sts,
    "pair_classification": _pair_classification,
    "classification": _classification,
    "clustering": _clustering,
    "reranking": _reranking,
    "questions": _questions,
    "retrieval": _retrieval,
}
