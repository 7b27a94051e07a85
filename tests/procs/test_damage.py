"""Law 4 for checkpoints: whatever happens to one, the run continues from a whole one or says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from integration.disks import small_disk
from oracle import Case, Running, facts, running
from processes import run
from safetensors.torch import load_file, save_file
from torch import Tensor

from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.files import atomic, contents
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import StoredFile, read_manifest
from unsee_dist.training.checkpoint.parts import digest, listed
from unsee_dist.training.checkpoint.resume import find_checkpoint
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.checkpoint.state import load

FILES = ("rank-00000.safetensors", "rank-00001.safetensors", "buffers.safetensors", "manifest.json")


def save(saver: Saver, ours: Running, folder: Path, step: int) -> None:
    """A checkpoint of the step, with the optimizer's own count of updates."""
    place = folder / "checkpoints" / f"step-{step:08d}"
    saver.save(place, ours.engine, ours.target, facts(step, ours.engine.updates()), keep=2)


def two_checkpoints(rank: int, size: int, folder: Path) -> None:
    ours = running(Case("corinfomax"), rank, size, 1)
    saver = Saver(ours.engine.world, background=True)
    for step in (1, 2):
        ours.train_step(step)
        save(saver, ours, folder, step)
    saver.wait()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    run(two_checkpoints, 2, folder)
    return folder


@pytest.fixture
def a_run(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "run"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) * 2 // 3] ^= 1
    path.write_bytes(damaged)


