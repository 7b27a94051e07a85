"""Checkpoints that know nothing of ranks, ZeRO stages or precision.

    checkpoints/step-00000500/
        rank-00000.safetensors ...   "master/online.…@0" etc.: parts of flattened fp32 tensors, by name and start
        buffers.safetensors          the objective's state, whole
        manifest.json                step, counters, digests of the files; its presence makes the folder valid

Kinds: master, exp_avg, exp_avg_sq (Adam), ema (the target). Every part is written once, by the rank that holds it
(by one of them where several do), and read back by name and range, so any layout can read what any other wrote.
deepspeed's own checkpoints lose the frozen target and all buffers but rank 0's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unsee_dist.model.target import Target
from unsee_dist.parallel.engine import Engine
from unsee_dist.parallel.process import together

MANIFEST = "manifest.json"
ADAM = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Part:
    """`tensor` is elements start..start+len of the flattened `kind` of parameter `name`; a view that may be written."""

    kind: str
    name: str
    start: int
    tensor: Tensor


def parts(engine: Engine, target: Target | None) -> Iterator[Part]:
    """All training state of this rank that belongs to parameters."""
    for shard in engine.shards:
        yield Part("master", shard.name, shard.start, shard.master)
        for kind, moment in zip(ADAM, engine.moments(shard), strict=True):
            yield Part(kind, shard.name, shard.start, moment)
    if target is not None:
        for shard, ema in zip(target.shards, target.ema, strict=True):
            yield Part("ema", shard.name, shard.start, ema)


def save(folder: Path, engine: Engine, target: Target | None, facts: dict[str, Any]) -> None:
    """Write `folder` (…/step-XXXXXXXX) by all ranks. It appears whole, under its name, or not at all.

    facts: what the manifest keeps beside the files (step, counters, identity of the run). Collective.
    """
    world = engine.world
    growing = folder.with_name(f".{folder.name}.growing")
    if world.rank == 0:
        shutil.rmtree(growing, ignore_errors=True)
        growing.mkdir(parents=True)
    _barrier(world.size)
    mine = {
        f"{part.kind}/{part.name}@{part.start}": part.tensor.detach().cpu().contiguous()
        for place, part in enumerate(parts(engine, target))
        if engine.stage > 0 or place % world.size == world.rank
    }
    files = {f"rank-{world.rank:05d}.safetensors": mine}
    if world.rank == 0:
        files["buffers.safetensors"] = _buffers(engine.module)
    digests = [_write(growing / name, tensors) for name, tensors in files.items()]
    gathered: list[list[dict[str, Any]]] = [digests] * world.size
    if world.size > 1:
        dist.all_gather_object(gathered, digests)
    if world.rank == 0:
        manifest = facts | {"adam_updates": engine.updates(), "files": [d for each in gathered for d in each]}
        _write_text(growing / MANIFEST, json.dumps(manifest, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(growing, folder)
        _sync_folder(folder.parent)
    _barrier(world.size)


def load(folder: Path, engine: Engine, target: Target | None) -> None:
    """Fill engine and target from a folder that `read_manifest` accepted. Collective at its end."""
    manifest = json.loads((folder / MANIFEST).read_text())
    with together(engine.world):
        stored = Stored(folder, manifest)
        for part in parts(engine, target):
            stored.fill(part)
        buffers = load_file(folder / "buffers.safetensors")
        for name, buffer in engine.module.objective.named_buffers():
            buffer.copy_(buffers[name])
    engine.set_updates(manifest["adam_updates"])
    engine.refresh()
    if target is not None:
        target.publish()


class Stored:
    """Random access to the parts of a checkpoint, whatever layout wrote it."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.ranges: dict[tuple[str, str], list[tuple[int, int, Any, str]]] = defaultdict(list)
        for file in manifest["files"]:
            if file["name"].startswith("rank-"):
                opened = safe_open(folder / file["name"], framework="pt")
                for key in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                    kind, _, rest = key.partition("/")
                    name, _, start = rest.rpartition("@")
                    length = opened.get_slice(key).get_shape()[0]
                    self.ranges[kind, name].append((int(start), int(start) + length, opened, key))

    def fill(self, part: Part) -> None:
        """Copy the stored elements of the part's range into its tensor. ValueError when some are not there."""
        first, last = part.start, part.start + len(part.tensor)
        filled = 0
        for start, stop, opened, key in self.ranges.get((part.kind, part.name), ()):
            low, high = max(first, start), min(last, stop)
            if low < high:
                part.tensor[low - first : high - first] = opened.get_slice(key)[low - start : high - start]
                filled += high - low
        if filled != len(part.tensor):
            raise ValueError(
                f"{self.folder} holds {filled} of {len(part.tensor)} elements of {part.kind} {part.name}: it belongs to "
                "another encoder or projector. Give this run a run.dir of its own."
            )


def newest(checkpoints: Path) -> Path | None:
    """The newest folder that a save completed, verified; None when there is no checkpoint at all.

    Raises ValueError when there are checkpoints and none is valid: starting from scratch would be silent.
    """
    wrong = []
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        try:
            read_manifest(folder)
        except ValueError as error:
            wrong.append(str(error))
        else:
            return folder
    if wrong:
        raise ValueError(
            "No valid checkpoint: " + "; ".join(wrong) + ". Restore one, or give the run a new run.dir."
        )
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all there with the bytes that were written; else ValueError."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read ({error})") from error
    for file in manifest["files"]:
        path = folder / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise ValueError(f"{path} is missing or has another size than the {file['bytes']} bytes written")
        if _digest(path) != file["xxh3"]:
            raise ValueError(f"{path} has changed since it was written (checksum)")
    return manifest


def retain(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and what an interrupted save left. On rank 0, after a save."""
    for folder in sorted(checkpoints.glob("step-*"))[:-keep]:
        shutil.rmtree(folder)
    for left in checkpoints.glob(".step-*.growing"):
        shutil.rmtree(left)


def full_weights(engine: Engine, prefix: str) -> dict[str, Tensor]:
    """The whole fp32 masters under `prefix` (a submodule's name) on rank 0's CPU, {} elsewhere. Collective.

    Names are the submodule's own.
    """
    module = engine.module.get_submodule(prefix)
    shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in module.named_parameters()}
    mine = [
        (shard.name.removeprefix(f"{prefix}."), shard.start, shard.master.cpu())
        for shard in engine.shards
        if shard.name.startswith(f"{prefix}.")
    ]
    collected: list[Any] = [mine] * engine.world.size if engine.world.rank == 0 else []
    if engine.world.size > 1 and engine.stage > 0:
        received: list[Any] | None = [None] * engine.world.size if engine.world.rank == 0 else None
        dist.gather_object(mine, received, dst=0)
        collected = received or []
    whole = {name: torch.empty(shape.numel()) for name, shape in shapes.items()} if collected else {}
    for each in collected:
        for name, start, values in each:
            whole[name][start : start + len(values)] = values
    return {name: values.view(shapes[name]) for name, values in whole.items()}


def _buffers(module: Any) -> dict[str, Tensor]:
    """The objective's state: the only buffers that training moves."""
    return {name: buffer.detach().cpu().contiguous() for name, buffer in module.objective.named_buffers()}


def _write(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"name": path.name, "bytes": path.stat().st_size, "xxh3": _digest(path)}


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _barrier(size: int) -> None:
    if size > 1:
        dist.barrier()
