"""A local task's data in the shapes that mteb's task classes read."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict

from unsee_dist.evaluation.local_tasks import LocalTask


def dataset_of(described: LocalTask) -> Any:
    """What `task.dataset` of mteb's class for this kind holds."""
    data = described.data
    if described.kind in ("retrieval", "questions"):
        return _searched(data["corpus"], data["queries"], data["qrels"], None)
    if described.kind == "reranking":
        return _reranked(data["test"])
    return DatasetDict({part: Dataset.from_dict(table) for part, table in data.items()})


def _searched(corpus: dict[str, Any], queries: dict[str, Any], qrels: dict[str, Any], ranked: Any) -> Any:
    relevant: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(qrels["query"], qrels["document"], qrels["score"], strict=True):
        relevant.setdefault(query, {})[document] = grade
    asked = [place for place, query in enumerate(queries["id"]) if query in relevant]
    split = {"corpus": Dataset.from_dict(corpus), "queries": Dataset.from_dict(queries).select(asked)}
    return {"default": {"test": split | {"relevant_docs": relevant, "top_ranked": ranked}}}


def _reranked(table: dict[str, list[Any]]) -> Any:
    queries = {"id": [f"q{place}" for place in range(len(table["query"]))], "text": table["query"]}
    corpus: dict[str, list[str]] = {"id": [], "text": []}
    qrels: dict[str, list[Any]] = {"query": [], "document": [], "score": []}
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
