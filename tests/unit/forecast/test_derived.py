"""What follows from settings, corpus and ranks; and what memory and disk follow from the sizes of a model."""

from __future__ import annotations

import pytest

from unsee_dist.config import load
from unsee_dist.config.sections import ParallelSettings
from unsee_dist.forecast import memory
from unsee_dist.forecast.derived import advice, derive
from unsee_dist.forecast.memory import Sizes

BERT = Sizes(trained=124_000_000, followed=109_000_000, encoder=109_000_000, layers=12, width=768, heads=12)


def test_eight_ranks_of_four_sentences_are_said() -> None:
    config = load("base", ["evaluate.retrieval=x.tsv"])
    found = derive(config, 1_000_000, 8)
    assert (found.steps, found.batch_a_rank, found.at_once, found.warmup) == (31_250, 4, 4, 3125)
    (sentence,) = advice(config, found)
    assert "8 ranks get 4 sentences each" in sentence
    assert "Use 2 ranks, or train.batch=128" in sentence
    assert list(advice(config, derive(config, 1_000_000, 2))) == []
    assert list(advice(config, derive(config, 1_000_000, 1))) == []


def test_a_run_without_a_score_and_a_warmup_of_two_steps_are_said() -> None:
    config = load("base", ["train.steps=24"])
    warmup, score = advice(config, derive(config, 10_000, 1))
    assert "2 of 24 steps" in warmup
    assert "no best/" in score


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_memory_is_what_the_stage_shards(stage: int, precision: str) -> None:
    parallel = ParallelSettings(zero=stage, precision=precision)
    one, eight = (memory.state_bytes(BERT, parallel, ranks) for ranks in (1, 8))
    sharded_from = {"weights": 3, "gradients": 2, "masters": 1, "AdamW": 1, "average": 1, "target": 3}
    for part, first in sharded_from.items():
        if part == "masters" and precision == "fp32":  # the weights themselves, where nothing is sharded
            assert one[part] == 0
            assert eight[part] == (4 * BERT.trained // 8 if stage else 0)
        else:
            assert eight[part] == (one[part] // 8 if stage >= first else one[part])
    each = 4 if precision == "fp32" else 2
    assert one["AdamW"] == 8 * BERT.trained
    assert one["weights"] == one["gradients"] == each * BERT.trained


def test_a_micro_batch_bounds_activations() -> None:
    whole, small = (load("base", ["train.batch=512", f"train.micro_batch={n}"]) for n in (512, 64))
    sizes = [memory.activation_bytes(each, BERT, derive(each, 10**6, 1)) for each in (whole, small)]
    assert sizes[0] == 8 * sizes[1]
