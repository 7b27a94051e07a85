"""The model card: what the encoder is, how it was made and how it scores, from the run's own files.

The scores are also there for machines: `model-index` of the Hub's model card metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

ScoreRecord = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a card is filled from. config: the run's; absent for a model that was not trained here."""

    name: str
    revision: str
    width: int
    pooling: str
    max_tokens: int
    config: Mapping[str, Any]
    corpus: str | None = None  # fingerprint of the shards
    step: int | None = None
    geometry: Mapping[str, float] = field(default_factory=dict)
    records: Sequence[ScoreRecord] = ()
    verdicts: Sequence[str] = ()  # what must be said beside the scores


def card(facts: Facts) -> str:
    """README.md: front matter, use, origin, geometry, scores, configuration."""
    parts = [_front(facts), f"# {facts.name}\n", _what(facts), USE.format(max_tokens=facts.max_tokens)]
    if facts.pooling == "mean":
        parts.append(PLAIN.format(max_tokens=facts.max_tokens))
    if facts.geometry:
        values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in facts.geometry.items())
        parts.append(
            f"## Geometry\n\nOf 1,024 sentences of the corpus: {values} (std 1 and mean cosine 0: isotropic).\n"
        )
    parts.append(_scores(facts))
    if facts.config:
        shown = yaml.safe_dump(dict(facts.config), sort_keys=False, allow_unicode=True)
        parts.append(f"## Configuration\n\n```yaml\n{shown}```\n")
    return "\n".join(parts)


def _front(facts: Facts) -> str:
    scored = [record for record in facts.records if record["score"] is not None]
    front: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "sentence-similarity", "unsee"],
    }
    if scored:
        results = [_result(record) for record in scored]
        front["model-index"] = [{"name": facts.name, "results": results}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _result(record: ScoreRecord) -> dict[str, Any]:
    metric = {"type": record["metric"], "value": round(record["score"], 3), "name": record["metric"]}
    dataset = {"type": "mteb" if record["benchmark"] != "local" else "local", "name": record["task"]}
    return {
        "task": {"type": record["group"]},
        "dataset": dataset | {"revision": record["data"]},
        "metrics": [metric],
        "source": {"name": f"{record['benchmark']}, mteb {record['mteb']}"},
    }


def _what(facts: Facts) -> str:
    lines = [
        f"A sentence encoder: {facts.width} numbers a sentence, {facts.pooling} pooling, sentences cut to "
        f"{facts.max_tokens} word pieces, compared by cosine. Revision `{facts.revision}`."
    ]
    if facts.config:
        objective, target = facts.config["objective"]["name"], facts.config["target"]
        against = f"an average of itself (decay {target['decay']})" if target["kind"] == "ema" else "itself"
        lines.append(
            f"Trained without labels by unsee_dist, after UNSEE (arXiv:2401.15316): {facts.config['model']['encoder']} "
            f"with {objective} against {against}, {facts.config['train']['batch']} sentences a step"
            + (f", {facts.step:,} steps" if facts.step else "")
            + f", seed {facts.config['seed']}."
        )
    if facts.corpus:
        lines.append(f"Corpus: fingerprint `{facts.corpus}` of its shards.")
    return "\n".join(lines) + "\n"


def _scores(facts: Facts) -> str:
    records = facts.records
    if not records:
        return "## Scores\n\nNot judged yet: `unsee evaluate`.\n"
    lines = [
        "## Scores\n",
        "| benchmark | group | task | metric | score | TF-IDF |",
        "|---|---|---|---|---:|---:|",
    ]
    for record in records:
        score = f"{record['score']:.2f}" if record["score"] is not None else f"none: {record['unusable']}"
        floor = f"{record['tfidf']:.2f}" if "tfidf" in record else ""
        cells = [record["benchmark"], record["group"], record["task"], record["metric"], score, floor]
        lines.append("| " + " | ".join(cells) + " |")
    said = [f"{sentence}\n" for sentence in facts.verdicts]
    versions = ", ".join(sorted({record["mteb"] for record in records}))
    return "\n".join([*lines, "", *said, f"mteb {versions}; scores x 100.", ""])


USE = """## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
vectors = model.encode(["A first sentence.", "A second one."])
print(model.similarity(vectors, vectors))
```
"""
PLAIN = """Without sentence-transformers:

```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
encoder = AutoModel.from_pretrained("path/of/this/folder").eval()
batch = tokenizer(
    ["A first sentence.", "A second one."], padding=True, truncation=True, max_length={max_tokens}, return_tensors="pt"
)
with torch.no_grad():
    states = encoder(**batch).last_hidden_state
mask = batch["attention_mask"].unsqueeze(-1)
vectors = (states * mask).sum(1) / mask.sum(1)
```
"""
