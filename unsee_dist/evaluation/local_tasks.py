"""Tasks of your own from a folder of files, recognised by their columns, or named in `tasks.yaml`.

    kind                 files                                        columns (or keys of a .jsonl)
    sts                  NAME.tsv                                     sentence1, sentence2, score
    pair_classification  NAME.tsv                                     sentence1, sentence2, label (0 or 1)
    classification       NAME_train.tsv and NAME_test.tsv             text, label
    clustering           NAME.tsv                                     text, label
    reranking            NAME.jsonl                                   query, positive [...], negative [...]
    questions            NAME.tsv (dev.tsv of `unsee prepare --dev`)  query, answer: one right answer among all
    retrieval            NAME/ corpus.jsonl, queries.jsonl (BEIR)     _id, text (and title)
                         NAME/ qrels/test.tsv                         query-id, corpus-id, score

.csv and .jsonl do as well as .tsv. A `tasks.yaml` in the folder names the tasks itself, paths relative to it:

    intents: {kind: classification, train: a.tsv, test: b.tsv}
    topics: {kind: clustering, file: c.tsv}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
import yaml

from unsee_dist.evaluation.retrieval import load_questions
from unsee_dist.evaluation.sts import FIRST, SCORE, SECOND, load_pairs
from unsee_dist.evaluation.tables import TABLES, columns, header

MANIFEST = "tasks.yaml"
TEXT, LABEL = ("text", "sentence", "sentences"), ("label", "labels")
BEIR = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")

Data = dict[str, dict[str, list[Any]]]  # part ("train", "test", "corpus", ...) -> column -> cells


class LocalTask(NamedTuple):
    """A task and all its data. digest: of the files' bytes, so that a changed file is another task."""

    name: str
    kind: str
    digest: str
    data: Data


def local_tasks(folder: Path) -> list[LocalTask]:
    """The tasks of a folder, by name. Raises ValueError: no task, a missing column, a cell that is no label."""
    if not folder.is_dir():
        raise ValueError(f"--tasks {folder} is not a folder. Give the folder that holds the task files.")
    described = _described(folder) if (folder / MANIFEST).is_file() else _recognised(folder)
    if not described:
        raise ValueError(
            f"--tasks {folder} holds no task: no {MANIFEST}, no {', '.join(TABLES)} and no BEIR folder."
        )
    return [_read(name, kind, files) for name, (kind, files) in sorted(described.items())]


def _described(folder: Path) -> dict[str, tuple[str, dict[str, Path]]]:
    try:
        given = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{folder / MANIFEST} is not YAML: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(task, dict) for task in given.values()):
        raise ValueError(f"{folder / MANIFEST} must map task names to {{kind: ..., file: ...}}.")
    found = {}
    for name, task in given.items():
        where, kind = f"{folder / MANIFEST}, {name}", str(task.get("kind"))
        if kind not in READERS:
            raise ValueError(f"{where}: kind = {kind} is unknown{_meant(kind)}. Kinds: {', '.join(READERS)}.")
        wanted = {"classification": {"train", "test"}, "retrieval": {"folder"}}.get(kind, {"file"})
        if set(task) != wanted | {"kind"}:
            raise ValueError(f"{where}: a {kind} task has the keys kind, {', '.join(sorted(wanted))}.")
        found[str(name)] = (kind, {part: folder / str(task[part]) for part in sorted(wanted)})
    return found


def _meant(kind: str) -> str:
    near = get_close_matches(kind, READERS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _recognised(folder: Path) -> dict[str, tuple[str, dict[str, Path]]]:
    tables = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in TABLES}
    found: dict[str, tuple[str, dict[str, Path]]] = {}
    for inner in sorted(path for path in folder.iterdir() if (path / BEIR[0]).is_file()):
        found[inner.name] = ("retrieval", {"folder": inner})
    for stem in [stem for stem in tables if stem.endswith("_train")]:
        name = stem.removesuffix("_train")
        if f"{name}_test" in tables:
            both = {"train": tables.pop(stem), "test": tables.pop(f"{name}_test")}
            found[name] = ("classification", both)
    for name, path in tables.items():
        found[name] = (_kind(path), {"file": path})
    return found


def _kind(path: Path) -> str:
    there = header(path)
    for kind, wanted in RECOGNISED.items():
        if all(set(there) & set(names) for names in wanted):
            return kind
    needs = "; ".join(
        f"{kind}: {', '.join(names[0] for names in wanted)}" for kind, wanted in RECOGNISED.items()
    )
    raise ValueError(f"{path} has the columns {', '.join(there)}, which make no task. {needs}.")


