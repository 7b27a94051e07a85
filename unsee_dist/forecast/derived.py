"""What follows from the settings, the corpus and the number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee_dist.config.sections import RunConfig, every_steps
from unsee_dist.tracking.eta import pauses
from unsee_dist.training.schedule import rising_steps, total_steps

FEW = 16  # sentences a rank: a rule of thumb; a GPU is then mostly idle, and a step mostly communication
WARM_ENOUGH = 10  # steps


@dataclass(frozen=True)
class Derived:
    """at_once: sentences that are encoded at once on a rank. warmup: steps. evaluations: with that before training."""

    ranks: int
    steps: int
    epochs: float
    batch_a_rank: int
    at_once: int
    warmup: int
    evaluations: int
    checkpoints: int


def derive(config: RunConfig, sentences: int, ranks: int) -> Derived:
    """sentences: of the corpus. UserError: train.batch cannot be split over so many ranks."""
    steps, train = total_steps(config.train, sentences), config.train
    part = train.part(ranks)
    return Derived(
        ranks=ranks,
        steps=steps,
        epochs=steps * train.batch / sentences,
        batch_a_rank=part,
        at_once=min(part, train.micro_batch or part),
        warmup=rising_steps(steps, train.warmup),
        evaluations=1 + pauses(1, steps, every_steps(config.evaluate.every, steps)),
        checkpoints=pauses(1, steps, every_steps(config.checkpoint.every, steps)),
    )


def advice(config: RunConfig, derived: Derived) -> Iterator[str]:
    """Sentences about what is legal and will hardly be meant."""
    ranks, part = derived.ranks, derived.batch_a_rank
    if ranks > 1 and part < FEW:
        fewer = max(1, config.train.batch // FEW)
        yield (
            f"{ranks} ranks get {part} sentence{'s' * (part != 1)} each: less than {FEW}, so that ranks mostly wait for each "
            f"other (a rule of thumb). Use {fewer} rank{'s' * (fewer != 1)}, or train.batch={FEW * ranks}, which is another run: its "
            "train.lr and its objective's weights are to be tuned again"
        )
    if config.train.warmup and derived.warmup < WARM_ENOUGH <= derived.steps // 2:
        yield f"train.warmup = {config.train.warmup:g} is {derived.warmup} of {derived.steps} steps: hardly a warmup"
    if not (config.evaluate.sts or config.evaluate.retrieval):
        yield "no evaluate.sts and no evaluate.retrieval: there will be no score and no best/. `unsee prepare --dev 1000` makes one"
