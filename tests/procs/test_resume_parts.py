"""A resume reads each file of a checkpoint once to verify it, in parallel, and then only what each rank needs.

Each rank works in a folder of its own with a copy of the checkpoint, so that the files which it opens can be counted.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from oracle import Case, facts, running
from processes import run
from procs.opened import counting
from safetensors import safe_open
from safetensors.torch import save_file
from test_checkpoint import assert_equal, save, state

from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.training.checkpoint import directory, resume
from unsee_dist.training.checkpoint import state as states
from unsee_dist.training.checkpoint.manifest import Manifest, StoredFile, read_manifest
from unsee_dist.training.checkpoint.parts import BUFFERS, digest, listed

CASE = Case("corinfomax", both=True)
STEP = "step-00000002"
RUN = Path("run")


class Seen(NamedTuple):
    """What a rank did. slices: kind, name, start and stop of what it holds (at stage 0: reads)."""

    verified: Counter[str]
    loaded: Counter[str]
    bytes: int
    slices: list[tuple[str, str, int, int]]


def saved(rank: int, size: int, folder: Path, stages: tuple[int, ...]) -> None:
    for stage in stages:
        ours = running(CASE, rank, size, stage)
        for step in (1, 2):
            ours.train_step(step)
        place = folder / f"stage-{stage}"
        save(ours, place / "run" / "checkpoints" / STEP, 2)
        whole = state(ours)
        if rank == 0:
            torch.save(whole, place / "whole.pt")


class Spied:
    """A safetensors file whose values are counted."""

    def __init__(self, file: Any, read: list[int]) -> None:
        self.file, self.read = file, read

    def get_slice(self, key: str) -> Spied:
        return Spied(self.file.get_slice(key), self.read)

    def get_tensor(self, key: str) -> torch.Tensor:
        return self.file.get_tensor(key)

    def keys(self) -> Any:
        return self.file.keys()

    def __getitem__(self, index: slice) -> torch.Tensor:
        values = self.file[index]
        self.read.append(values.numel() * values.element_size())
        return values


def resumed(rank: int, size: int, folder: Path) -> list[Seen]:
    """At each stage."""
    return [_resumed(rank, size, folder / f"stage-{stage}", stage) for stage in range(4)]


def _resumed(rank: int, size: int, folder: Path, stage: int) -> Seen:
    """In a copy of its own; the state is compared with the one that was saved."""
    ours, read = running(CASE, rank, size, stage), list[int]()
    ours.train_step(9)  # dirt that the load must remove
    os.chdir(folder / f"rank-{rank}")
    place = RUN / "checkpoints" / STEP
    with counting(place) as verified:
        found = resume.find_checkpoint(ours.engine.world, RUN, "auto")
    assert found == (place, True)
    opening = states.open_tensors
    with (
        counting(place) as loaded,
        mock.patch.object(states, "open_tensors", lambda *given: Spied(opening(*given), read)),
    ):
        resume.restore(place, ours.engine, ours.target)
    assert_equal(state(ours), torch.load(folder / "whole.pt"), (stage, size))
    slices = [(s.kind, s.name, s.start, s.stop) for s in states.own_slices(ours.engine, ours.target)]
    return Seen(verified, loaded, sum(read), slices)


def copies(folder: Path, ranks: int) -> None:
    for rank in range(ranks):
        shutil.copytree(folder / "run", folder / f"rank-{rank}" / "run")


def holders(place: Path) -> dict[str, list[tuple[str, str, int, int]]]:
    """File -> parts, out of the files themselves."""
    found = {}
    for path in place.glob("rank-*.safetensors"):
        file = safe_open(path, "np")
        kinds = [(key.partition("/")[0], *key.partition("/")[2].rsplit("@", 1), key) for key in file.keys()]  # noqa: SIM118  (no dict)
        found[path.name] = [
            (kind, name, int(start), int(start) + file.get_slice(key).get_shape()[0])
            for kind, name, start, key in kinds
        ]
    return found


def overlap(wanted: tuple[str, str, int, int], stored: tuple[str, str, int, int]) -> bool:
    return wanted[:2] == stored[:2] and wanted[2] < stored[3] and stored[2] < wanted[3]


@pytest.mark.parametrize(("wrote", "reads"), [(1, 3), (3, 2), (2, 2)])
def test_a_rank_opens_and_reads_what_it_needs(tmp_path: Path, wrote: int, reads: int) -> None:
    run(saved, wrote, tmp_path, (0, 1, 2, 3), timeout_s=300)
    for stage in range(4):
        copies(tmp_path / f"stage-{stage}", reads)
    of_ranks: list[list[Seen]] = run(resumed, reads, tmp_path, timeout_s=300)
    for stage, ranks in enumerate(zip(*of_ranks, strict=True)):
        check(tmp_path / f"stage-{stage}" / "run" / "checkpoints" / STEP, ranks, same=wrote == reads)


def check(place: Path, ranks: Sequence[Seen], same: bool) -> None:
    """same: as many ranks as have written."""
    stored = {file.name for file in read_manifest(place).files}

    verified = Counter(name for seen in ranks for name in seen.verified if name in stored)
    assert verified == dict.fromkeys(stored, 1), "each file is verified by one rank"
    assert [rank for rank, seen in enumerate(ranks) if seen.verified["manifest.json"]] == [0]

    parts = holders(place)
    for rank, seen in enumerate(ranks):
        needed = {
            name for name, held in parts.items() if any(overlap(w, h) for w in seen.slices for h in held)
        }
        own = {BUFFERS, "manifest.json"} if rank == 0 else set()
        assert set(seen.loaded) == needed | own, rank
        assert all(seen.loaded[name] == 1 for name in needed), seen.loaded
        assert seen.bytes == sum(4 * (stop - start) for _, _, start, stop in seen.slices)
    elements = sum(stop - start for held in parts.values() for _, _, start, stop in held)
    assert sum(seen.bytes for seen in ranks) == 4 * elements, "every element is read once in all"
    if same:
        assert [set(seen.loaded) - {BUFFERS, "manifest.json"} for seen in ranks] == [
            {f"rank-{rank:05d}.safetensors"} for rank in range(len(ranks))
        ]


def a_wrong_range(rank: int, size: int, folder: Path, stage: int) -> bool:
    """Each part is read with its elements one place on. Whether the state is the saved one all the same."""
    ours = running(CASE, rank, size, stage)
    place = folder / "run" / "checkpoints" / STEP

    class Off(Spied):
        def get_slice(self, key: str) -> Off:
            return Off(self.file.get_slice(key), self.read)

        def __getitem__(self, index: slice) -> torch.Tensor:
            return self.file[index].roll(1)

    opening = states.open_tensors
    with mock.patch.object(states, "open_tensors", lambda *given: Off(opening(*given), [])):
        resume.restore(place, ours.engine, ours.target)
    found, expected = state(ours), torch.load(folder / "whole.pt")
    return all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_wrong_range_is_seen(tmp_path: Path) -> None:
    """The control of the comparison above."""
    run(saved, 2, tmp_path, (1,))
    assert run(a_wrong_range, 2, tmp_path / "stage-1", 1) == [False, False]


def said(rank: int, size: int, runs: list[Path]) -> list[str]:
    """What this rank is told of each run that cannot be continued, or where it continues."""
    sentences, world = [], World(rank, size, rank, torch.device("cpu"))
    for folder in runs:
        try:
            sentences.append(str(resume.find_checkpoint(world, folder, "auto")[0]))
        except UserError as error:
            sentences.append(str(error))
    return sentences


def a_flipped_bit(place: Path) -> str:
    path = place / "rank-00001.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    return f"{path} has changed since it was written (checksum)"


def a_missing_file(place: Path) -> str:
    (place / "rank-00002.safetensors").unlink()
    return f"{place / 'rank-00002.safetensors'} cannot be read (No such file or directory)"


def a_shorter_file(place: Path) -> str:
    path = place / BUFFERS
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path} has {path.stat().st_size} bytes"


def edited(place: Path, change: Callable[[Manifest], Manifest]) -> None:
    (place / "manifest.json").write_text(change(read_manifest(place)).to_json())


def first_part(manifest: Manifest, name: str, change: Callable[[str], str]) -> Manifest:
    def edit(file: StoredFile) -> StoredFile:
        return replace(file, parts=(change(file.parts[0]), *file.parts[1:])) if file.name == name else file

    return replace(manifest, files=tuple(map(edit, manifest.files)))


def a_range_of_another_file(place: Path) -> str:
    """The list says that two files hold what the other one does; every element is still listed once."""
    names = ["rank-00000.safetensors", "rank-00001.safetensors"]

    def change(manifest: Manifest) -> Manifest:
        by_name = {file.name: file for file in manifest.files}
        swapped = dict(zip(names, reversed([by_name[name].parts for name in names]), strict=True))
        return replace(
            manifest, files=tuple(replace(f, parts=swapped.get(f.name, f.parts)) for f in manifest.files)
        )

    edited(place, change)
    return f"{place / names[0]} is damaged: "


def a_longer_range(place: Path) -> str:
    def longer(part: str) -> str:
        start, _, length = part.rpartition("+")
        return f"{start}+{int(length) + 1}"

    edited(place, lambda manifest: first_part(manifest, "rank-00002.safetensors", longer))
    return f"{place / 'rank-00002.safetensors'} is damaged: "


DAMAGES = (a_flipped_bit, a_missing_file, a_shorter_file, a_range_of_another_file, a_longer_range)


def test_a_damaged_part_is_refused_by_name_on_every_rank(tmp_path: Path) -> None:
    """And an older checkpoint that is whole serves all ranks."""
    run(saved, 3, tmp_path, (2,))
    whole = tmp_path / "stage-2" / "run"
    runs = [Path(shutil.copytree(whole, tmp_path / damage.__name__)) for damage in DAMAGES]
    why = [damage(folder / "checkpoints" / STEP) for damage, folder in zip(DAMAGES, runs, strict=True)]
    with_older = Path(shutil.copytree(runs[0], tmp_path / "older"))
    older = Path(shutil.copytree(whole / "checkpoints" / STEP, with_older / "checkpoints" / "step-00000001"))
    edited(older, lambda manifest: replace(manifest, progress=facts(1).progress, adam_updates=1))
    first, second = run(said, 2, [*runs, with_older, whole])
    assert first == second
    assert first[-2:] == [str(older), str(whole / "checkpoints" / STEP)]
    for folder, reason, sentence in zip(runs, why, first, strict=False):
        assert f"No valid checkpoint in {folder / 'checkpoints'}: " in sentence
        assert reason in sentence


def on_few_descriptors(rank: int, size: int, folder: Path) -> float:
    """One rank loads what many wrote, with few descriptors."""
    assert (rank, size) == (0, 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    manifest = directory.verify(folder, values=True)
    flat = torch.empty(100)
    states.CheckpointReader(folder, manifest).fill([states.StateSlice("master", "a", 50, flat)])
    return float(flat.sum())


def test_a_checkpoint_of_more_files_than_descriptors_is_read(tmp_path: Path) -> None:
    stored, folder = [], tmp_path / STEP
    folder.mkdir()
    for rank in range(200):
        tensors = {f"{kind}/a@{rank}": torch.full((1,), rank) for kind in ("master", "exp_avg", "exp_avg_sq")}
        path = folder / f"rank-{rank:05d}.safetensors"
        save_file({key: value.float() for key, value in tensors.items()}, path)
        stored.append(
            StoredFile(path.name, path.stat().st_size, digest(path), listed(dict.fromkeys(tensors, 1)))
        )
    path = folder / BUFFERS
    save_file({"x": torch.zeros(1)}, path)
    stored.append(StoredFile(path.name, path.stat().st_size, digest(path)))
    checkpoint = facts(2)
    manifest = Manifest(checkpoint.identity, checkpoint.progress, None, 2, None, tuple(stored))
    (folder / "manifest.json").write_text(manifest.to_json())
    assert run(on_few_descriptors, 1, folder) == [sum(range(50, 150))]
