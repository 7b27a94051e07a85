"""A disk without room, for every command that writes: a sentence with the file and the remedy, nothing half-written under its
name, and the same command does the work once there is room."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.disks import fill, make_read_only, resize, small_disk
from integration.tiny import Tiny
from unit.report.made_runs import make_run

from unsee_dist.cli import check
from unsee_dist.config import load
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.files.owner import OWNER, owned
from unsee_dist.report import of_runs
from unsee_dist.sweep import ledger
from unsee_dist.sweep.driver import make_folder, registered_driver
from unsee_dist.sweep.ledger import LedgerRow
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.report import write_report

pytestmark = pytest.mark.slow
ROOM = 64 * 1024  # KiB


def unsee(*arguments: object) -> list[str]:
    return [str(launch.BIN / "unsee"), *map(str, arguments)]


def refused(command: list[str], *words: str, cwd: Path | None = None) -> None:
    done = launch.run(command, timeout_s=240, **({"cwd": cwd} if cwd else {}))
    assert done.returncode == ExitCode.MISTAKE, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_prepare(tmp_path: Path) -> None:
    text, disk = tmp_path / "text.txt", tmp_path / "disk"
    text.write_text("".join(f"sentence number {i} of a text without an end\n" for i in range(20_000)))
    command = unsee("prepare", text, "--out", disk / "corpus")
    launch.succeed(unsee("prepare", text, "--out", tmp_path / "corpus"))
    with small_disk(disk, 400):
        refused(command, f"{disk}/corpus", "Make room")
        assert not (disk / "corpus" / "index.json").exists()
        resize(disk, ROOM)
        launch.succeed(command)
        for path in (tmp_path / "corpus").iterdir():
            if path.name != "index.json":
                assert (disk / "corpus" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kib", [20, 60])
def test_init(tmp_path: Path, kib: int) -> None:
    disk = tmp_path / "disk"
    launch.succeed(unsee("init", tmp_path / "whole"))
    with small_disk(disk, kib):
        for _ in range(2):  # what is there of the first try is not taken for the user's
            refused(
                unsee("init", disk / "mine"),
                f"DIR = {disk}/mine cannot be written",
                "Make room",
                "same command again",
            )
        resize(disk, ROOM)
        launch.succeed(unsee("init", disk / "mine"))
        whole = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*"))
        assert sorted(path.relative_to(disk / "mine") for path in (disk / "mine").rglob("*")) == whole
        for name in whole:
            path = disk / "mine" / name
            assert path.is_dir() or path.read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("kib", [100, 700, 1300])
def test_train(tiny: Tiny, tmp_path: Path, kib: int) -> None:
    """Before the first step, at a checkpoint, at best/, at final/: wherever it is, the next start ends as a whole run."""
    disk, whole = tmp_path / "disk", tmp_path / "whole"
    pairs, dev = launch.corpus(20), tmp_path / "dev.tsv"
    rows = [f"{first}\t{second}\t{n % 5}" for n, (first, second) in enumerate(pairwise(pairs))]
    dev.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    settings = ["checkpoint.keep=2", "evaluate.every=1", "checkpoint.every=1", f"evaluate.sts={dev}"]
    launch.succeed(launch.command("unsee", 1, tiny.config, f"run.dir={whole}", *settings))
    with small_disk(disk, kib):
        command = launch.command("unsee", 1, tiny.config, f"run.dir={disk}/run", *settings)
        done = launch.run(command, timeout_s=240)
        if kib == 100:  # known before the first step, and not after an hour of them
            assert done.returncode != 0
            record = disk / "run" / "metrics.jsonl"
            assert not record.exists() or not record.read_bytes()
        if done.returncode != 0:
            refused(command, str(disk), "write the same command again: it continues")
            resize(disk, ROOM)
            launch.succeed(command)
        assert launch.history(disk / "run") == launch.history(whole)
        for name in ("best", "final"):
            weights = f"{name}/model.safetensors"
            assert (disk / "run" / weights).read_bytes() == (whole / weights).read_bytes()
        assert not list((disk / "run").glob(".*.new"))


def test_a_check_says_of_a_folder_what_training_says(tmp_path: Path) -> None:
    """Of a read-only disk, and where nobody can make a folder. Nothing is left by the check."""
    disk = tmp_path / "disk"
    with small_disk(disk, 400):
        (disk / "there").mkdir()
        assert list(folder_lines(disk / "there")) == [f"run.dir = {disk}/there: is there"]
        assert list((disk / "there").iterdir()) == []
        make_read_only(disk)
        for place in (disk / "run", disk / "there", Path("/proc/x"), Path("/sys/x/y")):
            with pytest.raises(UserError) as checked:
                list(folder_lines(place))
            with pytest.raises(UserError) as trained, owned(place / OWNER, f"run.dir = {place}", ""):
                pass
            why = str(trained.value).rpartition("(")[2].partition(")")[0]
            assert str(checked.value) == f"run.dir = {place} cannot be written ({why}). Write another one."


def folder_lines(place: Path) -> Iterator[str]:
    return check._folder(load("base", [f"run.dir={place}"]))


def test_a_page_without_room_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_runs, "look", lambda _: pytest.fail("encoded"))
    run, disk = make_run(tmp_path / "run"), tmp_path / "disk"
    with small_disk(disk, 100):
        fill(disk)
        with pytest.raises(UserError, match=f"{disk}/page.html cannot be written .No space left.*Make room"):
            of_runs.report_runs([run], disk / "page.html")
        assert [path.name for path in disk.iterdir()] == ["other people's file"]


def test_the_database_of_mlflow_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Its tables are made in several steps, and MLflow cannot mend half of them."""
    disk = tmp_path / "disk"
    code = f"from unsee_dist.tracking.mlflow_run import connect; connect('sqlite:///{disk}/mlflow.db').search_experiments()"
    with small_disk(disk, 60):
        failed = launch.run([sys.executable, "-c", code])
        assert failed.returncode != 0
        assert "full" in failed.stderr or "No space left" in failed.stderr
        assert list(disk.iterdir()) == []
        resize(disk, ROOM)
        launch.succeed([sys.executable, "-c", code])
        assert [path.name for path in disk.iterdir()] == ["mlflow.db"]


