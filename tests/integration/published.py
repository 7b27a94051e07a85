"""Data sets under the names and in the shapes that mteb asks the Hub for, from sentences made by rule."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from integration import tiny as making
from integration.evaluating import lines

Rows = list[dict[str, Any]]


def write_published(root: Path) -> None:
    """What the tier `fast` needs, below root/datasets/mteb: every group of the paper, a hundred rows or so each."""
    sentences, rng = making.corpus(400), random.Random(2)
    things = {name: place for place, name in enumerate(making.THINGS)}
    label = [things[sentence.split()[2]] for sentence in sentences]
    pairs = [(sentences[i], sentences[rng.randrange(400)]) for i in range(120)]
    overlap = [len(set(a.split()) & set(b.split())) + rng.random() for a, b in pairs]
    scored = [{"sentence1": a, "sentence2": b, "score": s} for (a, b), s in zip(pairs, overlap, strict=True)]
    for name in ("stsbenchmark-sts", "sickr-sts"):
        whole(root, name, test=scored)
    labelled = [{"text": s, "label": label[i] % 3} for i, s in enumerate(sentences)]
    for name in ("banking77", "emotion"):
        whole(root, name, train=labelled[:200], test=labelled[200:320])
    topics = {"sentences": sentences[:150], "labels": [f"topic {place % 5}" for place in label[:150]]}
    whole(root, "twentynewsgroups-clustering", test=[topics, topics])
    same = {
        "sent1": [a for a, _ in pairs],
        "sent2": [b for _, b in pairs],
        "labels": [int(s > 4.5) for s in overlap],
    }
    whole(root, "twittersemeval2015-pairclassification", test=[same])
    summaries = [
        {"text": sentences[i], "human_summaries": sentences[i + 1 : i + 4], "machine_summaries": sentences[i + 4 : i + 12],
         "relevance": [rng.random() * 5 for _ in range(8)]}
        for i in range(0, 200, 10)
    ]  # fmt: skip
    whole(root, "summeval", test=summaries)
    for name in ("nfcorpus", "scifact"):
        searched(root, name, sentences, {})
    near = {i: [i, *rng.sample(range(400), 7)] for i in range(30)}
    searched(root, "AskUbuntuDupQuestions", sentences, near)


def whole(root: Path, name: str, **splits: Rows) -> None:
    """A data set of one configuration."""
    for split, rows in splits.items():
        place = root / "datasets" / "mteb" / name / f"{split}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        lines(place, rows)


def searched(root: Path, name: str, sentences: list[str], near: dict[int, list[int]]) -> None:
    """A search for 30 of 400 sentences by six of their words; among `near` ones only, where they are given."""
    rng, folder = random.Random(3), root / "datasets" / "mteb" / name
    (folder / "qrels").mkdir(parents=True)
    lines(
        folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": s} for i, s in enumerate(sentences)]
    )
    queries = [{"_id": f"q{i}", "text": " ".join(rng.sample(sentences[i].split(), 6))} for i in range(30)]
    lines(folder / "queries.jsonl", queries)
    qrels = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(30)]
    lines(folder / "qrels" / "test.jsonl", qrels)
    parts = [
        ("corpus", "corpus", "corpus.jsonl"),
        ("queries", "queries", "queries.jsonl"),
        ("default", "test", "qrels/test.jsonl"),
    ]
    if near:
        ranked = [
            {"query-id": f"q{i}", "corpus-ids": [f"d{j}" for j in others]} for i, others in near.items()
        ]
        lines(folder / "top_ranked.jsonl", ranked)
        parts.append(("top_ranked", "test", "top_ranked.jsonl"))
    described = "".join(
        f"- config_name: {part}\n  data_files:\n  - split: {split}\n    path: {file}\n"
        for part, split, file in parts
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{described}---\n", encoding="utf-8")
