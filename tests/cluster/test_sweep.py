"""`unsee sweep` on a real Ray cluster of two raylets: every trial counted once, whatever is killed in between."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cluster.raylets import Raylets, raylets
from integration import ranks, tiny
from integration.disks import fill, resize, small_disk
from integration.tiny import BIN, Tiny

UNSEE = str(BIN / "unsee")
ROOM = 64 * 1024  # KiB
PATIENCE_S = 600  # a worker group starts five pythons, and the machine may be busy


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Raylets]:
    with raylets(2) as cluster:
        yield cluster


def write(made: Tiny, name: str, steps: int, sweep: dict[str, Any], space: dict[str, Any]) -> Path:
    sts = made.folder / "sts.tsv"
    lines = tiny.corpus(60)
    rows = [f"{a}\t{b}\t{n % 6}" for n, (a, b) in enumerate(zip(lines[::2], lines[1::2], strict=True))]
    sts.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")
    path = made.folder / f"{name}.yaml"
    tree = {
        "extends": str(made.config),
        "train": {"steps": steps},
        "evaluate": {"every": steps // 4, "sts": str(sts)},
        "checkpoint": {"every": steps // 4},
        "sweep": {"dir": str(made.folder / name), "ranks": 2} | sweep,
        "space": space,
    }
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def trials(folder: Path) -> list[dict[str, Any]]:
    path = folder / "trials.json"
    return json.loads(path.read_bytes())["trials"] if path.exists() else []


def wait_for(true: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        if driver.poll() is not None or time.monotonic() > until:
            out, err = tiny.kill(driver)
            raise AssertionError(f"{driver.returncode}\n{out}\n{err}")
        time.sleep(0.5)


def steps_of(trial: Path) -> int:
    """The newest step of a trial's run."""
    path = trial / "metrics.jsonl"
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def saved(trial: Path) -> bool:
    """Its first checkpoint has been published."""
    return any((trial / "checkpoints").glob("step-*/manifest.json"))


def runs(folder: Path) -> list[Path]:
    return [folder / "trials" / row["trial"] for row in trials(folder)]


