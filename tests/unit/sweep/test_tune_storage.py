"""A copy of Tune's state over the old one: whole, or not there."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pyarrow.fs
import pytest

from unsee_dist.sweep import tune_storage
from unsee_dist.sweep.tune_storage import whole_files

NAME = "experiment_state-1.json"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    staged, kept = tmp_path / "staged", tmp_path / "kept"
    for folder, text in ((staged, "new" * 1000), (kept, "old")):
        folder.mkdir()
        (folder / NAME).write_text(text)
    return staged, kept


def copy(folders: tuple[Path, Path]) -> None:
    """As Tune does."""
    staged, kept = folders
    pyarrow.fs.copy_files(str(staged), str(kept), destination_filesystem=whole_files())


def test_a_copy_takes_the_place_of_the_old_file(folders: tuple[Path, Path]) -> None:
    staged, kept = folders
    (staged / "empty").write_bytes(b"")
    copy(folders)
    assert {path.name: path.read_text() for path in kept.iterdir()} == {NAME: "new" * 1000, "empty": ""}


def test_on_a_full_disk_the_old_file_stays(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    copy(folders)
    assert [(path.name, path.read_text()) for path in folders[1].iterdir()] == [(NAME, "old")]


def test_a_copy_that_breaks_off_changes_nothing(folders: tuple[Path, Path]) -> None:
    path = folders[1] / NAME
    stream = whole_files().open_output_stream(str(path))
    stream.write(b"ne")
    del stream
    assert path.read_text() == "old"
    with path.open(
        "wb"
    ) as stock:  # the control: what a copy of pyarrow's own file system does at this moment
        stock.write(b"ne")
        assert path.read_text() != "old"


def test_it_goes_to_the_processes_of_a_cluster_and_reads_as_before(folders: tuple[Path, Path]) -> None:
    storage = pickle.loads(pickle.dumps(whole_files()))
    with storage.open_input_stream(str(folders[1] / NAME)) as file:
        assert file.read() == b"old"
    with storage.open_output_stream(str(folders[1] / NAME)) as file:
        assert file.write(b"new") == 3
        assert file.tell() == 3
        file.flush()
    assert (folders[1] / NAME).read_bytes() == b"new"
    assert isinstance(storage.handler.fs, tune_storage._WholeFiles)
