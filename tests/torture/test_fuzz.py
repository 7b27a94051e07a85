"""A little of `make torture`'s files that nobody wrote, in every parser; and readers that must be found out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest
from fuzz import Parser
from parsers import PARSERS

from unsee_dist.errors import UserError
from unsee_dist.files.trees import sealed

SECONDS = 0.6  # of a parser in `make test`


@pytest.mark.parametrize("name", PARSERS)
def test_a_changed_file_is_refused_by_name_or_means_the_same(tmp_path: Path, name: str) -> None:
    tally = fuzz.fuzz(PARSERS[name], SECONDS, 0, tmp_path)
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.tried == tally.refused + tally.same + tally.other
    assert tally.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_a_minute_of_changed_files(tmp_path: Path, name: str) -> None:
    """The same files on every machine, as far as its speed takes it; `make torture` tries others each time."""
    tally = fuzz.fuzz(PARSERS[name], 60, 1, tmp_path)
    print(f"{name}: {tally.tried:,} files tried, {tally.refused:,} refused")
    assert not tally.wrong, "\n".join(tally.wrong)


def make(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps(sealed({"score": 71.5, "count": 12, "name": "a"})))


def tree_of(folder: Path) -> dict[str, object]:
    path = folder / "x.json"
    try:
        tree = json.loads(path.read_bytes())
        return {"score": float(tree["score"]), "count": int(tree["count"]), "name": str(tree["name"])}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged") from error


def believes_the_digest(folder: Path) -> object:
    return tree_of(folder)


def forgets_a_key(folder: Path) -> object:
    tree = json.loads((folder / "x.json").read_text(encoding="utf-8", errors="replace"))
    return tree["score"] + tree["count"]


def names_no_file(folder: Path) -> object:
    try:
        return tree_of(folder)
    except UserError as error:
        raise UserError("a file is damaged") from error


def believes_a_length(folder: Path) -> object:
    return bytes(min(abs(int(str(tree_of(folder)["count"]))), 1 << 40))


def counts_to_a_number(folder: Path) -> object:
    until, end = time.monotonic() + 60, int(str(tree_of(folder)["count"]))
    count = 0
    while count < end and time.monotonic() < until:
        count += 1
    return count


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (believes_the_digest, "another meaning, without a word"),
        (forgets_a_key, "Error"),
        (names_no_file, "the sentence names no file"),
        (believes_a_length, "MemoryError"),
        (counts_to_a_number, "Overtime"),
    ],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], found: str
) -> None:
    monkeypatch.setattr(fuzz, "CASE_S", 0.5)
    parser = Parser("planted", make, ("x.json",), read, seal=make)
    tally = fuzz.fuzz(parser, 20, 3, tmp_path, cases=600)
    assert any(found in wrong for wrong in tally.wrong), tally
