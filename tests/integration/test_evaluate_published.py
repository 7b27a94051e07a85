"""Published tasks: brought by --prefetch from a Hub (served here, with made-up rows), then evaluated without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.evaluating import loaded, table, write_model
from integration.hub import hub
from integration.published import write_published
from integration.tiny import BIN, Tiny

MODEL = "somebody/encoder"
STSB = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"  # the revision that mteb asks for


def unsee(place: Path, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """`unsee evaluate ...` in a process of its own: without a network, or with the Hub at `url` and nothing else."""
    network = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url} if url else {"HF_HUB_OFFLINE": "1"}
    env = launch.environment(HF_HOME=str(place / "home"), COLUMNS="200", **network)
    return launch.run([str(BIN / "unsee"), "evaluate", *arguments], cwd=place, env=env, timeout_s=600)


@pytest.fixture(scope="module")
def fetched(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with home/: the tier `fast` and an encoder of the Hub, as --prefetch left them."""
    place = tmp_path_factory.mktemp("published")
    write_published(place / "hub")
    write_model(place / "hub" / "models" / MODEL, tiny)
    with hub(place / "hub") as (url, asked):
        done = unsee(place, MODEL, "--tier", "fast", "--prefetch", url=url)
        assert done.returncode == 0, done.stderr
        assert any(STSB in line for line in asked)
    assert f"10 tasks and {MODEL} are on this machine" in done.stderr
    return place


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_what_was_fetched_is_evaluated_without_a_network(fetched: Path) -> None:
    done = unsee(fetched, MODEL, "--tier", "fast", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["title"].startswith(f"{MODEL} ")
    assert "MTEB(eng, v1) · mteb 2." in found["title"]
    groups = [
        "Classification",
        "Clustering",
        "PairClassification",
        "Reranking",
        "Retrieval",
        "STS",
        "Summarization",
    ]
    assert list(found["groups"]) == groups
    assert len(found["tasks"]) == 10
    score = {record["task"]: record["score"] for record in found["tasks"]}
    assert score["STSBenchmark"] == pytest.approx(of_a_file(fetched), abs=1e-4)
    assert score["AskUbuntuDupQuestions"] == pytest.approx(100 * reranked(fetched), abs=1e-2)
    assert "cached" not in done.stderr, "the libraries' own talk"


def of_a_file(place: Path) -> float:
    """STSBenchmark's rows as a local task."""
    source = place / "hub" / "datasets" / "mteb" / "stsbenchmark-sts" / "test.jsonl"
    (place / "tasks").mkdir(exist_ok=True)
    shutil.copy(source, place / "tasks" / "same.jsonl")
    done = unsee(place, MODEL, "--tasks", "tasks", "--json")
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["mean"])


def reranked(place: Path) -> float:
    """AskUbuntuDupQuestions by sentence-transformers' own evaluator: among 8 documents, not among all 400."""
    from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator

    folder = place / "hub" / "datasets" / "mteb" / "AskUbuntuDupQuestions"
    read = {name: launch.lines(folder / f"{name}.jsonl") for name in ("corpus", "queries", "top_ranked")}
    text = {row["_id"]: row["text"] for row in [*read["corpus"], *read["queries"]]}
    samples = []
    for row in read["top_ranked"]:
        right = row["query-id"].replace("q", "d")
        others = [text[name] for name in row["corpus-ids"] if name != right]
        samples.append({"query": text[row["query-id"]], "positive": [text[right]], "negative": others})
    return float(RerankingEvaluator(samples)(loaded(place / "hub" / "models" / MODEL))["map"])


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_data_of_another_revision_than_asked_for_is_refused(fetched: Path) -> None:
    (cached,) = (fetched / "home" / "datasets").glob(f"mteb___stsbenchmark-sts/*/*/{STSB}")
    other = cached.rename(cached.with_name("a" * 40))
    shutil.rmtree(fetched / "evaluations", ignore_errors=True)  # what was evaluated is not loaded again
    try:
        done = unsee(fetched, MODEL, "--tier", "STSBenchmark")
    finally:
        other.rename(cached)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in ("STSBenchmark", "a" * 40, STSB, "--prefetch"):
        assert word in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_what_was_not_fetched_is_a_sentence(fetched: Path) -> None:
    (fetched / "pairs").mkdir()
    rows = [("a house", "the house", 4), ("a", "b", 1)]
    table(fetched / "pairs" / "pairs.tsv", ["sentence1", "sentence2", "score"], rows)
    for asked, word in (
        ((MODEL, "--tier", "BIOSSES"), "BIOSSES is not on this machine"),
        (("nobody/other", "--tasks", "pairs"), "nobody/other is neither a folder here nor"),
    ):
        done = unsee(fetched, *asked)
        assert done.returncode == 2
        assert word in done.stderr
        assert "--prefetch" in done.stderr
        assert "Traceback" not in done.stderr
