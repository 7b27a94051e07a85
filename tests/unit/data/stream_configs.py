"""Configurations of a stream, by the settings that it reads."""

from __future__ import annotations

from unsee_dist.config.sections import DataSettings, ModelSettings, RunConfig, TrainSettings


def stream_config(
    *,
    seed: int,
    batch: int,
    max_tokens: int,
    micro_batch: int | None = None,
    pack: bool = True,
    workers: int = 0,
) -> RunConfig:
    return RunConfig(
        seed=seed,
        train=TrainSettings(batch=batch, micro_batch=micro_batch),
        model=ModelSettings(max_tokens=max_tokens),
        data=DataSettings(pack=pack, workers=workers),
    )
