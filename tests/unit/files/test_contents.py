"""A folder that is replaced loses only what we wrote, and every file has the mode that the umask gives."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from unsee_dist.errors import UserError, writing
from unsee_dist.files import contents
from unsee_dist.files.atomic import atomic_folder, recover_folder, write_file
from unsee_dist.files.room import require_room


def fill(folder: Path, owner: str = "a run") -> None:
    with atomic_folder(folder, owner) as new:
        (new / "1_Pooling").mkdir()
        for name in ("README.md", "model.safetensors", "1_Pooling/config.json"):
            (new / name).write_text(f"ours: {name}")
            (new / name).chmod(0o600)  # as safetensors does


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in contents.files_of(folder)}


OURS = {"README.md", "model.safetensors", "1_Pooling/config.json", contents.RECORD}


def test_a_folder_of_ours_is_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    fill(tmp_path / "best")
    fill(tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert files(tmp_path / "best") == OURS
    assert contents.made_of(tmp_path / "best") == "a run"
    assert contents.foreign(tmp_path / "best") == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "onnx/model.onnx", "README.md", ".hidden", "1_Pooling/config.json"]
)
def test_a_file_that_was_added_or_edited_is_kept_beside_the_new_folder(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best"
    fill(best)
    (best / name).parent.mkdir(exist_ok=True)
    (best / name).write_text("mine")
    assert contents.foreign(best) == [name]
    fill(best)
    assert files(best) == OURS
    assert files(tmp_path / "best.kept-1") == {name}
    assert (tmp_path / "best.kept-1" / name).read_text() == "mine"
    assert "best.kept-1" in capsys.readouterr().err


def test_a_folder_that_we_never_wrote_is_kept_whole_also_after_a_kill(tmp_path: Path) -> None:
    best = tmp_path / "best"
    for name in ("a.txt", "sub/b.txt"):
        (best / name).parent.mkdir(parents=True, exist_ok=True)
        (best / name).write_text("mine")
    (best / "link").symlink_to("nowhere")
    best.rename(tmp_path / ".best.old")  # where a kill between the two renames leaves it
    fill(tmp_path / "other")
    (tmp_path / "other").rename(best)
    recover_folder(best)
    assert files(best) == OURS
    assert files(tmp_path / "best.kept-1") == {"a.txt", "sub/b.txt", "link"}
    assert not (tmp_path / ".best.old").exists()


@pytest.mark.parametrize(
    "record", [b"", b"\0", b"[1]", b'{"files": 3}', b"[" * 10_000, b'{"files": {"a": 1}}']
)
def test_a_record_that_says_nothing_gives_nothing_away(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / contents.RECORD).write_bytes(record)
    assert contents.foreign(tmp_path) == ["a"]
    assert contents.made_of(tmp_path) is None


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        fill(tmp_path / "best")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in contents.files_of(tmp_path / "best")}
    assert modes == {0o666 & ~umask}


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*config.yaml'"):
            write_file(tmp_path / "config.yaml", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # of tokenizers
        RuntimeError("[Errno 28] No space left on device"),
    ],
)
def test_a_librarys_words_for_a_full_disk_are_a_sentence(error: Exception) -> None:
    sentence = r"^best cannot be written \(No space left on device\)\. Make room"
    with pytest.raises(UserError, match=sentence), writing("best"):
        raise error


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_place_of_a_folder_is_called_so(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"^best cannot be written \(there is a file\)\. "), writing("best"):
        (tmp_path / "taken" / below).mkdir(parents=True, exist_ok=True)


def test_room_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    require_room(tmp_path / "a" / "b", 1, "A checkpoint", "Make room.")
    with pytest.raises(
        UserError, match=r"A checkpoint of about .* MiB does not fit on the disk of .*b: .*Make room"
    ):
        require_room(tmp_path / "a" / "b", 1 << 60, "A checkpoint", "Make room.")


def test_large_weights_that_were_trained_on_are_the_users(tmp_path: Path) -> None:
    """In place, of the same size: what a fine-tuning by another program leaves."""
    weights = tmp_path / "model.safetensors"
    generator = np.random.default_rng(0)
    values = generator.standard_normal(1 << 20)
    weights.write_bytes(values.tobytes())
    contents.write_contents(tmp_path, "")
    assert contents.foreign(tmp_path) == []
    weights.write_bytes((values + 1e-6 * generator.standard_normal(values.size)).tobytes())
    assert contents.foreign(tmp_path) == ["model.safetensors"]
