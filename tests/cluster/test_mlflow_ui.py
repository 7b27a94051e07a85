"""What a person sees of a sweep in MLflow: the parent expands to its trials, charts and plots are drawn. In a real browser."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from cluster.chromium import Browser, chromium
from cluster.mlflow_server import mlflow_server
from integration import tiny as launch
from integration.tiny import Tiny
from matplotlib.image import imread
from mlflow.entities import Run

from unsee_dist.tracking.mlflow_parent import ParentRun
from unsee_dist.tracking.mlflow_run import RunDescription, connect
from unsee_dist.tracking.mlflow_sink import tracking_uri

TRIALS = ("first", "second")
SHOWN = """return [...document.images].some(image => image.complete && image.offsetWidth > 0
    && image.naturalWidth == arguments[0] && image.naturalHeight == arguments[1])"""


@pytest.fixture(scope="module")
def trained(tiny: Tiny) -> Path:
    """A folder with two real runs that no tracker has heard of."""
    folder = tiny.folder / "trained"
    for trial in TRIALS:
        settings = [f"run.dir={folder / trial}", f"run.name={trial}"]
        launch.succeed(launch.command("python", 1, tiny.config, *settings), timeout_s=400)
    return folder


def sweep(trained: Path, folder: Path) -> Run:
    """The runs as trials of a sweep in the MLflow of this environment: the parent's run."""
    shutil.copytree(trained, folder)
    (folder / "report").mkdir()
    parent = ParentRun(folder, RunDescription("unsee", "a-sweep", {"trials": "2"}), folder / "report")
    parent.environment(120)
    for trial in TRIALS:
        assert parent.send_left(folder / trial, timeout_s=120)
    _plot(folder / "report" / "curves.png")
    (folder / "report" / "best.yaml").write_text("train:\n  lr: 0.001\n")
    parent.tag("mlflow.note.content", "| trial | status |\n|---|---|\n| 1 | complete |")
    assert parent.close(timeout_s=120)
    assert parent.run_id is not None
    return connect(tracking_uri()).get_run(parent.run_id)


def _plot(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.plot([1, 2, 3], [3, 1, 2])
    pyplot.savefig(path)
    pyplot.close()


def look(
    browser: Browser, address: str, run: Run, trials: Sequence[str], plots: Sequence[Path], shots: Path
) -> None:
    """Go where a person goes from `run`, the parent; a screenshot of each page in `shots`. plots: what was sent."""
    experiment = f"{address}/#/experiments/{run.info.experiment_id}/runs"
    browser.open(experiment)
    parent = f"//a[normalize-space()='{run.info.run_name}']"
    browser.find(parent)
    children = [f"//a[normalize-space()='{trial}']" for trial in trials]
    assert not any(browser.all(child) for child in children), browser.text()
    browser.click(f"{parent}/ancestor::div[@role='gridcell']//button")
    for child in children:
        browser.find(child)
    browser.screenshot(shots / "runs.png")
    browser.open(f"{experiment}?compareRunsMode=CHART")
    browser.find("//*[contains(@class, 'js-line') or contains(@class, 'point')]")
    browser.screenshot(shots / "charts.png")
    page = f"{experiment}/{run.info.run_id}"
    browser.open(page)
    browser.find("//td[normalize-space()='complete']")  # of the table that is the parent's description
    browser.screenshot(shots / "parent.png")
    browser.open(f"{page}/artifacts")
    for plot in plots:
        browser.click(f"//*[normalize-space(text())='{plot.name}']")
        browser.find(f"//*[text()[contains(., '/artifacts/{plot.name}')]]")
        height, width = imread(plot).shape[:2]
        until = time.monotonic() + 60
        while not browser.run(SHOWN, width, height):
            assert time.monotonic() < until, browser.text()
            time.sleep(0.3)
        browser.screenshot(shots / plot.name)


@contextlib.contextmanager
def ui_of(store: str, folder: Path) -> Iterator[str]:
    """`mlflow ui` on a store, as a person starts it."""
    port = launch.free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]
    env = launch.environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_DISABLE_TELEMETRY="true")
    with (folder / "ui.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 600
        while not any(c.laddr.port == port and c.status == "LISTEN" for c in psutil.net_connections()):
            assert server.poll() is None, (folder / "ui.log").read_text()
            assert time.monotonic() < until, (folder / "ui.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        parent = psutil.Process(server.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_in_sqlite_as_mlflow_ui_shows_it(
    trained: Path, tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)  # artifacts go below the current folder
    with chromium() as browser:
        run = sweep(trained, tmp_path / "sweep")
        with ui_of(store, tmp_path) as address:
            look(browser, address, run, TRIALS, [tmp_path / "sweep" / "report" / "curves.png"], shots)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_on_a_server_with_postgresql_and_passwords(
    trained: Path, tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    with mlflow_server(MLFLOW_AUTH="true") as server, chromium() as browser:
        address = server.env["MLFLOW_TRACKING_URI"]
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(MlflowException, match="not authenticated"):
            connect(address).search_experiments()
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        run = sweep(trained, tmp_path / "sweep")
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        assert list((server.folder / "artifacts").rglob("curves.png"))
        server.kill()
        server.start()
        user, password = server.env["MLFLOW_TRACKING_USERNAME"], server.env["MLFLOW_TRACKING_PASSWORD"]
        browser.open(address.replace("://", f"://{user}:{password}@"))  # from here on the browser knows them
        look(browser, address, run, TRIALS, [tmp_path / "sweep" / "report" / "curves.png"], shots)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_training_as_mlflow_ui_shows_it(
    tiny: Tiny, tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("query\tanswer\nthe old river\ta bright garden .\nthe house\tnear the island .\n")
    settings = [
        f"run.dir={tmp_path / 'run'}",
        "run.name=mine",
        "track.mlflow=true",
        f"evaluate.retrieval={pairs}",
    ]
    command = [sys.executable, "-m", "unsee_dist.train", "--config", str(tiny.config), *settings]
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    launch.succeed(command, cwd=tmp_path, env=env, timeout_s=600)
    client = connect(store)
    experiment = client.get_experiment_by_name("unsee")
    [run] = client.search_runs([experiment.experiment_id])
    with ui_of(store, tmp_path) as address, chromium() as browser:
        page = f"{address}/#/experiments/{experiment.experiment_id}"
        browser.open(f"{page}/runs/{run.info.run_id}")
        browser.find("//*[normalize-space()='vicreg']")  # of the description
        shown = browser.text()
        for words in (
            f"Created by\n{run.info.user_id}",
            "Source\ntrain.py",
            "Datasets\nshards (",
            "constant.decay",
        ):
            assert words in shown, shown
        assert "without labels on" in shown
        browser.screenshot(shots / "run.png")
        browser.open(f"{page}/runs/{run.info.run_id}/model-metrics")
        browser.find("//*[normalize-space()='Loss and score']")
        browser.find("//*[contains(@class, 'js-line') or contains(@class, 'points')]")
        sections = re.findall(r"^(.+)\s\(\d+\)$", browser.text(), re.MULTILINE)
        assert sections[:2] == ["Loss and score", "dev"]
        browser.screenshot(shots / "charts-of-a-run.png")
        browser.open(f"{page}/models?workflowType=machine_learning")
        browser.find("//a[normalize-space()='mine']")
        browser.find("//*[normalize-space()='Ready']")
        browser.screenshot(shots / "model.png")