def _read(name: str, kind: str, files: dict[str, Path]) -> LocalTask:
    digest = xxhash.xxh3_128()
    for path in files.values():
        for file in sorted(path / part for part in BEIR) if path.is_dir() else [path]:
            if not file.is_file():
                raise ValueError(f"task {name}: {file} is not there. A {kind} task needs it.")
            digest.update(file.read_bytes())
    return LocalTask(name, kind, digest.hexdigest()[:16], READERS[kind](files))


def _table(path: Path, **wanted: tuple[str, ...]) -> dict[str, list[Any]]:
    rows = columns(path, list(wanted.values()))
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
    table = _table(files["file"], sentence1=FIRST, sentence2=SECOND, labels=LABEL)
    wrong = sorted({str(label) for label in table["labels"]} - {"0", "1"})
    if wrong or len({str(label) for label in table["labels"]}) < 2:
        raise ValueError(f"{files['file']}: label = {wrong[:1] or 'one value only'}. Write 0 and 1.")
    return {"test": table | {"labels": [int(str(label)) for label in table["labels"]]}}


def _classification(files: dict[str, Path]) -> Data:
    parts = {part: _table(path, text=TEXT, label=LABEL) for part, path in files.items()}
    known = sorted({str(label) for label in parts["train"]["label"]})
    unknown = sorted({str(label) for label in parts["test"]["label"]} - set(known))
    if unknown:
        raise ValueError(
            f"{files['test']}: label = {unknown[0]} is not in {files['train']}. Add examples of it."
        )
    number = {label: place for place, label in enumerate(known)}
    for table in parts.values():
        table["label"] = [number[str(label)] for label in table["label"]]
    return {part: _strings(table, "text") for part, table in parts.items()}


def _clustering(files: dict[str, Path]) -> Data:
    table = _table(files["file"], sentences=TEXT, labels=LABEL)
    return {"test": _strings(_strings(table, "sentences"), "labels")}


def _reranking(files: dict[str, Path]) -> Data:
    path = files["file"]
    table = _table(path, query=("query",), positive=("positive",), negative=("negative",))
    for name in ("positive", "negative"):
        if not all(isinstance(cell, list) and cell for cell in table[name]):
            raise ValueError(f"{path}: {name} must be a list of at least one text in every line.")
    return {"test": table}


def _questions(files: dict[str, Path]) -> Data:
    asked = load_questions(files["file"])
    documents = [f"d{place}" for place in range(len(asked.answers))]
    queries = [f"q{place}" for place in range(len(asked.queries))]
    judged = {
        "query": queries,
        "document": [documents[own] for own in asked.own],
        "score": [1] * len(queries),
    }
    corpus, asking = {"id": documents, "text": asked.answers}, {"id": queries, "text": asked.queries}
    return {"corpus": corpus, "queries": asking, "qrels": judged}


def _retrieval(files: dict[str, Path]) -> Data:
    folder = files["folder"]
    corpus, queries = (_texts(folder / name) for name in BEIR[:2])
    judged = _table(folder / BEIR[2], query=("query-id",), document=("corpus-id",), score=("score",))
    for name, known in (("query", queries["id"]), ("document", corpus["id"])):
        lost = sorted({str(cell) for cell in judged[name]} - set(known))
        if lost:
            raise ValueError(f"{folder / BEIR[2]}: the {name} {lost[0]} is not among the {name}s' _id.")
    judged["score"] = [int(float(str(score))) for score in judged["score"]]
    return {"corpus": corpus, "queries": queries, "qrels": _strings(_strings(judged, "query"), "document")}


def _texts(path: Path) -> dict[str, list[Any]]:
    table = _table(path, id=("_id", "id"), text=("text",))
    titles = (json.loads(line).get("title") or "" for line in _lines(path))
    texts = (f"{title} {text}".strip() for title, text in zip(titles, table["text"], strict=True))
    return {"id": [str(cell) for cell in table["id"]], "text": list(texts)}


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())


def _strings(table: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    return table | {name: [str(cell) for cell in table[name]]}


def texts(data: Data) -> Iterator[str]:
    """Every text of a task, as often as it stands there."""
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
# In this order: "label" alone would make an STS file whose score is called label a clustering of its sentences.
RECOGNISED = {
    "reranking": (("query",), ("positive",), ("negative",)),
    "questions": (("query",), ("answer",)),
    "sts": (FIRST, SECOND, tuple(name for name in SCORE if name != "label")),
    "pair_classification": (FIRST, SECOND, LABEL),
    "clustering": (TEXT, LABEL),
}
