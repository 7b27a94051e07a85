"""mteb's scores of local tasks are those of sentence-transformers' own evaluators, or of scikit-learn written out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from integration.evaluating import loaded


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(), delimiter="\t", quoting=csv.QUOTE_NONE))


def of(evaluated: dict, task: str) -> float:
    return {record["task"]: record["score"] for record in evaluated["tasks"]}[task] / 100


def test_pairs_and_searches_equal_sentence_transformers_own_evaluators(place: Path, evaluated: dict) -> None:
    from sentence_transformers.sentence_transformer import evaluation as own

    model, folder = loaded(place / "good"), place / "tasks"
    similar = rows(folder / "similar.tsv")
    first, second = ([row[name] for row in similar] for name in ("sentence1", "sentence2"))
    scores = [float(row["score"]) for row in similar]
    found = own.EmbeddingSimilarityEvaluator(first, second, scores)(model)
    assert of(evaluated, "similar") == pytest.approx(found["spearman_cosine"], abs=1e-5)
    assert (
        abs(of(evaluated, "similar") - found["pearson_cosine"]) > 1e-3
    )  # the case can tell one from the other
    same = [int(row["label"]) for row in rows(folder / "same.tsv")]
    found = own.BinaryClassificationEvaluator(first, second, same, similarity_fn_names=ALL)(model)
    assert of(evaluated, "same") == pytest.approx(max(found[f"{name}_ap"] for name in ALL), abs=1e-5)
    samples = [json.loads(line) for line in (folder / "rerank.jsonl").read_text().splitlines()]
    found = own.RerankingEvaluator(samples)(model)
    assert of(evaluated, "rerank") == pytest.approx(found["map"], abs=1e-4)
    texts = {}
    for name in ("queries", "corpus"):
        read = (json.loads(line) for line in (folder / "search" / f"{name}.jsonl").read_text().splitlines())
        texts[name] = {row["_id"]: row["text"] for row in read}
    relevant = {row["query-id"]: {row["corpus-id"]} for row in rows(folder / "search" / "qrels" / "test.tsv")}
    found = own.InformationRetrievalEvaluator(texts["queries"], texts["corpus"], relevant, ndcg_at_k=[10])(
        model
    )
    assert of(evaluated, "search") == pytest.approx(found["cosine_ndcg@10"], abs=1e-4)
    assert 0.05 < of(evaluated, "search") < 0.999


ALL = ["cosine", "dot", "euclidean", "manhattan"]


def test_label_free_questions_score_as_in_training(place: Path, evaluated: dict) -> None:
    from unsee_dist.evaluation.question_files import load_questions
    from unsee_dist.metrics.retrieval import retrieval_scores

    found = retrieval_scores(load_questions(place / "tasks" / "dev.tsv"), loaded(place / "good").encode)
    assert of(evaluated, "dev") == pytest.approx(found["mrr"], abs=1e-4)
    assert 1 / found["candidates"] < found["mrr"] < 1


def test_classification_equals_logistic_regressions_written_out(place: Path, evaluated: dict) -> None:
    from sklearn.linear_model import LogisticRegression

    model = loaded(place / "good")
    parts = {name: rows(place / "tasks" / f"intents_{name}.tsv") for name in ("train", "test")}
    z = {name: model.encode([row["text"] for row in part]) for name, part in parts.items()}
    label = {name: np.array([row["label"] for row in part]) for name, part in parts.items()}

    def accuracy(each: int) -> float:
        """The mean of ten regressions on `each` examples of every label, drawn as mteb draws them."""
        order, found = list(range(len(label["train"]))), []
        for _ in range(10):
            np.random.RandomState(42).shuffle(order)  # of the order before: ten different draws
            drawn = [
                i
                for name in set(label["train"])
                for i in [place for place in order if label["train"][place] == name][:each]
            ]
            fitted = LogisticRegression(max_iter=100).fit(z["train"][drawn], label["train"][drawn])
            found.append(np.mean(fitted.predict(z["test"]) == label["test"]))
        return float(np.mean(found))

    assert of(evaluated, "intents") == pytest.approx(accuracy(8), abs=1e-3)
    assert (
        abs(of(evaluated, "intents") - accuracy(30)) > 1e-2
    )  # the case can tell how many examples were used


def test_clustering_equals_k_means_and_v_measure_written_out(place: Path, evaluated: dict) -> None:
    import random

    from sklearn.cluster import MiniBatchKMeans

    texts = rows(place / "tasks" / "topics.tsv")
    z, label = loaded(place / "good").encode([row["text"] for row in texts]), [row["label"] for row in texts]

    def v_measure(of_them: int) -> float:
        """The mean of ten clusterings of 16,384 draws from the first texts, as mteb draws them."""
        rng, found = random.Random(42), []
        for _ in range(10):
            drawn = rng.choices(range(of_them), k=16_384)
            means = MiniBatchKMeans(n_clusters=5, batch_size=512, n_init=1, random_state=42)
            found.append(agreement([label[i] for i in drawn], means.fit_predict(z[drawn]).tolist()))
        return float(np.mean(found))

    assert of(evaluated, "topics") == pytest.approx(v_measure(150), abs=1e-5)
    assert (
        abs(of(evaluated, "topics") - v_measure(100)) > 1e-2
    )  # the case can tell whether all texts were clustered


def agreement(true: list, found: list) -> float:
    """V-measure: the harmonic mean of homogeneity 1 - H(true|found)/H(true) and completeness (Rosenberg 2007)."""

    def entropy(things: list) -> float:
        share = np.array(list(Counter(things).values())) / len(things)
        return float(-np.sum(share * np.log(share)))

    both = entropy(list(zip(true, found, strict=True)))
    homogeneous = 1 - (both - entropy(found)) / entropy(true)
    complete = 1 - (both - entropy(true)) / entropy(found)
    return 2 * homogeneous * complete / (homogeneous + complete)
