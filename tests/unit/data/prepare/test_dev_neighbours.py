"""`prepare --dev` asks two kinds of questions of documents; training sees none of their sentences."""

import json
from itertools import pairwise

from unsee_dist.data import Shards
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.evaluation.question_files import load_question_sets


def _documents(count):
    return [
        [f"document {i} sentence {j} says something of its own" for j in range(2 + i % 4)]
        for i in range(count)
    ]


def test_a_sentence_of_a_held_out_document_asks_for_its_neighbour(tmp_path):
    documents = _documents(200)
    lines = [json.dumps({"text": " ".join(d), "sentences": d}) for d in documents]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare([str(tmp_path / "docs.jsonl")], tmp_path / "out", PrepareSettings(dev=30, field="sentences"))
    sets = load_question_sets([str(tmp_path / "out" / name) for name in ("dev.tsv", "dev-neighbours.tsv")])
    follows = {(a, b) for document in documents for a, b in pairwise(document)}
    near = sets["dev-neighbours"]
    asked = [(q, near.answers[own]) for q, own in zip(near.queries, near.own, strict=True)]
    assert len(asked) == 30
    assert set(asked) <= follows
    assert len({query.split()[3] for query in near.queries}) > 1, "not always the first"
    held = {query.split()[1] for query in sets["dev"].queries}
    assert held == {query.split()[1] for query in near.queries}
    shards = Shards(tmp_path / "out")
    seen = {sentence.split()[1] for sentence in shards.head(shards.sentences)}
    assert not seen & held


def test_lone_sentences_have_no_neighbours(tmp_path):
    text = "\n".join(f"lone sentence number {i} has enough words to cut item {i} in half" for i in range(50))
    (tmp_path / "lone.txt").write_text(text + "\n", encoding="utf-8")
    prepare([str(tmp_path / "lone.txt")], tmp_path / "out", PrepareSettings(dev=10))
    assert (tmp_path / "out" / "dev.tsv").is_file()
    assert not (tmp_path / "out" / "dev-neighbours.tsv").exists()
