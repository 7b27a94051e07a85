"""`unsee config check` and `unsee train --dry-run`: what a run reads, what follows from it, and what it will need.

One report for both; the dry run also tries some steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee_dist.cli.check import check_all
from unsee_dist.config import RunConfig
from unsee_dist.config.kinds import flat, shown
from unsee_dist.config.sections import DataSettings
from unsee_dist.files.remote import is_remote
from unsee_dist.files.room import free_bytes
from unsee_dist.masking import masked
from unsee_dist.supervision.signals import OF_A_LAUNCHER

if TYPE_CHECKING:
    from unsee_dist.forecast.derived import Derived
    from unsee_dist.forecast.memory import Sizes
    from unsee_dist.forecast.probe import Probe

GIB = 2**30
NOT_MEASURED = "what ranks send to each other, and how fast other machines are: a short run on them shows it"
NOT_PROBED = "seconds and peak memory: unsee train CONFIG --dry-run tries some steps"
RunPlan = dict[str, Any]


def make_plan(config: RunConfig, ranks: int, with_probe: bool) -> RunPlan:
    """All of it as a tree. UserError with a line for every mistake."""
    right, unchecked = check_all(config, ranks)
    plan: RunPlan = {"ranks": ranks, "settings": _beside_defaults(config), "checked": right}
    sentences = _sentences(config)
    if sentences is None:
        plan["not_checked"] = [*unchecked, "steps, memory and disk: they need the corpus"]
        return plan
    from unsee_dist.forecast.derived import advice, derive

    derived = derive(config, sentences, ranks)
    plan |= {"derived": asdict(derived), "advice": list(advice(config, derived))}
    if not any(line.startswith("model.encoder") for line in right):
        plan["not_checked"] = [*unchecked, "memory and disk: they need the encoder"]
        return plan
    tried = _probe(config, derived) if with_probe else None
    plan |= _needs(config, derived, tried.sizes if tried else _sizes(config), tried)
    plan["not_checked"] = [*unchecked, NOT_MEASURED if tried else NOT_PROBED]
    return plan


def _beside_defaults(config: RunConfig) -> dict[str, str]:
    """The settings that are not the defaults."""
    defaults = flat(RunConfig())
    return {
        key: masked(shown(value))
        for key, value in flat(config).items()
        if key not in defaults or defaults[key] != value
    }


def _sentences(config: RunConfig) -> int | None:
    """Of the corpus; None where it is not here."""
    value = config.data.mix or config.data.shards
    if is_remote(value) or (value == DataSettings().shards and not Path(value).exists()):
        return None
    from unsee_dist.data import open_corpus

    return open_corpus(config.data).sentences


def _sizes(config: RunConfig) -> Sizes:
    from unsee_dist.distributed.world import World
    from unsee_dist.forecast.probe import sizes_of
    from unsee_dist.inputs import assemble
    from unsee_dist.model.checked import load_checked

    return sizes_of(assemble(load_checked(config.model).encoder, config, World.alone()))


def _probe(config: RunConfig, derived: Derived) -> Probe:
    for name in OF_A_LAUNCHER:
        os.environ.pop(name, None)  # the other ranks do not come: this one tries its part alone
    from unsee_dist.forecast.probe import probe

    return probe(config, derived)


def _needs(config: RunConfig, derived: Derived, sizes: Sizes, tried: Probe | None) -> RunPlan:
    from unsee_dist.forecast import memory

    state = memory.state_bytes(sizes, config.parallel, derived.ranks)
    activations = memory.activation_bytes(config, sizes, derived)
    disk, free = memory.disk_bytes(config, sizes, derived), free_bytes(Path(config.run.dir))
    needs: RunPlan = {
        "memory_bytes": {**state, "activations": activations, "all": sum(state.values()) + activations},
        "disk_bytes": {"checkpoint": memory.checkpoint_bytes(sizes), "run": disk, "free": free},
    }
    if disk > free:
        needs["warning"] = (
            f"run.dir = {config.run.dir} needs about {_size(disk)}, and {_size(free)} are free: make room, or lower "
            "checkpoint.keep"
        )
    if tried is not None:
        whole_s = derived.steps * tried.step_s + derived.evaluations * tried.evaluation_s
        needs["time_s"] = {"step": tried.step_s, "evaluation": tried.evaluation_s, "run": whole_s}
        needs["probe"] = {"device": tried.device, "peak_bytes": tried.peak}
    return needs


def as_lines(plan: RunPlan) -> Iterator[str]:
    """The plan for people."""
    changed = ", ".join(f"{key}={value}" for key, value in plan["settings"].items())
    yield f"  settings beside the defaults: {changed or 'none'}"
    for line in plan["checked"]:
        yield f"  {line}"
    if "derived" in plan:
        yield from _derived_lines(plan["derived"])
    if "memory_bytes" in plan:
        yield from _need_lines(plan)
    for line in plan.get("advice", []):
        yield f"  note: {line}"
    if "warning" in plan:
        yield f"  warning: {plan['warning']}"
    for line in plan["not_checked"]:
        yield f"  not checked: {line}"


def _derived_lines(derived: dict[str, Any]) -> Iterator[str]:
    ranks, part = derived["ranks"], derived["batch_a_rank"]
    at_once = f", {derived['at_once']} at once" if derived["at_once"] < part else ""
    yield f"  steps: {derived['steps']:,}, {derived['epochs']:.3g} passes over the corpus; {derived['warmup']:,} of them warm up"
    yield f"  batch a rank: {part} sentences on {ranks} rank{'s' * (ranks != 1)}{at_once}"
    yield f"  evaluations: {derived['evaluations']}, checkpoints: {derived['checkpoints']}"


def _need_lines(plan: RunPlan) -> Iterator[str]:
    from unsee_dist.tracking.console import clock

    parts, disk = plan["memory_bytes"], plan["disk_bytes"]
    named = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if name != "all" and size)
    yield f"  memory a rank, by formula: {_size(parts['all'])} ({named})"
    if "probe" in plan:
        tried, seconds = plan["probe"], plan["time_s"]
        yield f"  memory of this process, tried on {tried['device']}: {_size(tried['peak_bytes'])} at its peak"
        yield (
            f"  time on {tried['device']}: {seconds['step']:.3g} s a step, {seconds['evaluation']:.3g} s an evaluation, "
            f"{clock(seconds['run'])} in all, without what ranks send"
        )
    yield f"  disk: {_size(disk['run'])} at most ({_size(disk['checkpoint'])} a checkpoint), {_size(disk['free'])} free"


def _size(number: int) -> str:
    return f"{number / GIB:,.1f} GiB" if number >= GIB else f"{number / 2**20:.0f} MiB"
