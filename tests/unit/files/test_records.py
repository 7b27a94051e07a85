"""A record is read as what was written, or refused by the name of its file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unsee_dist.errors import TransientError, UserError
from unsee_dist.files import records
from unsee_dist.files.records import RecordFile
from unsee_dist.files.trees import sealed


@dataclass(frozen=True)
class Score:
    step: int
    value: float | None
    name: str = ""
    more: tuple[float, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)


FILE = RecordFile("score.json", Score, version=3, remedy="Delete it.")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    score = Score(3, 0.5, "ä\n\u2028", (1.0, 2.5), {"dev/sts": None})
    FILE.write(tmp_path, score)
    assert FILE.read(tmp_path) == score
    assert json.loads((tmp_path / "score.json").read_bytes())["format"] == 3
    assert FILE.read(tmp_path / "elsewhere") is None


GOOD = {"format": 3, "step": 3, "value": 0.5}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 40,
        b"\xff\xfe",
        b'{"format": 3, "step": 3',
        b"[3]",
        b"null",
        b'{"format": 3, "step": 3, "value": NaN}',
        b'{"format": 3, "step": 3, "value": 1e999}',
        b"[" * 100_000,
        *(
            json.dumps(sealed(GOOD | wrong)).encode()
            for wrong in (
                {"step": "3"},
                {"step": 3.5},
                {"step": None},
                {"value": "0.5"},
                {"value": [0.5]},
                {"name": 7},
                {"more": ["a"]},
                {"scores": {"dev/sts": "high"}},
                {"unknown": 1},
            )
        ),
        json.dumps(sealed({"format": 3, "value": 0.5})).encode(),
        json.dumps(GOOD).encode(),
        json.dumps(sealed(GOOD) | {"value": 0.6}).encode(),
        json.dumps(sealed(GOOD) | {"digest": 7}).encode(),
        json.dumps(sealed(GOOD) | {"value": "x"}).replace('"x"', "1" * 5000).encode(),
    ],
)
def test_a_damaged_file_is_a_sentence_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "score.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        FILE.read(tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith("). Delete it.")
    assert path.read_bytes() == content  # nothing is lost


@pytest.mark.parametrize("version", [2, 4, "3", None])
def test_another_format_is_refused_by_its_version(tmp_path: Path, version: object) -> None:
    (tmp_path / "score.json").write_text(json.dumps(GOOD | {"format": version}))
    with pytest.raises(UserError, match=rf"score.json has format {version}, .* reads format 3"):
        FILE.read(tmp_path)


def test_a_file_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BYTES", 10)
    FILE.write(tmp_path, Score(3, 0.5))
    with pytest.raises(UserError, match="is larger than"):
        FILE.read(tmp_path)


def test_a_number_that_was_not_measured_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        FILE.write(tmp_path, Score(3, math.nan))
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "score.json")
    with pytest.raises(
        UserError, match=r"score.json cannot be read \(It is not a regular file\). Delete it."
    ):
        FILE.read(tmp_path)


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "score.json").mkdir()
    with pytest.raises(UserError, match=r"score.json cannot be written \(Is a directory\)"):
        FILE.write(tmp_path, Score(3, 0.5))
    assert not isinstance(TransientError("x"), UserError)
