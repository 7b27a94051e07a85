"""A folder: each file below it is read, or left out, counted and named with the reason."""

from __future__ import annotations

import builtins
import errno
import gzip
import io
import json
import os
import re
import stat
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from unit.data.tars import tar_of

from unsee_dist.data import Shards
from unsee_dist.data.prepare import folders
from unsee_dist.data.prepare.folders import files_below
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.prepare.sources import resolve
from unsee_dist.errors import TransientError, UserError

TEXT = b"The first line has five words.\nThe second line has as many.\n"
ROWS = b'{"text": "A row of JSON has words."}\n{"text": "Another row has them, too."}\n'


def a_parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["A cell has three words."]}), sink)
    return sink.getvalue()


READ = {
    "a.txt": TEXT,
    "UPPER.TXT": TEXT,
    "b.jsonl": ROWS,
    "b.ndjson": ROWS,
    "b.jsonlines": ROWS,
    "b.jl": ROWS,
    "b.json": ROWS,
    "b.json.gz": gzip.compress(ROWS),
    "b.jl.zst": zstandard.compress(ROWS),
    "c4-train.00000-of-00512.json.gz": gzip.compress(ROWS),
    "part-00000": TEXT,
    "part-00001": ROWS,
    "part-00002": gzip.compress(ROWS),
    "part-00003": zstandard.compress(TEXT),
    "part-00004": a_parquet(),
    "part-00005": tar_of([("a.txt", TEXT)]),
    "part-00006.gz": gzip.compress(ROWS),
    "wiki.001": ROWS,
    "xaa": TEXT,
    "sub/deep/d.csv": b"text\nA value of some words\n",
}
LEFT_OUT = {
    "notes.md": (b"# Notes for people", ".md is not a format"),
    "model.bin": (b"\0\1\2", ".bin is not a format"),
    "old.zip": (b"PK\3\4", ".zip is not a format"),
    "old.tar.gz": (gzip.compress(tar_of([("a.txt", TEXT)])), "compressed tar"),
    "empty.txt": (b"", "empty"),
    "part-blank": (b"\n \n", "empty"),
    "part-binary": (bytes(range(256)), "not UTF-8 text"),
    "README": (b"Read this before all the others.", "about the others"),
    "LICENSE": (b"You may do with it what you want.", "about the others"),
    "_SUCCESS": (b"Written by a cluster that is done.", "about the others"),
    "info.json": (json.dumps({"a": 1, "b": [2]}, indent=1).encode(), "one JSON value"),
    "list.json": (json.dumps([{"text": "one two three"}]).encode(), "one JSON value"),
    "part-9": (b"{'text': 'one two three'}\n" * 2, "most of its lines are records"),
    "config.json": (b'{"version": 3}\n', "no field 'text'"),
    "words.json": (b"no JSON at all\n", "not JSON"),
    ".hidden.txt": (TEXT, "a hidden file"),
    ".ipynb_checkpoints/a.txt": (TEXT, "a hidden folder"),
    "inner/preparing/run.txt": (TEXT, "a corpus of `unsee prepare`"),
}


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def found(folder: Path, field: str | None = "text") -> tuple[set[str], dict[str, str]]:
    """What is read, and why the rest is left out."""
    reasons: dict[str, str] = {}
    names = resolve([str(folder)], field, reasons.__setitem__)
    return {os.path.relpath(name, folder) for name in names}, {
        os.path.relpath(name, folder.name): why for name, why in reasons.items()
    }


@pytest.mark.parametrize("name", READ)
def test_what_is_read(tmp_path: Path, name: str) -> None:
    """No line of it becomes a sentence as JSON."""
    write(tmp_path / "in", name, READ[name])
    assert found(tmp_path / "in") == ({name}, {})
    report = prepare([str(tmp_path / "in")], tmp_path / "out", PrepareSettings(), processes=1)
    sentences = Shards(tmp_path / "out").head(9)
    assert report.kept == report.read == len(sentences)
    assert not any(sentence.startswith("{") for sentence in sentences)
    named = prepare([str(tmp_path / "in" / name)], tmp_path / "named", PrepareSettings(), processes=1)
    assert named.fingerprint == report.fingerprint


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out(tmp_path: Path, name: str) -> None:
    data, why = LEFT_OUT[name]
    write(tmp_path / "in", "a.txt", TEXT)
    write(tmp_path / "in", name, data)
    read, reasons = found(tmp_path / "in")
    assert read == {"a.txt"}
    ((path, reason),) = reasons.items()
    assert name.startswith(path)
    assert why in reason


