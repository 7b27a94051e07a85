"""Which score that needs no labels orders encoders as people's labels do? Prints a table, writes a JSON.

    python tests/torture/label_free.py DOCUMENTS.jsonl --tasks DIR --out label_free.json START=MODEL START=MODEL ...

The scores of each model are added to label_free.jsonl beside it, and a model that is there is not measured again.

DOCUMENTS: lines with `sentences`, a list. MODEL: what `unsee evaluate` takes. START: the encoder that it was trained from, of
which several models may come. The references are the scores of the tasks in DIR.

Candidates, all of the documents alone; each is made so that more is better:

    neighbour_mrr          a sentence finds the next one of its document among those of all documents
    neighbour_recall       the share that find it first
    hard_mrr               the same among the 20 that TF-IDF finds nearest to the sentence, and its own
    likelihood             mean log softmax(cosine / temperature) of the own neighbour, at the best temperature
    near_or_far            the next sentence is nearer than the one five further on (share of documents)
    same_document          area under the ROC curve of pairs of one document against pairs of two
    corruption             mean over sentences of Spearman's rho: cosine with itself after 0, 10, 25, 50, 75% of its words are gone
    word_order             a sentence is nearer to its neighbour than the same words in another order are
    dropout_recall         under dropout a sentence finds itself among all others under dropout
    alignment              - mean squared distance of neighbours (unit vectors)
    uniformity             - log mean exp(-2 |u_i - u_j|^2)
    alignment_uniformity   the sum of both
    rank                   effective rank over width (RankMe)
    isotropy               - mean cosine of two sentences

Together: the mean of the ranks of neighbour_mrr, hard_mrr, corruption and dropout_recall, chosen before any reference was seen.

    rho        Spearman over all encoders
    within     the mean over starts of Spearman among the encoders of one start: does it choose well in one run?
    interval   95%, by the bootstrap over encoders within each start
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from unsee_dist.evaluation.evaluate import measure
from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.metrics.cosine import unit_rows
from unsee_dist.metrics.geometry import geometry, moments, uniformity
from unsee_dist.metrics.names import EFFECTIVE_RANK, MEAN_COSINE

FAR, HARD, GONE = 5, 20, (0.1, 0.25, 0.5, 0.75)
TEMPERATURES = np.geomspace(0.005, 0.5, 13)
TOGETHER = ("neighbour_mrr", "hard_mrr", "corruption", "dropout_recall")
DRAWS = 2000

Embed = Callable[[list[str]], np.ndarray]


class Material(NamedTuple):
    """Of each document a sentence, its next one and one further on; of the first, words gone and words in another order."""

    first: list[str]
    next: list[str]
    far: list[str]
    corrupted: list[list[str]]  # by share of what is gone
    shuffled: list[str]
    hard: np.ndarray  # (documents, HARD): places in `next`


def material(documents: Sequence[Sequence[str]], seed: int = 0) -> Material:
    """Of the documents with more than FAR + 1 sentences. The first sentence of an article is left out: it defines its title."""
    rng = default_rng(seed)
    chosen = [document for document in documents if len(document) > FAR + 2]
    places = [int(rng.integers(1, len(document) - FAR)) for document in chosen]
    first, after, far = (
        [document[place + further] for document, place in zip(chosen, places, strict=True)]
        for further in (0, 1, FAR)
    )
    corrupted = [[without(text, share, rng) for text in first] for share in GONE]
    shuffled = [" ".join(rng.permutation(text.split()).tolist()) for text in after]
    counts = TfidfVectorizer().fit(first + after)
    alike = (counts.transform(first) @ counts.transform(after).T).toarray()
    np.fill_diagonal(alike, -1)
    return Material(first, after, far, corrupted, shuffled, np.argsort(-alike, axis=1)[:, :HARD])


def without(text: str, share: float, rng: Generator) -> str:
    """The text without a share of its words, at least one and not all."""
    words = text.split()
    gone = min(max(round(share * len(words)), 1), len(words) - 1)
    kept = np.sort(rng.permutation(len(words))[gone:])
    return " ".join(words[place] for place in kept)


def candidates(of: Material, embed: Embed, embed_dropped: Embed | None) -> dict[str, float]:
    """All scores of an encoder. embed_dropped: under dropout, other masks at each call; None where nothing can be dropped."""
    first, after, far, shuffled = (
        unit_rows(embed(texts)) for texts in (of.first, of.next, of.far, of.shuffled)
    )
    cosines = first @ after.T
    own = cosines.diagonal()
    ranks = (cosines >= own[:, None]).sum(axis=1)
    hard = (np.take_along_axis(cosines, of.hard, axis=1) >= own[:, None]).sum(axis=1) + 1
    kept = np.stack(
        [np.ones(len(first)), *((first * unit_rows(embed(texts))).sum(axis=1) for texts in of.corrupted)]
    )
    order = -np.arange(len(kept))
    of_all = geometry(moments(np.concatenate([first, after])))
    scores = {
        "neighbour_mrr": float((1 / ranks).mean()),
        "neighbour_recall": float((ranks == 1).mean()),
        "hard_mrr": float((1 / hard).mean()),
        "likelihood": max(_log_likelihood(cosines / temperature) for temperature in TEMPERATURES),
        "near_or_far": float((own > (first * far).sum(axis=1)).mean()),
        "same_document": float(_same_document(cosines)),
        "corruption": float(np.mean([_rho(order, column) for column in kept.T])),
        "word_order": float((own > (first * shuffled).sum(axis=1)).mean()),
        "alignment": -float((2 - 2 * own).mean()),
        "uniformity": -uniformity(first),
        "rank": of_all[EFFECTIVE_RANK] / first.shape[1],
        "isotropy": -of_all[MEAN_COSINE],
    }
    scores["alignment_uniformity"] = scores["alignment"] + scores["uniformity"]
    if embed_dropped is not None:
        views = [unit_rows(embed_dropped(of.first)) for _ in range(2)]
        again = views[0] @ views[1].T
        scores["dropout_recall"] = float((again.argmax(axis=1) == np.arange(len(again))).mean())
    return scores


def _log_likelihood(logits: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((shifted.diagonal() - np.log(np.exp(shifted).sum(axis=1))).mean())


def _same_document(cosines: np.ndarray) -> float:
    return roc_auc_score(np.eye(len(cosines), dtype=bool).ravel(), cosines.ravel())


class Encoder(NamedTuple):
    start: str
    model: str
    scores: Mapping[str, float]
    references: Mapping[str, float]


def tabulate(encoders: Sequence[Encoder], seed: int = 0) -> list[dict[str, object]]:
    """A row a candidate and reference: rho, within, and their intervals."""
    names = [name for name in encoders[0].scores if all(name in each.scores for each in encoders)]
    columns = {name: np.array([each.scores[name] for each in encoders]) for name in names}
    columns["together"] = np.mean([rankdata(columns[name]) for name in TOGETHER if name in columns], axis=0)
    starts = np.array([each.start for each in encoders])
    draws = [_draw(starts, default_rng([seed, number])) for number in range(DRAWS)]
    rows: list[dict[str, object]] = []
    for reference in encoders[0].references:
        wanted = np.array([each.references[reference] for each in encoders])
        for name, column in columns.items():
            drawn = [_both(column[draw], wanted[draw], starts[draw]) for draw in draws]
            rho, within = _both(column, wanted, starts)
            rho_interval, within_interval = (_middle([each[place] for each in drawn]) for place in (0, 1))
            row = {"reference": reference, "score": name, "rho": rho, "within": within}
            rows.append(row | {"rho_interval": rho_interval, "within_interval": within_interval})
    return rows


def _middle(drawn: Sequence[float]) -> list[float]:
    """The ends of the 95% interval, of the draws that have a number."""
    finite = [value for value in drawn if np.isfinite(value)]
    return np.quantile(finite, [0.025, 0.975]).tolist() if finite else [float("nan")] * 2


def _draw(starts: np.ndarray, rng: Generator) -> np.ndarray:
    groups = [np.flatnonzero(starts == start) for start in np.unique(starts)]
    return np.concatenate([rng.choice(group, len(group)) for group in groups])


def _both(column: np.ndarray, wanted: np.ndarray, starts: np.ndarray) -> tuple[float, float]:
    inside = [_rho(column[starts == start], wanted[starts == start]) for start in np.unique(starts)]
    return _rho(column, wanted), float(np.nanmean(inside)) if np.isfinite(inside).any() else float("nan")


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; not a number of fewer than three, or of equal ones."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def measured(start: str, model: str, tasks: Path, of: Material) -> Encoder:
    """An encoder's candidates and references. The references are read where `unsee evaluate` has measured them."""
    import torch
    from sentence_transformers import SentenceTransformer

    result = measure(EvaluationRequest(model, folders=[tasks]))
    opened = result.model
    references = {score.task: float("nan") if score.score is None else score.score for score in result.scores}
    dropped = None
    if opened.folder is not None:
        encoder = SentenceTransformer(str(opened.folder), device="cpu")
        torch.manual_seed(0)

        def dropped(texts: list[str]) -> np.ndarray:
            rows = []
            encoder.train()
            with torch.no_grad():
                for place in range(0, len(texts), 64):
                    inputs = encoder.preprocess(texts[place : place + 64])
                    rows.append(encoder(inputs)["sentence_embedding"].float().numpy())
            return np.concatenate(rows)

    return Encoder(start, model, candidates(of, opened.embed, dropped), references)


