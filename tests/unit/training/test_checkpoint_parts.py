"""A checkpoint that was edited and sealed again: every element once, in fp32, finite; and its own regular files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_manifest import IDENTITY

from unsee_dist.errors import UserError
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import NAME, Manifest, StoredFile
from unsee_dist.training.checkpoint.parts import digest, listed
from unsee_dist.training.progress import Progress

FIRST, SECOND, BUFFERS = "rank-00000.safetensors", "rank-00001.safetensors", "buffers.safetensors"
Tensors = dict[str, np.ndarray]


def part(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.float32)


def write(folder: Path) -> None:
    """Two ranks with half of one parameter each, and a whole one of rank 0."""
    kinds = ("master", "exp_avg", "exp_avg_sq", "ema")
    save_file(
        {f"{kind}/a.w@0": part(0, 6) for kind in kinds} | {f"{kind}/b@0": part(0, 3) for kind in kinds},
        folder / FIRST,
    )
    save_file({f"{kind}/a.w@6": part(6, 10) for kind in kinds}, folder / SECOND)
    save_file({"mean": part(0, 2)}, folder / BUFFERS)
    seal(folder)


def seal(folder: Path, *more: str) -> None:
    """A manifest of the files as they are."""
    stored = []
    for name in (FIRST, SECOND, BUFFERS, *more):
        path = folder / name
        if path.is_file():
            lengths = {key: value.size for key, value in load_file(path).items()} if name != BUFFERS else {}
            stored.append(StoredFile(name, path.stat().st_size, digest(path), listed(lengths)))
        elif path.exists():
            stored.append(StoredFile(name, 0, "00"))
    manifest = Manifest(IDENTITY, Progress(step=3, updates=3), None, 3, None, tuple(stored))
    (folder / NAME).write_text(manifest.to_json())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-00000003"
    folder.mkdir()
    write(folder)
    directory.verify(folder, values=True)
    return folder


def half_twice(tensors: Tensors) -> None:
    """The right number of elements: three of them twice, and the last three missing."""
    tensors["master/b@0"] = part(0, 2)
    tensors["master/a.w@3"] = part(3, 6)
    tensors["master/a.w@0"] = part(0, 6)


def twice(tensors: Tensors) -> None:
    tensors["master/a.w@4"] = part(4, 6)


def missing(tensors: Tensors) -> None:
    tensors["ema/a.w@0"] = part(0, 5)


def no_beginning(tensors: Tensors) -> None:
    tensors["exp_avg/b@1"] = tensors.pop("exp_avg/b@0")[1:]


def no_moment(tensors: Tensors) -> None:
    del tensors["exp_avg_sq/b@0"]


def short_moment(tensors: Tensors) -> None:
    tensors["exp_avg/b@0"] = part(0, 2)


def target_of_nothing(tensors: Tensors) -> None:
    tensors["ema/c@0"] = part(0, 2)


def integers(tensors: Tensors) -> None:
    tensors["master/b@0"] = np.arange(3, dtype=np.int32)


def doubles(tensors: Tensors) -> None:
    tensors["master/b@0"] = np.arange(3, dtype=np.float64)


def a_square_of_weights(tensors: Tensors) -> None:
    tensors["master/b@0"] = np.zeros((3, 1), dtype=np.float32)


def another_kind(tensors: Tensors) -> None:
    tensors["velocity/b@0"] = part(0, 3)


def a_negative_start(tensors: Tensors) -> None:
    tensors["master/b@-3"] = part(0, 3)


def no_start(tensors: Tensors) -> None:
    tensors["master/b"] = part(0, 3)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (half_twice, "is there twice"),
        (twice, "element 4 of master a.w is there twice"),
        (missing, "element 5 of ema a.w is there not at all"),
        (no_beginning, "element 0 of exp_avg b is there not at all"),
        (no_moment, "exp_avg_sq is not of the same parameters"),
        (short_moment, "exp_avg is not of the same parameters"),
        (target_of_nothing, "the target is not of the same parameters"),
        (integers, "master/b@0 is not a part of a parameter in fp32"),
        (doubles, "master/b@0 is not a part of a parameter in fp32"),
        (a_square_of_weights, "master/b@0 is not a part of a parameter in fp32"),
        (another_kind, "velocity/b@0 is not a part"),
        (a_negative_start, "master/b@-3 is not a part"),
        (no_start, "master/b is not a part"),
    ],
)
def test_every_element_is_there_once_in_fp32(
    checkpoint: Path, edit: Callable[[Tensors], None], why: str
) -> None:
    tensors = load_file(checkpoint / FIRST)
    edit(tensors)
    save_file(tensors, checkpoint / FIRST)
    seal(checkpoint)
    with pytest.raises(UserError, match=rf"step-00000003.* is damaged: .*{why}"):
        directory.verify(checkpoint)


@pytest.mark.parametrize(
    ("key", "value"),
    [("master/b@0", np.nan), ("ema/b@0", np.inf), ("exp_avg/b@0", -np.inf), ("exp_avg_sq/b@0", -1.0)],
)
def test_every_number_is_one_that_training_can_have_written(checkpoint: Path, key: str, value: float) -> None:
    tensors = load_file(checkpoint / FIRST)
    tensors[key][1] = value
    save_file(tensors, checkpoint / FIRST)
    seal(checkpoint)
    with pytest.raises(
        UserError, match=rf"{key.split('/')[0]} of b has values that are not finite, or squares"
    ):
        directory.verify(checkpoint, values=True)


def test_the_state_of_the_objective_is_not_left_out_of_the_list(checkpoint: Path) -> None:
    (checkpoint / BUFFERS).rename(checkpoint / "away")
    seal(checkpoint)
    with pytest.raises(UserError, match=f"it has no {BUFFERS}"):
        directory.verify(checkpoint)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_out(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    save_file({"x": part(0, 1)}, other)
    path.symlink_to(other)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_pipe, a_device, a_link_out, a_folder])
def test_only_regular_files_of_the_folder_are_read(checkpoint: Path, make: Callable[[Path], None]) -> None:
    name = "rank-00002.safetensors"
    make(checkpoint / name)
    seal(checkpoint, name)
    with pytest.raises(UserError, match=rf"{name} (is not a regular file|is a link to)"):
        directory.verify(checkpoint)
