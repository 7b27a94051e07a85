"""`unsee bench --only index`: a made-up corpus is opened as a real one, and its index is small in every process."""

import json

import pytest

from unsee_dist import bench
from unsee_dist.bench import index


def test_a_made_up_index_is_opened_by_a_rank_and_a_worker(tmp_path, monkeypatch):
    """Of 5 million sentences: the fewest shards whose blocks are in a file."""
    monkeypatch.setattr(index, "SENTENCES", 5_000_000)
    bench.main("unsee-vicreg", [], tmp_path / "bench.json", None, ["index"])
    written = json.loads((tmp_path / "bench.json").read_text())
    cost = written["index"]
    assert written["index_mb_at_1e10"] == max(cost["rank_mb"], cost["worker_mb"])
    assert (cost["sentences"], cost["shards"], cost["blocks"]) == (5_000_000, 20, 4883)
    assert 0 < cost["worker_mb"] < 20
    assert 0 < cost["rank_mb"] < 20
    assert cost["opening_s"] > 0


@pytest.mark.slow
def test_ten_billion_sentences_take_less_than_100_mb_in_every_process(tmp_path):
    """And less than 2 s to open: of processor time, since a test has no machine of its own."""
    cost = index.index_cost(tmp_path / "index")
    print(index.summary(cost))
    assert (cost["shards"], cost["blocks"]) == (38_147, 9_765_625)
    assert cost["rank_mb"] < 100
    assert cost["worker_mb"] < 100
    assert cost["opening_cpu_s"] < 2
