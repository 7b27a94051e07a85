"""An epoch that was killed, and went on with other ranks and workers, and with tokens for text: every sentence once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch

from unsee_dist.data import Shards


def killed(started: ranks.Ranks) -> None:
    """One rank has killed itself; then power is cut for the others, too."""
    until = time.monotonic() + 600
    while all(process.poll() is None for process in started.processes) and time.monotonic() < until:
        time.sleep(0.1)
    assert -9 in [process.poll() for process in started.processes], started.text()
    started.kill()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_ranks_read_every_sentence_of_the_epoch_once(tmp_path: Path) -> None:
    tiny = launch.make(tmp_path, sentences=1200)
    corpus = Shards(tiny.shards)
    batch = next(size for size in (24, 30, 18, 12, 6) if corpus.sentences % size == 0)
    steps = corpus.sentences // batch
    settings = [
        "train.epochs=1",
        "train.steps=null",
        f"train.batch={batch}",
        "checkpoint.every=7",
        "data.trace=true",
    ]
    settings += ["data.tokenise=true", "evaluate.every=1000", f"run.dir={tmp_path / 'run'}"]
    tokens = list(tiny.shards.glob("tokens-*"))
    assert not tokens

    # while the ranks tokenise: what one of them had done is there, and nobody takes it for all
    killed(ranks.start(2, tiny.config, *settings, UNSEE_KILL_AT="tokenise 0 1"))
    (tokens,) = list(tiny.shards.glob("tokens-*"))
    assert (tokens / "done-000001.json").exists()
    assert not (tokens / "index.json").exists()

    killed(ranks.start(3, tiny.config, *settings, "data.workers=1", UNSEE_KILL_AT=f"backward {steps // 2} 2"))
    assert (tokens / "index.json").exists()
    assert not list(tokens.glob("done-*"))
    seen = {step: ids for step, ids in launch.traced(tmp_path / "run").items() if len(ids) == batch}
    assert max(seen) >= steps // 2 // 7 * 7  # the last checkpoint: what is traced is written with it

    ranks.start(1, tiny.config, *settings).succeed(600)
    traced = launch.traced(tmp_path / "run")
    assert len(traced) == steps
    assert sorted(each for ids in traced.values() for each in ids) == list(range(corpus.sentences))
    assert {
        step: traced[step] for step in seen
    } == seen  # what the killed ranks had read, this one reads again