def unreadable(path: Path) -> None:
    """A folder in the file's place: root reads files whatever their mode says."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, unreadable])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    a_run: Path, file: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = directory.folders(a_run / "checkpoints")
    damage(second / file)
    assert find_checkpoint(World.alone(), a_run, "auto") == (first, True)
    assert str(second / file) in capsys.readouterr().err
    damage(first / file)
    with pytest.raises(ValueError, match=r"No valid checkpoint") as failure:
        find_checkpoint(World.alone(), a_run, "auto")
    assert str(first / file) in str(failure.value)
    assert str(second / file) in str(failure.value)


def edited_and_sealed_again(rank: int, size: int, folder: Path, copies: Path) -> list[str]:
    """What loading says of a checkpoint whose files all have the digests of the list."""
    ours, sentences = running(Case("corinfomax"), rank, size, 1), []
    for edit in (a_master_of_nan, a_negative_square, a_parameter_less, a_shorter_parameter, other_state):
        place = Path(shutil.copytree(folder, copies / edit.__name__))
        seal_again(place, edit)
        with pytest.raises(ValueError, match=place.name) as failure:
            load(place, directory.verify(place), ours.engine, ours.target)
        sentences.append(str(failure.value))
    return sentences


def seal_again(place: Path, edit: Callable[[dict[str, Tensor], dict[str, Tensor]], None]) -> None:
    """The checkpoint in one file a kind, edited."""
    manifest = read_manifest(place)
    ranks = [file.name for file in manifest.files if file.name != FILES[2]]
    tensors = {}
    for name in ranks:
        for key, value in load_file(place / name).items():
            tensors[key] = value
    state = load_file(place / FILES[2])
    edit(tensors, state)
    save_file(tensors, place / FILES[0])
    save_file(state, place / FILES[2])
    stored = tuple(
        StoredFile(name, (place / name).stat().st_size, digest(place / name), listed(lengths))
        for name, lengths in ((FILES[0], {k: v.numel() for k, v in tensors.items()}), (FILES[2], {}))
    )
    (place / "manifest.json").write_text(replace(manifest, files=stored).to_json())


def a_master_of_nan(tensors: dict[str, Tensor], _: object) -> None:
    next(value for key, value in tensors.items() if key.startswith("master/"))[0] = float("nan")


def a_negative_square(tensors: dict[str, Tensor], _: object) -> None:
    next(value for key, value in tensors.items() if key.startswith("exp_avg_sq/"))[0] = -1.0


def a_parameter_less(tensors: dict[str, Tensor], _: object) -> None:
    name = next(key for key in tensors if key.startswith("master/")).partition("/")[2].partition("@")[0]
    for key in [key for key in tensors if key.partition("/")[2].partition("@")[0] == name]:
        del tensors[key]


def a_shorter_parameter(tensors: dict[str, Tensor], _: object) -> None:
    last = max(
        (key for key in tensors if key.startswith("master/")), key=lambda key: int(key.partition("@")[2])
    )
    for kind in ("master", "exp_avg", "exp_avg_sq", "ema"):
        key = last.replace("master", kind, 1)
        tensors[key] = tensors[key][:-1].clone()


def other_state(_: object, state: dict[str, Tensor]) -> None:
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = state[name].half()


def test_a_checkpoint_that_was_edited_and_sealed_again_is_not_loaded(written: Path, tmp_path: Path) -> None:
    newest = directory.folders(written / "checkpoints")[-1]
    nan, negative, less, shorter, state = run(edited_and_sealed_again, 1, newest, tmp_path)[0]
    assert "has values that are not finite" in nan
    assert "squares below 0" in negative
    assert "holds 0 of" in less
    assert "it belongs to another encoder" in shorter
    assert "of this objective" in state


def test_every_flipped_bit_of_a_manifest_is_seen(a_run: Path) -> None:
    """Of a number, too: a wrong step would resume at a wrong place."""
    newest = directory.folders(a_run / "checkpoints")[-1]
    path = newest / "manifest.json"
    whole, seen = path.read_bytes(), 0
    stored = read_manifest(newest)
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 7)
        path.write_bytes(damaged)
        try:
            assert read_manifest(newest) == stored, at  # white space: nothing changed
        except ValueError:
            seen += 1
    assert seen > len(whole) // 7 // 2


def test_a_pointer_is_not_trusted_and_one_to_nowhere_is_no_fresh_start(a_run: Path) -> None:
    checkpoints = a_run / "checkpoints"
    first, second = directory.folders(checkpoints)
    assert (checkpoints / "newest").read_text() == "step-00000002\n"
    for pointer in ("step-00000009\n", "\x00\xff", "../../elsewhere\n"):
        (checkpoints / "newest").write_text(pointer)
        assert find_checkpoint(World.alone(), a_run, "auto") == (second, True)
    (checkpoints / "newest").unlink()
    assert find_checkpoint(World.alone(), a_run, "auto") == (second, True)
    (checkpoints / "newest").write_text("step-00000002\n")
    directory.remove(first)
    directory.remove(second)
    with pytest.raises(ValueError, match="step-00000002, which does not exist"):
        find_checkpoint(World.alone(), a_run, "auto")


def test_resume_never_and_from_another_run(a_run: Path, tmp_path: Path) -> None:
    newest = directory.folders(a_run / "checkpoints")[-1]
    fresh = tmp_path / "fresh"
    assert find_checkpoint(World.alone(), fresh, "auto") == (None, True)
    assert find_checkpoint(World.alone(), fresh, "never") == (None, True)
    assert find_checkpoint(World.alone(), fresh, str(a_run)) == (newest, False)
    assert find_checkpoint(World.alone(), fresh, str(newest)) == (newest, False)
    with pytest.raises(ValueError, match=r"resume = never, but .* holds step-00000002"):
        find_checkpoint(World.alone(), a_run, "never")
    with pytest.raises(ValueError, match="neither a checkpoint nor a run"):
        find_checkpoint(World.alone(), fresh, str(tmp_path))


def a_folder_of_ours(folder: Path) -> None:
    folder.mkdir()
    contents.write_contents(folder, "")


def test_the_best_one_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        a_folder_of_ours(tmp_path / f"step-{step:08d}")
    (tmp_path / ".step-00000006.new").mkdir()
    directory.remove_old(tmp_path / "step-00000005", 2, best_step=2)
    assert sorted(os.listdir(tmp_path)) == ["step-00000002", "step-00000004", "step-00000005"]


def test_damaged_later_ones_do_not_count_among_those_that_are_kept(tmp_path: Path) -> None:
    """The run went back to step 3 because 6 and 9 were damaged, and has saved step 4."""
    for step in (2, 3, 4, 6, 9):
        a_folder_of_ours(tmp_path / f"step-{step:08d}")
    directory.remove_old(tmp_path / "step-00000004", 2, best_step=None)
    assert sorted(os.listdir(tmp_path)) == ["step-00000003", "step-00000004"]


def test_a_checkpoint_that_is_written_again_is_there_at_every_moment(
    a_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped before its first step writes the checkpoint it has read; it may be the only one."""
    first, second = directory.folders(a_run / "checkpoints")
    directory.remove(first)
    new = atomic.beside(second, "new")
    shutil.copytree(second, new)
    rename, moved = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        moved.append(target)
        if len(moved) == 2:  # the old one is aside, the new one has no name yet
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            atomic.finish_folder(second)
    assert find_checkpoint(World.alone(), a_run, "auto") == (second, True)
    shutil.copytree(second, new)
    atomic.finish_folder(second)
    assert find_checkpoint(World.alone(), a_run, "auto") == (second, True)
    directory.remove_old(second, 2, None)
    assert sorted(os.listdir(a_run / "checkpoints")) == ["newest", second.name]


def fill_the_disk(rank: int, size: int, folder: Path, lie: bool) -> list[str]:
    """Save until it does not fit; `lie`: the free space is said to be there, and is not."""
    from unsee_dist.training.checkpoint import saving

    if lie:
        usage = shutil.disk_usage
        saving.shutil.disk_usage = lambda path: usage(path)._replace(free=10**12)
    ours = running(Case("vicreg"), rank, size, 2)
    sentences = []
    for background in (False, True):
        saver = Saver(ours.engine.world, background)
        for step in range(1, 9):
            try:
                place = folder / "checkpoints" / f"step-{step:08d}"
                saver.save(place, ours.engine, ours.target, facts(step, ours.engine.updates()), keep=9)
                saver.wait()
            except ValueError as error:
                sentences.append(str(error))
                break
        assert len(sentences) == 1 + background, "the disk never filled"
    return sentences


