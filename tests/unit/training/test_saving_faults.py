"""What the system refuses while a checkpoint is saved: which error ends the run, and what its sentence claims."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_manifest import IDENTITY

from unsee_dist.errors import TransientError, UserError
from unsee_dist.files import atomic
from unsee_dist.training.checkpoint import directory, saving
from unsee_dist.training.checkpoint.manifest import CheckpointInfo
from unsee_dist.training.progress import Progress

NOT_WRITTEN, COMPLETE = "The checkpoint could not be written", "is complete, but"
KINDS = [
    (errno.ENOSPC, UserError),
    (errno.EROFS, UserError),
    (errno.EIO, TransientError),
    (errno.ENOENT, FileNotFoundError),
    (errno.EISDIR, IsADirectoryError),
]


def save(folder: Path) -> None:
    """All of a save, by one rank."""
    tensors = {"a": {"weight": torch.ones(3)}}
    job = saving.SaveJob(folder, tensors, CheckpointInfo(IDENTITY, Progress()), 1, None, 2)
    new = saving._begin(job, 1)
    saving._publish(new, job, (saving._write(new / "a.safetensors", tensors["a"]),))


def refusing(number: int) -> Callable[..., None]:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize(("number", "kind"), KINDS)
@pytest.mark.parametrize(
    ("function", "claim"),
    [
        ((atomic, "begin_folder"), NOT_WRITTEN),
        ((saving, "save_file"), NOT_WRITTEN),
        ((atomic, "write_file"), NOT_WRITTEN),
        ((atomic, "sync_tree"), NOT_WRITTEN),
        ((atomic, "finish_folder"), "are written, but it cannot get its name"),
        ((directory, "write_pointer"), COMPLETE),
        ((directory, "remove_old"), COMPLETE),
    ],
)
def test_a_refusal_says_what_is_lost(
    tmp_path: Path, monkeypatch, function: tuple[object, str], claim: str, number: int, kind: type[Exception]
) -> None:
    folder = tmp_path / "checkpoints" / "step-00000000"
    monkeypatch.setattr(*function, refusing(number))
    with pytest.raises(kind) as met:
        save(folder)
    if kind in (UserError, TransientError):
        assert claim in str(met.value)
        assert (NOT_WRITTEN in str(met.value)) is (claim == NOT_WRITTEN)
    assert folder.exists() is (claim == COMPLETE)


def test_a_folder_that_has_gone_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"os error 2|No such file") as met:
        saving._write(tmp_path / "gone" / "a.safetensors", {"weight": torch.ones(3)})
    assert not isinstance(met.value, UserError)
