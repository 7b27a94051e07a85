"""The data of a local task in the form of mteb's task classes; of a published one, what datasets' cache holds."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict
from datasets.naming import camelcase_to_snakecase

from unsee_dist.evaluation.local_tasks import LocalTask
from unsee_dist.evaluation.task_files import Table

Search = dict[
    str, dict[str, dict[str, object]]
]  # subset -> split -> corpus, queries, relevant_docs, top_ranked


def dataset_of(described: LocalTask) -> DatasetDict | Search:
    """The value of `task.dataset` in mteb's class for this kind."""
    data = described.data
    if described.kind in ("retrieval", "questions"):
        return _searched(data["corpus"], data["queries"], data["qrels"], None)
    if described.kind == "reranking":
        return _reranked(data["test"])
    return DatasetDict({part: Dataset.from_dict(table) for part, table in data.items()})


def _searched(corpus: Table, queries: Table, qrels: Table, ranked: dict[str, list[str]] | None) -> Search:
    relevant: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(qrels["query"], qrels["document"], qrels["score"], strict=True):
        relevant.setdefault(query, {})[document] = grade
    answered = [place for place, query in enumerate(queries["id"]) if query in relevant]
    split = {"corpus": Dataset.from_dict(corpus), "queries": Dataset.from_dict(queries).select(answered)}
    return {"default": {"test": split | {"relevant_docs": relevant, "top_ranked": ranked}}}


def _reranked(table: Table) -> Search:
    queries = {"id": [f"q{place}" for place in range(len(table["query"]))], "text": table["query"]}
    corpus: Table = {"id": [], "text": []}
    qrels: Table = {"query": [], "document": [], "score": []}
    ranked: dict[str, list[str]] = {}
    for query, good, bad in zip(queries["id"], table["positive"], table["negative"], strict=True):
        for place, text in enumerate([*good, *bad]):
            document = f"{query}-{place}"
            corpus["id"].append(document)
            corpus["text"].append(text)
            ranked.setdefault(query, []).append(document)
            for name, value in (("query", query), ("document", document), ("score", int(place < len(good)))):
                qrels[name].append(value)
    return _searched(corpus, queries, qrels, ranked)


def configurations(repository: str, revision: str | None = None) -> list[str]:
    """The configurations of a data set: those that datasets lists, and those of this revision in its cache.

    Without a network datasets lists only "default". mteb would then not know which documents to rerank, and rank the
    whole corpus instead: another score, and no error.
    """
    listed = list(datasets.get_dataset_config_names(repository, revision))
    owner, _, name = repository.rpartition("/")
    folder = "___".join([*([owner] if owner else []), camelcase_to_snakecase(name)])
    cached = Path(datasets.config.HF_DATASETS_CACHE).expanduser().glob(f"{folder}/*/*/{revision}")
    return list(dict.fromkeys([*listed, *sorted(path.parent.parent.name for path in cached)]))


def revisions(loaded: object) -> set[str]:
    """The Hub's revisions that loaded data came from, by its paths in the cache; empty for data made here.

    Without a network datasets loads the newest revision in its cache, whatever revision it was called with.
    """
    if isinstance(loaded, dict):
        return set().union(*map(revisions, loaded.values()))
    if not isinstance(loaded, Dataset):
        return set()
    parts = (part for file in loaded.cache_files for part in Path(file["filename"]).parts)
    return {part for part in parts if re.fullmatch("[0-9a-f]{40}", part)}
