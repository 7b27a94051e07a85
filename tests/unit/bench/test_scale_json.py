"""What `unsee bench --only scale` writes: the keys that others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsee_dist import bench
from unsee_dist.bench import index, reading, scale, store

KEYS = {
    "ranks",
    "objective",
    "zero",
    "collectives",
    "bytes",
    "host_reads",
    "object_collectives",
    "operations",
}


@pytest.mark.slow
def test_the_keys_of_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 ranks alone, and a small index."""
    monkeypatch.setattr(scale, "RANKS", (8,))
    monkeypatch.setattr(store, "COUNTED", ((8, 0),))
    monkeypatch.setattr(index, "SENTENCES", 5_000_000)
    bench.main("unsee-vicreg", [], tmp_path / "bench.json", None, ["scale"])
    written = json.loads((tmp_path / "bench.json").read_text())
    assert set(written) == {
        *(
            "config",
            "overrides",
            "scale",
            "scale_projection",
            "scale_overlap",
            "store_sockets",
            "store_sockets_at_1024",
        ),
        *("read_amplification", "index", "index_mb_at_1e10"),
    }
    assert all(set(row) == KEYS for row in written["scale"])
    assert {(row["objective"], row["zero"]) for row in written["scale"]} == {
        (name, stage) for name in scale.PRESETS for stage in scale.STAGES
    }
    assert all(row["ranks"] == 8 for row in written["scale"])
    assert written["store_sockets_at_1024"] == store.projection()[-1]["rank_0"] < 1024
    assert isinstance(written["index_mb_at_1e10"], float)
    assert [(row["ranks"], row["batch"], row["workers"]) for row in written["read_amplification"]] == [
        (*layout, workers) for layout in reading.LAYOUTS for workers in reading.WORKERS
    ]
    assert all(
        set(row) == {"ranks", "batch", "workers", "read_per_used"} and row["read_per_used"] >= 1
        for row in written["read_amplification"]
    )
