"""best/ and final/: the online encoder in folders that sentence-transformers loads, written while a run trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed as dist

from unsee_dist.config import RunConfig
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World
from unsee_dist.files.atomic import atomic_folder, recover_folder
from unsee_dist.files.contents import owner_name
from unsee_dist.model.unsee import Unsee
from unsee_dist.publish.sentence_transformers import point_to, write_encoder
from unsee_dist.tracking.note import EXPORTS, note_of, write_note
from unsee_dist.training.checkpoint.state import full_weights
from unsee_dist.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def exporter(
    config: RunConfig, engine: Engine[Unsee], tokenizer: PreTrainedTokenizerFast, progress: Progress
) -> Callable[[str], None]:
    """A function that writes the online encoder to a folder of the run, by its name, with what its last evaluation says.
    Collective, as its calls are."""
    # a group of its own: a save may be gathering in the background meanwhile
    group = dist.new_group(backend="gloo") if engine.world.size > 1 else None

    def export(name: str) -> None:
        weights = full_weights(engine, "online", group)
        with share_errors(engine.world, group):
            if engine.world.rank == 0:
                place = Path(config.run.dir) / name
                with atomic_folder(place, owner_name(place.parent)) as new:
                    write_encoder(
                        new, weights, engine.module.online.config, tokenizer,
                        config.model.pooling, config.model.max_tokens,
                    )  # fmt: skip
                    write_note(new, note_of(name, progress.step, progress.scores))
                point_to_export(place.parent)

    return export


def recover_exports(folder: Path, world: World) -> None:
    """Finish the replacement of best/ and final/ where a kill interrupted it. Collective."""
    with share_errors(world):
        if world.rank == 0:
            for name in EXPORTS:
                recover_folder(folder / name)
            point_to_export(folder)


def point_to_export(folder: Path) -> None:
    """Let `SentenceTransformer(folder)` load the run's best/, else its final/."""
    for name in EXPORTS:
        if (folder / name).is_dir():
            return point_to(folder, name)
    return None
