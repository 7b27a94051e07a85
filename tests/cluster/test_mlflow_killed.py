"""A sweep whose MLflow server, database and all, loses its power in the middle: everything arrives, and once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from cluster.mlflow_server import mlflow_server
from integration import tiny as launch
from integration.tiny import Tiny

from unsee_dist.tracking.mlflow_parent import ParentRun
from unsee_dist.tracking.mlflow_run import RunDescription, connect


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_everything_arrives_once(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = tmp_path / "sweep", list[str]()
    (folder / "report").mkdir(parents=True)
    with mlflow_server() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        parent = ParentRun(
            folder, RunDescription("unsee", "a-sweep", {}), folder / "report", warn=said.append
        )
        client = connect(server.env["MLFLOW_TRACKING_URI"])
        variables = parent.environment(120)
        trial = launch.start(
            launch.command("python", 1, tiny.config, *_told(folder / "a", "train.steps=400")),
            env=launch.environment(**variables),
        )
        try:
            _until(lambda: len(_losses(client, "a")) > 20, lambda: "no metrics")
            server.kill()
            (folder / "report" / "table.md").write_text("best: a")
            done = launch.finish(trial, 400)
        finally:
            if trial.poll() is None:
                launch.kill(trial)
        assert done.returncode == 0, done.stderr
        assert "does not answer" in done.stderr
        assert "has not got all of this run" in done.stderr
        _until(lambda: said, lambda: "the parent did not notice")
        server.start()
        for _ in range(2):
            assert parent.send_left(folder / "a", timeout_s=120)
            assert parent.close(timeout_s=120)
            parent = ParentRun(folder, RunDescription("unsee", "a-sweep", {}), folder / "report")
        parent.close(timeout_s=120)
        lines = [line for line in launch.lines(folder / "a" / "metrics.jsonl") if "loss" in line]
        assert len(lines) == 400
        found = Counter(metric.step for metric in _losses(client, "a"))
        assert found == Counter(line["step"] for line in lines)
        runs = _runs(client)
        assert sorted(runs) == ["a", "a-sweep"]
        assert runs["a"].data.tags["mlflow.parentRunId"] == runs["a-sweep"].info.run_id
        assert {runs["a"].info.status, runs["a-sweep"].info.status} == {"FINISHED"}
        assert [item.path for item in client.list_artifacts(runs["a-sweep"].info.run_id)] == ["table.md"]


def _told(folder: Path, *more: str) -> list[str]:
    return [f"run.dir={folder}", f"run.name={folder.name}", "track.mlflow=true", "evaluate.every=400", *more]


def _runs(client):
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def _losses(client, name: str):
    runs = _runs(client)
    return client.get_metric_history(runs[name].info.run_id, "loss") if name in runs else []


def _until(true, tell, timeout_s: float = 240) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, tell()
        time.sleep(0.5)