@pytest.mark.parametrize("lie", [False, True])
def test_a_full_disk_is_a_sentence_on_every_rank_and_loses_nothing(tmp_path: Path, lie: bool) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 500):
        first, second = run(fill_the_disk, 2, folder, lie)
        assert first == second
        for sentences in first:
            assert ("could not be written" if lie else "does not fit on the disk") in sentences
        whole = directory.folders(folder / "checkpoints")
        assert len(whole) >= 2
        for each in whole:
            directory.verify(each)
        assert not list((folder / "checkpoints").glob(".step-*"))


def _save_and_wait(saver: Saver, place: Path, ours: Running) -> None:
    saver.save(place, ours.engine, ours.target, facts(2, ours.engine.updates()), keep=2)
    saver.wait()


def write_protected(rank: int, size: int, folder: Path) -> list[str]:
    """One save, then the disk can only be read."""
    ours = running(Case("vicreg"), rank, size, 1)
    saver = Saver(ours.engine.world, True)
    save(saver, ours, folder, 1)
    saver.wait()
    if rank == 0:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    sentences = []
    for background in (False, True):
        saver.background = background
        with pytest.raises(ValueError, match="could not be written") as failure:
            _save_and_wait(saver, folder / "checkpoints" / "step-00000002", ours)
        sentences.append(str(failure.value))
    return sentences


def test_a_folder_that_can_only_be_read_is_a_sentence_on_every_rank_and_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 4000):
        first, second = run(write_protected, 2, folder)
        assert first == second
        assert all("Read-only file system" in sentences for sentences in first)
        assert find_checkpoint(World.alone(), folder, "auto")[0] == folder / "checkpoints" / "step-00000001"


def a_fault_in_the_thread(rank: int, size: int, folder: Path) -> str:
    """Not one that people make: a bug, or another rank that is gone."""
    from unsee_dist.training.checkpoint import saving

    ours = running(Case("vicreg"), rank, size, 0)
    saver = Saver(ours.engine.world, True)
    saving.directory.write_pointer = None
    save(saver, ours, folder, 1)
    with pytest.raises(TypeError) as failure:
        saver.wait()
    return str(failure.value)


def test_a_fault_of_the_writing_thread_is_raised_where_training_waits_for_it(tmp_path: Path) -> None:
    assert "not callable" in run(a_fault_in_the_thread, 1, tmp_path)[0]


def trained_on_meanwhile(rank: int, size: int, folder: Path) -> int:
    """The thread is held up before its first line; training has gone a step further when it may write."""
    from unsee_dist.training.checkpoint import saving

    ours, gate = running(Case("vicreg"), rank, size, 0), threading.Event()
    saving.failpoint = lambda phase, _: phase != "save.begin" or gate.wait(60)
    saver, checkpoint = Saver(ours.engine.world, True), facts(1, ours.engine.updates())
    saver.save(folder / "step-00000001", ours.engine, ours.target, checkpoint, keep=2)
    checkpoint.progress.step = 2
    gate.set()
    saver.wait()
    return read_manifest(folder / "step-00000001").step


def test_a_save_in_the_background_is_of_its_own_step(tmp_path: Path) -> None:
    assert run(trained_on_meanwhile, 1, tmp_path) == [1]


def test_checkpoint_commands(a_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from unsee_dist import cli

    def unsee(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["unsee", "checkpoint", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    assert unsee("verify", str(a_run))[:2] == (0, "step-00000001 is whole\nstep-00000002 is whole\n")
    assert "step 2" in unsee("ls", str(a_run))[1]
    flip(a_run / "checkpoints" / "step-00000002" / FILES[0])
    code, _, err = unsee("verify", str(a_run))
    assert code == 2
    assert "rank-00000.safetensors has changed" in err
    assert unsee("rm", str(a_run), "step-00000007")[0] == 2
    code, _, err = unsee("rm", str(a_run), "step-00000001", "step-00000002")
    assert code == 2
    assert "would have no checkpoint left to continue from" in err
    assert unsee("rm", str(a_run), "step-00000002")[:2] == (
        0,
        f"{a_run}: removed step-00000002; left: step-00000001\n",
    )
    assert (
        json.loads((a_run / "checkpoints" / "step-00000001" / "manifest.json").read_text())["progress"][
            "step"
        ]
        == 1
    )
    assert [folder.name for folder in directory.folders(a_run / "checkpoints")] == ["step-00000001"]
    assert (a_run / "checkpoints" / "newest").read_text() == "step-00000001\n"
    code, _, err = unsee("rm", str(a_run), "step-00000001")
    assert code == 2
    assert f"Nothing was removed. To be rid of the run, remove its folder: rm -r {a_run}." in err
    assert find_checkpoint(World.alone(), a_run, "auto") == (
        a_run / "checkpoints" / "step-00000001",
        True,
    )


def test_of_a_damaged_and_a_whole_checkpoint_the_whole_one_stays(a_run) -> None:
    checkpoints = a_run / "checkpoints"
    (checkpoints / "step-00000002" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="Nothing was removed"):
        directory.remove_by_name(checkpoints, ["step-00000001"])
    assert directory.remove_by_name(checkpoints, ["step-00000002"]) == ["step-00000001"]