def test_all_is_counted_in_the_table_and_in_the_index(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.txt", TEXT)
    for name, (data, _) in LEFT_OUT.items():
        write(tmp_path / "in", name, data)
    for _ in range(2):  # the second time from the index
        report = prepare([str(tmp_path / "in")], tmp_path / "out", PrepareSettings(), processes=1)
        assert sum(each.files for each in report.left_out.values()) == len(LEFT_OUT)
        assert "files left out" in report.table().columns[0]._cells
        assert report.read == 2
    index = json.loads((tmp_path / "out" / "index.json").read_bytes())
    kept = [path for each in index["preparation"]["left_out"].values() for path in each["first"]]
    assert len(kept) == len(LEFT_OUT)
    assert all(path.startswith("in/") for path in kept)  # not where this machine has it
    notices = "\n".join(report.notices())
    assert all(path in notices for path in ("in/README", "in/.ipynb_checkpoints", "in/notes.md"))


def test_links_pipes_and_loops(tmp_path: Path) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    write(folder, "a.txt", TEXT)
    write(far, "deep/b.txt", TEXT)
    os.symlink(far, folder / "link")
    os.symlink(folder, folder / "link-to-itself")
    os.symlink(far / "deep" / "b.txt", folder / "file-link.txt")
    os.symlink(tmp_path / "nothing", folder / "dangling.txt")
    os.symlink("round.txt", folder / "round.txt")
    os.mkfifo(folder / "pipe.txt")
    read, reasons = found(folder)
    assert read == {"a.txt", "link/deep/b.txt", "file-link.txt"}
    assert reasons.keys() == {"link-to-itself", "dangling.txt", "round.txt", "pipe.txt"}
    assert "link to a folder that is read already" in reasons["link-to-itself"]
    assert "link to nothing" in reasons["dangling.txt"]
    assert "a pipe" in reasons["pipe.txt"]


def test_what_may_not_be_read() -> None:
    """As a user who is not root."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        folder = Path(place) / "in"
        write(folder, "a.txt", TEXT)
        write(folder, "closed/b.txt", TEXT)
        write(folder, "secret.txt", TEXT)
        Path(place).chmod(0o755)
        (folder / "secret.txt").chmod(0)
        (folder / "closed").chmod(0)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            read, reasons = found(folder)
            with pytest.raises(UserError, match=r"closed cannot be listed \(Permission denied\)"):
                resolve([str(folder / "closed")])
        finally:
            if was_root:
                os.seteuid(0)
            (folder / "closed").chmod(stat.S_IRWXU)
    assert read == {"a.txt"}
    assert reasons == {
        "closed": "it cannot be listed (Permission denied)",
        "secret.txt": "it cannot be read (Permission denied)",
    }


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize(
    ("call", "where"),
    [
        *(("stat", place) for place in ("", "/deep", "/deep/b.txt")),
        *(("scandir", place) for place in ("", "/deep")),
        ("open", "/deep/b.txt"),
    ],
)
def test_nothing_is_left_out_for_a_fault_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, where: str
) -> None:
    folder = tmp_path / "in"
    write(folder, "a.txt", TEXT)
    write(folder, "deep/b.txt", TEXT)
    room = builtins if call == "open" else os
    real = getattr(room, call)

    def failing(path, *arguments, **named):
        if str(path) == f"{folder}{where}":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, *_, **__: not str(path).endswith("b.txt"))
        patch.setattr(room, call, failing)
        with pytest.raises(TransientError, match=re.escape(os.strerror(number))):
            files_below(str(folder), None, lambda *_: None)


def test_a_link_that_cannot_be_followed_for_a_while_is_not_left_out() -> None:
    class Link:
        path = "in/link"

        def is_dir(self) -> bool:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(TransientError, match="in/link cannot be read"):
        folders._is_folder(Link())


def test_a_damaged_file_whose_name_says_nothing_stops(tmp_path: Path) -> None:
    write(tmp_path / "in", "part-00000.gz", gzip.compress(TEXT * 99)[:-20])
    with pytest.raises(UserError, match=r"part-00000.gz ends in the middle"):
        prepare([str(tmp_path / "in")], tmp_path / "out", PrepareSettings(), processes=1)


def test_a_folder_of_nothing_to_read_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path / "in", "notes.md", b"# Notes")
    with pytest.raises(
        UserError, match=r"in is a folder without a file to read. It has .*notes.md \(.md is not"
    ):
        resolve([str(tmp_path / "in")])


def test_a_glob_leaves_out_what_is_no_file(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt/d.txt"):
        write(tmp_path, name, TEXT)
    os.mkfifo(tmp_path / "e.txt")
    reasons: dict[str, str] = {}
    names = resolve([f"{tmp_path}/*.txt"], "text", reasons.__setitem__)
    assert names == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert reasons == {"c.txt": "a folder", "e.txt": "a pipe, a socket or a device"}


def test_one_json_value_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    write(tmp_path, "x.json", json.dumps([{"text": "one two three"}]).encode())
    with pytest.raises(UserError, match=r"x.json is one JSON value, not an object a line. Write `jq -c"):
        prepare([str(tmp_path / "x.json")], tmp_path / "out", PrepareSettings(), processes=1)
