"""The model card: what the encoder is, how it was made and how it scores, from the run's own files.

The scores are also there for machines: `model-index` of the Hub's model card metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from unsee_dist.config.sections import Pooling
from unsee_dist.masking import published
from unsee_dist.metrics.task_score import TaskScore


@dataclass(frozen=True)
class Facts:
    """The values in a card. config: the run's; empty for a model that was not trained here."""

    name: str
    revision: str
    width: int
    pooling: Pooling
    max_tokens: int
    config: Mapping[str, Any]
    corpus: str | None = None  # fingerprint of the shards
    step: int | None = None
    geometry: Mapping[str, float] = field(default_factory=dict)
    scores: Sequence[TaskScore] = ()
    warnings: Sequence[str] = ()  # printed below the scores
    notices: Sequence[str] = ()  # sentences of the training that a reader must know


def card(facts: Facts) -> str:
    """README.md: front matter, use, origin, geometry, scores, configuration."""
    parts = [_front(facts), f"# {facts.name}\n", _description(facts), USE.format(max_tokens=facts.max_tokens)]
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
    return published("\n".join(parts))


def _front(facts: Facts) -> str:
    front: dict[str, object] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "sentence-similarity", "unsee"],
    }
    results = [_result(score, score.score) for score in facts.scores if score.score is not None]
    if results:
        front["model-index"] = [{"name": facts.name, "results": results}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _result(score: TaskScore, value: float) -> dict[str, object]:
    dataset = {"type": "mteb" if score.benchmark != "local" else "local", "name": score.task}
    return {
        "task": {"type": score.group},
        "dataset": dataset | {"revision": score.data},
        "metrics": [{"type": score.metric, "value": round(value, 3), "name": score.metric}],
        "source": {"name": f"{score.benchmark}, mteb {score.mteb}"},
    }


def _description(facts: Facts) -> str:
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
    lines += facts.notices
    if facts.corpus:
        lines.append(f"Corpus: fingerprint `{facts.corpus}` of its shards.")
    return "\n".join(lines) + "\n"


def _scores(facts: Facts) -> str:
    if not facts.scores:
        return "## Scores\n\nNot evaluated yet: `unsee evaluate`.\n"
    lines = [
        "## Scores\n",
        "| benchmark | group | task | metric | score | TF-IDF |",
        "|---|---|---|---|---:|---:|",
    ]
    for score in facts.scores:
        value = f"{score.score:.2f}" if score.score is not None else f"none: {score.unusable}"
        baseline = "" if score.tfidf is None else f"{score.tfidf:.2f}"
        cells = [score.benchmark, score.group, score.task, score.metric, value, baseline]
        lines.append("| " + " | ".join(cells) + " |")
    warnings = [f"{sentence}\n" for sentence in facts.warnings]
    versions = ", ".join(sorted({score.mteb for score in facts.scores}))
    return "\n".join([*lines, "", *warnings, f"mteb {versions}; scores x 100.", ""])


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
