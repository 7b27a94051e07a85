"""Bytes of a run, by formula.

    P weights that are trained (encoder, projector), F of them that the target follows, R ranks, stage z,
    b bytes of a number in the precision: 4 of fp32, 2 of bf16 and fp16

    weights     b P        / R from z = 3
    gradients   b P        / R from z = 2
    masters     4 P        / R from z = 1; none in fp32 at z = 0, where the weights are
    AdamW       8 P        / R from z = 1
    average     4 F        / R from z = 1: the target in fp32
    target      b F        / R from z = 3: the network that encodes
    activations V S T L (17 h b + 5/2 a T b)      Korthikanti et al. 2022 (arXiv:2205.05198), half of it for no cross-attention

V = 2 views of S sentences at once, T tokens (at most), L layers, h width, a heads. A checkpoint has masters, AdamW and average:
12 P + 4 F, whatever R and z. One rank has nothing to shard: z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from unsee_dist.config.sections import ParallelSettings, RunConfig
from unsee_dist.data.stream.mask_keys import VIEWS
from unsee_dist.forecast.derived import Derived

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Sizes:
    """trained, followed: weights. layers, width, heads: of the encoder. encoder: its weights, which best/ and final/ have."""

    trained: int
    followed: int
    encoder: int
    layers: int
    width: int
    heads: int


def state_bytes(sizes: Sizes, parallel: ParallelSettings, ranks: int) -> dict[str, int]:
    """Of one rank, by part, without activations."""
    each, stage = BYTES[parallel.precision], parallel.stage(ranks)

    def sharded(number: int, from_stage: int) -> int:
        return number // ranks if stage >= from_stage else number

    masters = 0 if parallel.precision == "fp32" and stage == 0 else 4 * sizes.trained
    return {
        "weights": sharded(each * sizes.trained, 3),
        "gradients": sharded(each * sizes.trained, 2),
        "masters": sharded(masters, 1),
        "AdamW": sharded(8 * sizes.trained, 1),
        "average": sharded(4 * sizes.followed, 1),
        "target": sharded(each * sizes.followed, 3),
    }


def activation_bytes(config: RunConfig, sizes: Sizes, derived: Derived) -> int:
    """About, at most: with all sentences as long as model.max_tokens."""
    tokens, each = config.model.max_tokens, BYTES[config.parallel.precision]
    a_token = sizes.layers * (17 * sizes.width * each + 5 * sizes.heads * tokens * each // 2)
    return VIEWS * derived.at_once * tokens * a_token


def checkpoint_bytes(sizes: Sizes) -> int:
    return 12 * sizes.trained + 4 * sizes.followed


def disk_bytes(config: RunConfig, sizes: Sizes, derived: Derived) -> int:
    """Of a run's folder at most: the newest checkpoints, the best one's, the one that is being written, best/ and final/ (and
    one that replaces the other), a line a step of metrics.jsonl."""
    kept = min(config.checkpoint.keep + 2, derived.checkpoints + 1)
    lines = derived.steps // config.track.every + derived.evaluations
    return kept * checkpoint_bytes(sizes) + 3 * 4 * sizes.encoder + 400 * lines