def worker(cluster: Raylets) -> psutil.Process:
    """A rank of the trial that is running."""
    found = [p for p in cluster.processes() if "RayTrainWorker" in " ".join(p.cmdline() or [p.name()])]
    assert found, [p.cmdline() for p in cluster.processes()]
    return found[0]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_asha_gives_up_what_is_worse_and_the_report_says_what_is_best(
    two_nodes: Raylets, tiny_run: Tiny
) -> None:
    space = {
        "objective.name": {"choice": ["vicreg", "barlow_twins"]},
        "train.lr": {"loguniform": [1e-5, 1e-2]},
        "objective.invariance": {"uniform": [1, 30], "when": {"objective.name": "vicreg"}},
    }
    path = write(tiny_run, "asha", 16, {"trials": 4, "grace": 4, "reduction": 2}, space)
    done = tiny.run([UNSEE, "sweep", str(path)], 4 * PATIENCE_S, env=two_nodes.env)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tiny_run.folder / "asha"
    rows = trials(folder)
    assert len(rows) == len({row["trial"] for row in rows}) == 4
    assert {row["status"] for row in rows} <= {"complete", "stopped"}
    assert rows[0]["status"] == "complete"  # nothing to compare it with
    for row in rows:  # a stopped trial has left at a step's end, with a checkpoint
        run = folder / "trials" / row["trial"]
        saved = sorted((run / "checkpoints").glob("step-*"))[-1]
        assert int(saved.name.removeprefix("step-")) == steps_of(run)
        # asked to end within its last step, a trial has taken all steps and has no score of the last
        assert (row["status"] == "complete") == (row["reached"] == 16)
        assert ("objective.invariance" in row["point"]) == (row["point"]["objective.name"] == "vicreg")
    best = max(rows, key=lambda row: row["score"])
    report = json.loads((folder / "report" / "report.json").read_bytes())
    assert report["best"]["trial"] == best["trial"]
    for name in ("trials.md", "curves.png", "parallel.png"):
        assert (folder / "report" / name).stat().st_size > 0
    shown = tiny.succeed([UNSEE, "config", "show", str(folder / "report" / "best.yaml")]).stdout
    assert float(yaml.safe_load(shown)["train"]["lr"]) == best["point"]["train.lr"]
    again = tiny.run([UNSEE, "sweep", str(path)], PATIENCE_S, env=two_nodes.env)  # nothing is left to do
    assert again.returncode == 0, again.stderr
    assert trials(folder) == rows


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_killed_worker_a_killed_trial_and_a_killed_driver_change_nothing(
    two_nodes: Raylets, tiny_run: Tiny
) -> None:
    settings = {"search": "grid", "scheduler": "none", "retries": 3}
    path = write(tiny_run, "killed", 400, settings, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
    folder = tiny_run.folder / "killed"
    driver = tiny.start([UNSEE, "sweep", str(path)], env=two_nodes.env)
    wait_for(
        lambda: bool(runs(folder)) and saved(runs(folder)[0]) and steps_of(runs(folder)[0]) > 110, driver
    )
    worker(two_nodes).kill()
    killed_at, reached = time.time(), steps_of(runs(folder)[0])
    wait_for(lambda: steps_of(runs(folder)[0]) > reached + 20, driver)
    tiny.kill(driver)
    assert [row["status"] for row in trials(folder)] in (["running"], ["running", "waiting"])
    driver = tiny.start([UNSEE, "sweep", "--resume", str(folder)], env=two_nodes.env)
    wait_for(lambda: len(runs(folder)) == 2 and steps_of(runs(folder)[1]) > 110, driver)
    first = next(p for p in two_nodes.processes() if "ImplicitFunc.train" in " ".join(p.cmdline()))
    first.kill()  # the trial's own process
    done = tiny.finish(driver, 2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = trials(folder)
    assert [row["status"] for row in rows] == ["complete", "complete"]
    assert [row["point"]["train.lr"] for row in rows] == ["1e-3", "1e-4"]
    kept = [
        line["step"] for line in tiny.lines(runs(folder)[0] / "metrics.jsonl") if line["time"] < killed_at
    ]
    assert max(kept) >= 100  # it went on from its checkpoint: these steps were not taken again
    for row, run in zip(rows, runs(folder), strict=True):
        through = tiny_run.folder / f"through-{row['number']}"
        overrides = [f"train.lr={row['point']['train.lr']}", f"run.dir={through}"]
        ranks.start(2, path_of_run(path), *overrides).succeed(PATIENCE_S)
        assert tiny.history(run) == tiny.history(through)
        assert tiny.traced(run) == tiny.traced(through)
        weights = [(place / "final" / "model.safetensors").read_bytes() for place in (run, through)]
        assert weights[0] == weights[1]


def path_of_run(sweep: Path) -> Path:
    """The run that the sweep varies, without the sweep."""
    tree = yaml.safe_load(sweep.read_text())
    kept = {key: value for key, value in tree.items() if key not in ("sweep", "space")}
    path = sweep.with_suffix(".run.yaml")
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_node_that_goes_down_and_a_stop_that_is_asked_for(tiny_run: Tiny) -> None:
    settings = {"search": "grid", "scheduler": "none", "retries": 3}
    path = write(tiny_run, "node", 400, settings, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
    folder = tiny_run.folder / "node"
    with raylets(3) as cluster:  # a trial needs two
        driver = tiny.start([UNSEE, "sweep", str(path)], env=cluster.env)
        wait_for(lambda: bool(runs(folder)) and steps_of(runs(folder)[0]) > 110, driver)
        cluster.kill_node(2)
        reached = steps_of(runs(folder)[0])
        wait_for(lambda: steps_of(runs(folder)[0]) >= min(400, reached + 20), driver)
        stopped = tiny.run([UNSEE, "sweep", "--stop", str(folder)], PATIENCE_S, env=cluster.env)
        assert stopped.returncode == 0, stopped.stderr
        assert tiny.finish(driver, PATIENCE_S).returncode == 75
        status = tiny.succeed([UNSEE, "sweep", "--status", str(folder)]).stdout
        assert "no process drives it" in status
        done = tiny.run([UNSEE, "sweep", "--resume", str(folder)], 2 * PATIENCE_S, env=cluster.env)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [row["status"] for row in trials(folder)] == ["complete", "complete"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_collapsed_trial_is_the_worst_and_a_cluster_too_small_is_refused(
    two_nodes: Raylets, tiny_run: Tiny
) -> None:
    settings = {"search": "grid", "scheduler": "none"}
    # an effective rank that nobody has is a collapse for one, and none for the other
    space = {"guard.effective_rank": {"choice": [1.0, 1000.0]}}
    path = write(tiny_run, "collapsed", 8, settings, space)
    overrides = ["guard.collapse=stop", "guard.evaluations=1"]
    done = tiny.run([UNSEE, "sweep", str(path), *overrides], 2 * PATIENCE_S, env=two_nodes.env)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = trials(tiny_run.folder / "collapsed")
    assert [row["status"] for row in rows] == ["complete", "broken"]
    assert "collapsed" in rows[1]["why"]
    report = json.loads((tiny_run.folder / "collapsed" / "report" / "report.json").read_bytes())
    assert report["best"]["number"] == 1
    large = tiny.run(
        [UNSEE, "sweep", str(path), "sweep.ranks=4", f"sweep.dir={tiny_run.folder / 'large'}"],
        env=two_nodes.env,
    )
    assert large.returncode == 2
    assert "sweep.ranks = 4: a trial needs 4 times 1 CPUs at once" in large.stderr
    assert "Traceback" not in large.stderr


PLANT = """
import os
def plant(phase, step):
    planted = {mark!r}
    if (phase, step) == ("forward", 3) and os.environ.get("RANK") == "1" and not os.path.exists(planted):
        open(planted, "w").close()
        raise KeyError("planted")
from unsee_dist.supervision import phases
before = phases.failpoint
def failpoint(phase, step):
    before(phase, step)
    plant(phase, step)
phases.failpoint = failpoint
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_bug_in_a_trial_is_shown_whole_and_is_not_tried_again(two_nodes: Raylets, tiny_run: Tiny) -> None:
    folder = tiny_run.folder / "planted"
    site = tiny_run.folder / "site-planted"
    site.mkdir()
    # It is raised once: a second attempt at the trial would succeed.
    (site / "sitecustomize.py").write_text(PLANT.format(mark=str(site / "raised")), encoding="utf-8")
    env = two_nodes.env | {"PYTHONPATH": f"{site}{os.pathsep}{tiny.REPOSITORY}"}
    settings = {"search": "grid", "scheduler": "none", "retries": 3}
    path = write(tiny_run, "planted", 8, settings, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
    done = tiny.run([UNSEE, "sweep", str(path)], 2 * PATIENCE_S, env=env)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = trials(folder)
    assert [row["status"] for row in rows] == ["failed", "complete"], done.stderr
    assert rows[0]["why"] == "rank 1: KeyError: 'planted'"
    assert "in plant\n" in done.stderr  # the traceback of the rank itself
    assert "trial 1, rank 1: this is a bug of unsee_dist" in done.stderr
    assert done.stderr.count("Traceback") == 1, done.stderr  # once, and not what Ray adds
    report = json.loads((folder / "report" / "report.json").read_bytes())
    assert report["best"]["number"] == 2
    again = tiny.run([UNSEE, "sweep", "--resume", str(folder)], 2 * PATIENCE_S, env=env)
    assert again.returncode == 0, again.stdout + again.stderr  # the cause is gone
    assert [row["status"] for row in trials(folder)] == ["complete", "complete"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("when", ["at the start", "while it runs"])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(
    two_nodes: Raylets, tiny_run: Tiny, when: str
) -> None:
    space = {"train.lr": {"choice": ["1e-3", "1e-4"]}}
    path = write(tiny_run, when, 200, {"search": "grid", "scheduler": "none", "ranks": 1}, space)
    folder, command = tiny_run.folder / when, [UNSEE, "sweep", str(path)]
    with small_disk(folder, 16 if when == "at the start" else ROOM):
        driver = tiny.start(command, env=two_nodes.env)
        if when == "while it runs":
            wait_for(lambda: bool(runs(folder)) and steps_of(runs(folder)[0]) > 60, driver)
            fill(folder).rename(folder / "trials" / "other")
        refused(tiny.finish(driver, 2 * PATIENCE_S), str(folder), "Make room")
        resize(folder, 2 * ROOM)
        done = tiny.run(command, 2 * PATIENCE_S, env=two_nodes.env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [row["status"] for row in trials(folder)] == ["complete", "complete"]
        assert (folder / "report" / "report.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_damaged_shard_says_nothing_of_a_point(two_nodes: Raylets, tmp_path: Path) -> None:
    made = tiny.make(tmp_path)
    settings = {"search": "grid", "scheduler": "none", "ranks": 1}
    path = write(made, "damaged", 8, settings, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
    shard = min(made.shards.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000] + bytes(1000) + whole[3000:])
    command = [UNSEE, "sweep", str(path)]
    refused(tiny.run(command, 2 * PATIENCE_S, env=two_nodes.env), shard.name)
    assert [row["status"] for row in trials(tmp_path / "damaged")] == ["failed", "failed"]
    shard.write_bytes(whole)
    done = tiny.run(command, 2 * PATIENCE_S, env=two_nodes.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["status"] for row in trials(tmp_path / "damaged")] == ["complete", "complete"]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny.make(tmp_path_factory.mktemp("sweep"))
