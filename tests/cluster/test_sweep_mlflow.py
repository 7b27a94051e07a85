"""A real sweep in a real MLflow with PostgreSQL that loses its power in the middle: all arrives, once, and is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from cluster.chromium import chromium
from cluster.mlflow_server import mlflow_server
from cluster.raylets import raylets
from cluster.test_mlflow_ui import look
from cluster.test_sweep import PATIENCE_S, UNSEE, runs, steps_of, trials, wait_for, write
from integration import tiny as launch
from integration.tiny import Tiny
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from unsee_dist.tracking.mlflow_run import connect

STEPS = 400


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_server_killed_in_the_middle_of_a_sweep_gets_everything_once_and_shows_it(
    tiny: Tiny, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"search": "grid", "scheduler": "none", "name": "a-sweep"}
    path = write(tiny, "tracked", STEPS, settings, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
    folder = tiny.folder / "tracked"
    with mlflow_server() as server, raylets(2) as cluster, chromium() as browser:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        address = server.env["MLFLOW_TRACKING_URI"]
        client = connect(address)
        command = [UNSEE, "sweep", str(path), "track.mlflow=true"]
        driver = launch.start(command, env=cluster.env | server.env)
        wait_for(lambda: bool(runs(folder)) and len(losses(client, runs(folder)[0])) > 20, driver)
        server.kill()
        wait_for(lambda: len(runs(folder)) == 2 and steps_of(runs(folder)[1]) > 20, driver)  # one has ended
        server.start()
        done = launch.finish(driver, 2 * PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "does not answer" in done.stderr
        assert [row["status"] for row in trials(folder)] == ["complete", "complete"]
        again = launch.run(command, PATIENCE_S, env=cluster.env | server.env)  # nothing comes twice
        assert again.returncode == 0, again.stderr
        found = by_name(client)
        names = [f"a-sweep-{run.name}" for run in runs(folder)]
        assert sorted(found) == sorted(["a-sweep", *names])
        parent = found["a-sweep"]
        assert {run.info.status for run in found.values()} == {"FINISHED"}
        for run, name in zip(runs(folder), names, strict=True):
            assert found[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
            lines = [line for line in launch.lines(run / "metrics.jsonl") if "loss" in line]
            assert len(lines) == STEPS
            assert Counter(m.step for m in losses(client, run)) == Counter(line["step"] for line in lines)
        sent = {item.path for item in client.list_artifacts(parent.info.run_id)}
        assert sent == {each.name for each in (folder / "report").iterdir()} >= {"curves.png", "parallel.png"}
        plots = [folder / "report" / name for name in ("curves.png", "parallel.png")]
        look(browser, address, parent, names, plots, shots)


def by_name(client: MlflowClient) -> dict[str, Run]:
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def losses(client: MlflowClient, trial: Path) -> list[Metric]:
    run = by_name(client).get(f"a-sweep-{trial.name}")
    return client.get_metric_history(run.info.run_id, "loss") if run else []
