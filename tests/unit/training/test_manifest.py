"""A checkpoint's manifest: every field comes back, and another version's is refused by its version."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from unsee_dist.distributed.loss_scale import LossScale
from unsee_dist.errors import UserError
from unsee_dist.files import trees
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import (
    FORMAT,
    NAME,
    Identity,
    Manifest,
    OtherFormat,
    StoredFile,
    read_manifest,
)
from unsee_dist.training.guard import GuardState
from unsee_dist.training.progress import Best, Progress

IDENTITY = Identity(
    {"seed": 7, "train.lr": 1e-4, "model.dropout": None, "objective.normalise": False, "target.kind": "ema"},
    *("bert, 2 layers, aa", "45 pieces, bb", "a" * 32, "absent", "9 questions, cc", "version 2"),
)
PROGRESS = Progress(
    started=2,
    step=9,
    updates=8,
    passed_over=1,
    evaluated=6,
    best=Best("dev/sts", 70.25, 6, {"dev/sts": 70.25, "dev/mrr": math.inf}),
    before={"dev/sts": 60.0},
    scores={"dev/sts": 70.0},
    waited=1,
    lines=12,
    guard=GuardState(1, 2, 3, 4, 5.5, 6.5, 7),
)
MANIFEST = Manifest(
    IDENTITY, PROGRESS, "run-1", 8, LossScale(1024.0, 7), (StoredFile("rank-00000.safetensors", 10, "ff"),)
)


def written(folder: Path, tree: dict[str, object], reseal: bool = True) -> Path:
    tree.pop("digest", None)
    digest = {"digest": trees.digest(tree)} if reseal else {}
    (folder / NAME).write_text(json.dumps(tree | digest))
    return folder


def test_every_field_is_read_back(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(MANIFEST.to_json())
    assert read_manifest(tmp_path) == MANIFEST


def test_progress_takes_every_field_and_shares_none() -> None:
    """The law behind it: no default is left, so a field that is not restored is seen here."""
    fresh = Progress()
    for each in fields(Progress):
        assert getattr(PROGRESS, each.name) != getattr(fresh, each.name), (
            f"give {each.name} a value of its own"
        )
    fresh.restore(PROGRESS)
    assert fresh == PROGRESS
    fresh.guard.spikes += 1
    fresh.before["dev/sts"] = 0.0
    assert fresh.guard != PROGRESS.guard
    assert PROGRESS.before == {"dev/sts": 60.0}


def test_steps_that_are_passed_over_are_counted_and_skipped() -> None:
    progress = Progress(step=3, updates=3)
    progress.pass_over(6)
    assert (progress.step, progress.updates, progress.passed_over, progress.skipped) == (6, 3, 3, 3)
    progress.pass_over(8)
    assert progress.passed_over == 5


def test_a_nan_among_the_scores_survives(tmp_path: Path) -> None:
    progress = Progress(step=8, updates=8, before={"dev/sts": math.nan})
    (tmp_path / NAME).write_text(replace(MANIFEST, progress=progress).to_json())
    assert math.isnan(read_manifest(tmp_path).progress.before["dev/sts"])


def edited(path: tuple[str | int, ...], value: object) -> Any:
    """The manifest with one other value."""
    tree = place = json.loads(MANIFEST.to_json())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return tree


@pytest.mark.parametrize(("version", "named"), [(FORMAT + 1, str(FORMAT + 1)), ("2", "'2'"), (None, "None")])
def test_an_unknown_format_is_refused_by_its_number(tmp_path: Path, version: object, named: str) -> None:
    tree = json.loads(MANIFEST.to_json())
    tree["format"] = version
    with pytest.raises(UserError, match=f"has format {named}, .* reads format {FORMAT}"):
        read_manifest(written(tmp_path, tree))


def test_a_checkpoint_of_another_order_is_refused_and_says_so(tmp_path: Path) -> None:
    """Format 4 did not keep which order it was: its run would silently read other sentences."""
    tree = json.loads(MANIFEST.to_json())
    del tree["identity"]["order"]
    tree["format"] = 4
    with pytest.raises(OtherFormat, match=r"has format 4, .* the sentences come in another order"):
        read_manifest(written(tmp_path, tree))


def test_the_version_before_is_refused_by_its_number(tmp_path: Path) -> None:
    old = {"step": 3, "encoder": "bert", "files": [], "facts_xxh3": "00"}
    (tmp_path / NAME).write_text(json.dumps(old))
    with pytest.raises(UserError, match=f"has format 1, .* reads format {FORMAT}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("progress", "step"), 7.5),
        (("progress", "step"), "9"),
        (("progress", "guard", "spikes"), None),
        (("identity", "corpus"), 7),
        (("identity", "settings"), ["seed"]),
        (("files",), [{"name": "x"}]),
        (("adam_updates",), True),
        (("unknown",), 1),
        (("progress", "best", "step"), 6.5),
        (("progress", "guard", "seen"), 4.5),
        (("loss_scale", "steady"), 7.5),
        (("files",), [{"name": "x", "bytes": 1.5, "xxh3": "ff"}]),
    ],
)
def test_a_field_of_another_type_is_named_although_the_digest_was_made_anew(
    tmp_path: Path, path: tuple[str, ...], value: object
) -> None:
    tree = edited(path, value)
    with pytest.raises(UserError, match=path[-1]):
        read_manifest(written(tmp_path, tree))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("progress", "step"), -9),
        (("progress", "step"), 1 << 60),
        (("progress", "step"), 7),  # updates are more
        (("progress", "started"), 10),
        (("progress", "lines"), -1),
        (("progress", "lines"), 31),
        (("progress", "updates"), 10),
        (("progress", "updates"), -1),
        (("progress", "passed_over"), 10),
        (("progress", "evaluated"), -2),
        (("progress", "evaluated"), 10),
        (("progress", "best", "step"), 10),
        (("progress", "best", "value"), math.nan),
        (("progress", "best", "value"), 70.0),  # its own score is another
        (("progress", "best", "value"), 1e300),
        (("progress", "best", "metric"), "dev/mrr"),
        (("progress", "best", "metric"), "../../x"),
        (("progress", "best", "scores"), {"dev/sts": 99.0}),
        (
            ("progress", "best"),
            {"metric": "dev/sts", "value": 101.0, "step": 6, "scores": {"dev/sts": 101.0}},
        ),
        (("progress", "best"), {"metric": "dev/mrr", "value": 1.5, "step": 6, "scores": {"dev/mrr": 1.5}}),
        (("progress", "updates"), 0),  # the optimizer's own count is another
        (("adam_updates",), 0),
        (("progress", "guard", "spikes"), -1),
        (("progress", "guard", "mean"), math.inf),
        (("progress", "guard", "variance"), -1.0),
        (("adam_updates",), -1),
        (("adam_updates",), 10),
        (("loss_scale", "value"), 0.0),
        (("loss_scale", "value"), math.nan),
        (("loss_scale", "steady"), -1),
        (("files", 0, "name"), "../rank-00000.safetensors"),
        (("files", 0, "name"), "/dev/zero"),
        (("files", 0, "name"), ""),
        (("files", 0, "bytes"), -1),
        (("files", 0, "xxh3"), ""),
    ],
)
def test_a_value_that_no_run_has_written_is_refused_although_the_digest_was_made_anew(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    tree = edited(path, value)
    with pytest.raises(
        UserError,
        match=rf"{NAME} cannot be read \((adam_updates|{path[0]}.*) has a value that no run can have",
    ):
        read_manifest(written(tmp_path, tree))


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    tree = json.loads(MANIFEST.to_json())
    tree["files"] *= 2
    with pytest.raises(UserError, match="files has a value"):
        read_manifest(written(tmp_path, tree))


@pytest.mark.parametrize("text", ["", "[" * 10_000, "[]", "7", "{", '{"format": 2}', "null"])
def test_what_is_no_manifest_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=NAME):
        read_manifest(tmp_path)


def test_another_run_that_begins_here_has_its_own_scores_and_counts() -> None:
    begun = Progress()
    begun.restore(PROGRESS)
    begun.begin_here()
    assert begun == Progress(started=9, step=9, updates=8, passed_over=1)


def test_a_whole_checkpoint_of_another_version_is_neither_passed_over_nor_removed(tmp_path: Path) -> None:
    """A downgrade must not continue from an older one and then delete the newer as damaged."""
    for step, version in ((4, FORMAT), (8, FORMAT + 1)):
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        written(folder, json.loads(MANIFEST.to_json()) | {"format": version})
    with pytest.raises(OtherFormat, match=f"step-00000008.* has format {FORMAT + 1}"):
        directory.newest_valid(tmp_path, read_manifest)
    flipped = json.loads((tmp_path / "step-00000008" / NAME).read_text()) | {"adam_updates": 9}
    (tmp_path / "step-00000008" / NAME).write_text(json.dumps(flipped))  # damage, whatever the version
    assert directory.newest_valid(tmp_path, read_manifest)[0] == tmp_path / "step-00000004"
