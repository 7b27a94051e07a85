"""Settings that another setting makes meaningless: typed over it, they are a mistake and not taken in silence.

What stands under the other setting is no mistake: `target.decay` of a preset below `target.kind=online` of the command
line. `target.decay=0.99` typed over a preset without a target network is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from unsee_dist.config.layers import COMMAND_LINE, Layer
from unsee_dist.config.mistakes import Mistake
from unsee_dist.config.section import Section
from unsee_dist.config.sections import RunConfig


class Unused(NamedTuple):
    """Keys that mean nothing while `holds`, which the setting `by` decides, and what to write to use them."""

    keys: tuple[str, ...]
    by: str
    holds: Callable[[RunConfig], bool]
    instead: str


UNUSED = (
    Unused(
        ("target.decay", "target.schedule"),
        "target.kind",
        lambda config: config.target.kind == "online",
        "leave it out, or use it with target.kind=ema",
    ),
    Unused(
        ("projector.blocks", "projector.width"),
        "projector.kind",
        lambda config: config.projector.kind == "tanh",
        "leave it out, or use it with projector.kind=blocks",
    ),
    Unused(
        ("projector.width", "projector.side", "train.projector_first"),
        "projector.blocks",
        lambda config: config.projector.kind == "blocks" and config.projector.blocks == 0,
        "leave it out, or use it with projector.blocks=1",
    ),
    Unused(
        ("data.shards",),
        "data.mix",
        lambda config: config.data.mix is not None,
        "name the folder in data.mix, or use it with data.mix=null",
    ),
    Unused(
        ("data.crop_tokens", "data.crop_distance"),
        "data.views",
        lambda config: config.data.views == "dropout",
        "leave it out, or use it with data.views=crop",
    ),
    Unused(
        ("train.epochs",),
        "train.steps",
        lambda config: config.train.steps is not None,
        "write the number of steps alone, or use it with train.steps=null",
    ),
)


def unused(config: RunConfig, layers: Sequence[Layer]) -> list[Mistake]:
    """The settings in a later layer than the one that makes them meaningless, or beside it in one layer.

    Beside it in a file with every section they are none: such a file (a run's config.yaml) states every setting.
    """
    stated = {key: number for number, layer in enumerate(layers) for key in layer}
    mistakes = []
    for rule in UNUSED:
        for key in rule.keys if rule.holds(config) else ():
            mine, other = stated.get(key, -1), stated.get(rule.by, -1)  # -1: the default
            if mine < max(other, 0):
                continue
            value, where = layers[mine][key]
            if value is not None and (mine > other or where == COMMAND_LINE or not _states_all(layers[mine])):
                why = f"has no effect with {rule.by} = {_value(config, rule.by)}"
                mistakes.append(Mistake(key, value, where, why, rule.instead))
    return mistakes


def _value(config: RunConfig, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _states_all(layer: Layer) -> bool:
    """Of a run, or of the runs of a sweep, whose trials give `run` its keys."""
    sections = {name for name, field in RunConfig.model_fields.items() if isinstance(field.default, Section)}
    return {key.partition(".")[0] for key in layer} >= sections - {"run"}


def under(variant: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides of a user with those of a variant on top, without what the variant makes meaningless.

    A bench varies settings beside the user's: `projector.width=4` says nothing of its SimCSE.
    """
    changed = {key for key, _, value in (text.partition("=") for text in variant) if value != "null"}
    meaningless = {key for rule in UNUSED if rule.by in changed for key in rule.keys}
    return [*(text for text in overrides if text.partition("=")[0] not in meaningless), *variant]