def read(done: Path) -> dict[str, Encoder]:
    """By model, what an earlier call has measured."""
    lines = done.read_text(encoding="utf-8").splitlines() if done.exists() else []
    return {one.model: one for one in (Encoder(**json.loads(line)) for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", type=Path)
    parser.add_argument("models", nargs="+", metavar="START=MODEL")
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("label_free.json"))
    parser.add_argument("--count", type=int, default=1000, help="documents")
    options = parser.parse_intermixed_args()
    lines = options.documents.read_text(encoding="utf-8").splitlines()[: options.count]
    of = material([json.loads(line)["sentences"] for line in lines])
    done = options.out.with_suffix(".jsonl")
    there = read(done)
    encoders = []
    for named in options.models:
        start, _, model = named.partition("=")
        if model not in there:
            there[model] = measured(start, model, options.tasks, of)
            with done.open("a", encoding="utf-8") as file:
                file.write(json.dumps(there[model]._asdict()) + "\n")
            print(f"{len(there)}: {named}", flush=True)
        encoders.append(there[model])
    rows = tabulate(encoders)
    table = [{"start": each.start, **each.scores, **each.references} for each in encoders]
    options.out.write_text(
        json.dumps({"documents": len(of.first), "encoders": table, "correlations": rows}, indent=1) + "\n"
    )
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