def test_export_evaluate_and_compare(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 100):
        refused(unsee("export", place / "good", "--out", disk / "export"), f"{disk}/export", "Make room")
        assert list(disk.iterdir()) == []
        resize(disk, ROOM)
        launch.succeed(unsee("export", place / "good", "--out", disk / "export"))
        tasks = place / "tasks"
        taken = fill(disk)
        scores = unsee("evaluate", disk / "export", "--tasks", tasks, "--json")
        refused(scores, "No space left on device", "Make room", cwd=disk)
        assert not list(disk.rglob("*.json.*"))
        taken.unlink()
        done = launch.succeed(scores, cwd=disk)
        assert json.loads(done.stdout)
        launch.succeed(unsee("evaluate", place / "random", "--tasks", tasks, "--json"), cwd=disk)
        taken = fill(disk)
        compare = unsee("compare", disk / "export", place / "random", "--out", disk / "table")
        refused(compare, "No space left on device", cwd=disk)
        taken.unlink()


def test_each_file_of_a_sweep_is_named_with_its_remedy(tmp_path: Path) -> None:
    """Without a cluster: test_sweep.py has a whole one."""
    disk = tmp_path / "disk"
    with small_disk(disk, ROOM):
        sweep = load_sweep("tiny", [f"sweep.dir={disk}/s", "evaluate.sts=x.tsv"])
        rows = [LedgerRow(1, "a", "complete", {"train.lr": 1e-4}, 60, 60, 71.25)]
        steps = {
            f"sweep.dir = {disk}/s": lambda: make_folder(sweep),
            f"{disk}/s": lambda: registered_driver(sweep.folder).__enter__(),
            f"{disk}/s/trials.json": lambda: ledger.write(sweep.folder, rows),
            f"{disk}/s/report": lambda: write_report(sweep, rows),
        }
        for name, step in steps.items():
            taken = fill(disk)
            with pytest.raises(UserError, match=f"^{name} cannot be written .No space left.*Make room"):
                step()
            taken.unlink()
            make_folder(sweep)
        assert (write_report(sweep, rows) / "best.yaml").is_file()


@pytest.mark.timeout(1500)
def test_quickstart(tmp_path: Path) -> None:
    """The corpus, the encoder, the run: each finds the disk full, and the same command goes on behind it."""
    disk = tmp_path / "disk"
    made = disk / "quickstart"
    with small_disk(disk, 400):
        refused(unsee("quickstart"), "quickstart/corpus cannot be written", "Make room", cwd=disk)
        resize(disk, 4 * ROOM)
        until("3/4 training", disk)
        taken = fill(disk)
        refused(unsee("quickstart"), "quickstart/run", "Make room", cwd=disk)
        taken.unlink()
        shutil.rmtree(made / "encoder")
        taken = fill(disk)
        refused(unsee("quickstart"), "quickstart/encoder", "Make room", cwd=disk)
        assert not (made / "encoder").exists()
        taken.unlink()
        until("3/4 training", disk)


def until(words: str, folder: Path) -> None:
    """Run the quickstart until it prints the words, then kill it."""
    quickstart = launch.start(unsee("quickstart"), cwd=folder)
    assert quickstart.stdout is not None
    lines = []
    for line in quickstart.stdout:
        lines.append(line)
        if words in line:
            break
    _, error = launch.kill(quickstart)
    assert words in lines[-1], "".join(lines) + error
