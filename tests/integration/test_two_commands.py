"""Two commands never write into one folder: the second says who does, and changes nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import Tiny
from typer.testing import CliRunner

from unsee_dist.cli import app
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.files import contents, owner
from unsee_dist.files.owner import owned
from unsee_dist.publish import export


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "PATIENCE_S", 0.1)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_that_another_command_trains_is_not_touched(tiny: Tiny) -> None:
    folder = tiny.folder / "owned-run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 9, "loss": 1.0}\n')  # a start would cut it back
    (folder / "checkpoints").mkdir()
    with owned(folder / owner.OWNER, "x", "y"):
        before = snapshot(folder)
        refused = launch.run(launch.command("unsee", 1, tiny.config, f"run.dir={folder}"))
        assert snapshot(folder) == before
        removed = CliRunner().invoke(app, ["checkpoint", "rm", str(folder), "step-00000001"])
    assert refused.returncode == ExitCode.MISTAKE
    assert f"run.dir = {folder} is in use by process " in refused.stderr
    assert "write another run.dir" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "is in use by process" in str(removed.exception)


def test_a_corpus_that_another_command_prepares_is_not_touched(tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "corpus"
    text.write_text("\n".join(launch.corpus(50)))
    with owned(out / "preparing" / owner.OWNER, "x", "y"):
        before = snapshot(out)
        refused = CliRunner().invoke(app, ["prepare", str(text), "--out", str(out)])
        assert snapshot(out) == before
    assert isinstance(refused.exception, UserError)
    assert f"--out {out} is in use by process " in str(refused.exception)
    assert CliRunner().invoke(app, ["prepare", str(text), "--out", str(out)]).exit_code == 0
    assert not (out / "preparing").exists()


@pytest.mark.parametrize(
    "name", ["preparing/thesis.tex", "shard-000000.tar", "preparing/run-000000", "notes"]
)
def test_prepare_removes_nothing_that_it_did_not_write(name: str, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "corpus"
    text.write_text("\n".join(launch.corpus(50)))
    (out / "preparing").mkdir(parents=True)
    (out / name).write_text("mine")
    refused = CliRunner().invoke(app, ["prepare", str(text), "--out", str(out)])
    assert "is not empty, and it is not a corpus" in str(refused.exception)
    assert snapshot(out) == {out / name: b"mine"}


def an_export(run: Path, out: Path) -> None:
    for folder in (run, out):
        folder.mkdir()
        (folder / "config.yaml" if folder == run else out / "modules.json").write_text("[]")
    contents.write_contents(out, export._made_of(str(run)))


@pytest.mark.parametrize("part", ["", "best", "final", "checkpoints/step-00000003"])
def test_an_export_of_the_same_run_may_be_replaced(part: str, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    an_export(run, out)
    (run / part).mkdir(parents=True, exist_ok=True)
    export.check(str(run / part), out)


def test_another_export_or_one_with_files_of_the_users_is_refused(tmp_path: Path) -> None:
    run, other, out = tmp_path / "run", tmp_path / "other", tmp_path / "out"
    an_export(run, out)
    other.mkdir()
    (other / "config.yaml").touch()
    with pytest.raises(UserError, match="holds an export of something other than"):
        export.check(str(other), out)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop is a link to nothing"):
        export.check(str(run), tmp_path / "loop")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"files that no export wrote, or that were changed since: notes\.txt"
    ):
        export.check(str(run), out)
    (out / contents.RECORD).unlink()  # of an older version
    with pytest.raises(UserError, match="something other than"):
        export.check(str(run), out)


@pytest.mark.slow
def test_the_same_command_twice_at_once_is_one_run_and_a_killed_one_continues_at_once(tiny: Tiny) -> None:
    folder = tiny.folder / "twice-at-once"
    command = launch.command("unsee", 1, tiny.config, f"run.dir={folder}", "train.steps=3000")
    first = launch.start(command)
    until = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < until:
        time.sleep(0.1)
    second = launch.run(command)
    assert second.returncode == ExitCode.MISTAKE
    assert f"in use by process {first.pid} on " in second.stderr
    assert first.poll() is None
    launch.kill(first)
    third = launch.start(command)
    until = time.monotonic() + 60
    while third.poll() is None and time.monotonic() < until:
        named = folder / owner.OWNER
        if named.exists() and json.loads(named.read_text())["pid"] == third.pid:
            break
        time.sleep(0.1)
    assert third.poll() is None
    launch.kill(third)


def at_once(*arguments: object) -> list[tuple[int, str]]:
    """Exit codes and what was printed of the same command started twice."""
    command = [str(launch.BIN / "unsee"), *map(str, arguments)]
    processes = [launch.start(command) for _ in range(2)]
    done = [launch.finish(process, 300) for process in processes]
    return [(each.returncode, each.stdout + each.stderr) for each in done]


@pytest.mark.slow
def test_two_preparations_at_once_are_one(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"sentence number {i} of a text without an end\n" for i in range(600_000)))
    ended = at_once("prepare", text, "--out", tmp_path / "corpus")
    assert 0 in {code for code, _ in ended}, ended
    for (
        code,
        output,
    ) in ended:  # the second is refused, or it comes when the first has ended, and finds a whole corpus
        assert code == 0 or f"--out {tmp_path}/corpus is in use by process " in output, output
    launch.succeed([str(launch.BIN / "unsee"), "prepare", str(text), "--out", str(tmp_path / "alone")])
    assert len(snapshot(tmp_path / "corpus")) == len(snapshot(tmp_path / "alone"))
    for path in (tmp_path / "alone").iterdir():
        assert (tmp_path / "corpus" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_two_exports_and_two_evaluations_at_once_leave_whole_files(place: Path, tmp_path: Path) -> None:
    ended = at_once("export", place / "good", "--out", tmp_path / "export")
    assert {code for code, _ in ended} <= {0, 2}, ended
    assert 0 in {code for code, _ in ended}
    assert all("Traceback" not in output for _, output in ended)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert contents.foreign(tmp_path / "export") == []
    ended = at_once("evaluate", tmp_path / "export", "--tasks", place / "tasks", "--json")
    assert {code for code, _ in ended} <= {0, 2}, ended
    assert 0 in {code for code, _ in ended}
    assert all("Traceback" not in output for _, output in ended)
    again = launch.succeed(
        [
            str(launch.BIN / "unsee"),
            "evaluate",
            str(tmp_path / "export"),
            "--tasks",
            str(place / "tasks"),
            "--json",
        ]
    )
    assert json.loads(again.stdout)
