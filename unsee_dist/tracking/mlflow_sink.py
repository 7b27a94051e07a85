"""MLflow beside a run, never in its way (the only importer of mlflow).

metrics.jsonl is the record of a run; this sends it on. A thread reads what was added to the file and
logs it in batches, so the training loop never calls MLflow, a server that is slow costs nothing, and one
that is dead loses nothing: the file is what remains to be sent, at the next try, at `close`, or when the
same command starts again. What the server already has is asked of the server (the newest step of each
metric), so nothing is logged twice however often either side was killed.

    metrics.jsonl ──read from offset──► lines newer than the server's ──log_batch──► MLflow
    mlflow.json   the run's id, its key, and tags not yet delivered
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee_dist.tracking.unsent import Unsent, added, load

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVERY_S = 5.0  # between sendings: log_batch costs about 0.1 s per 1,000 values of sqlite
METRICS_A_CALL, PARAMS_A_CALL, PARAM_LENGTH, TAG_LENGTH = 1000, 100, 6000, 8000  # MLflow's own limits

# A dead server must answer "dead" soon: MLflow's defaults keep trying for about four minutes a call.
QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class RunDescription:
    """What MLflow shows of a run. params: flat text, logged once. tags: environment, git commit, parent."""

    experiment: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)


def tracking_uri(uri: str | None = None) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else sqlite in the current folder (MLflow's file store is gone)."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


class MlflowSink:
    """Sends `folder`/metrics.jsonl to MLflow from a thread; make it on rank 0, after `cut_back` on resume.

    run_id: that of the checkpoint, or None; `folder`/mlflow.json knows it too. warn is called, from the
    thread, with one sentence when MLflow stops answering. No method raises and none waits for MLflow
    except `close`, which waits at most its timeout.
    """

    def __init__(
        self,
        folder: Path,
        description: RunDescription,
        uri: str | None = None,
        run_id: str | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.uri = tracking_uri(uri)
        self._file, self._state_file = folder / "metrics.jsonl", folder / "mlflow.json"
        self._description, self._warn = description, warn
        self._state = load(self._state_file, run_id, description.tags)
        self._lock, self._stop, self._given_up = threading.Lock(), threading.Event(), threading.Event()
        self._status = "FINISHED"
        self._offset, self._newest = 0, {}  # type: int, dict[str, int]
        self._client: MlflowClient | None = None
        self._delivered = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this run for the checkpoint; None until the server has answered."""
        return self._state.run_id

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run (such as the exported model's path), soon."""
        with self._lock:
            self._state.tags[key] = value

    def rewind(self) -> None:
        """metrics.jsonl was cut back: read it from its start; what MLflow has is not sent again."""
        self._client = None

    def close(self, timeout_s: float = 30.0, status: str = "FINISHED") -> bool:
        """Send the rest and end the run as FINISHED, FAILED or KILLED; close metrics.jsonl first.

        Waits at most timeout_s. False when something is left to send; then the warning says what to do.
        """
        self._status = status
        self._stop.set()
        self._thread.join(timeout_s)
        self._given_up.set()
        if not self._delivered:
            self._warn(
                f"MLflow at {self.uri} has not got all of this run. It is all in {self._file}; the same "
                "command sends the rest once the server is there."
            )
        return self._delivered

    def _work(self) -> None:
        down = False
        wait_s = 0.0
        while True:
            stopping = self._stop.wait(wait_s)
            try:
                self._deliver(stopping)
                down, wait_s = False, EVERY_S
            except Exception as error:  # whatever a tracker does, training goes on: say it once, try again
                if not down and not stopping:
                    self._warn(f"MLflow at {self.uri} does not answer ({_first_line(error)}). {LATER}")
                down, wait_s = True, min(60.0, max(EVERY_S, 2 * wait_s))
                self._client = None  # ask the server again what it has
            if stopping:
                return

    def _deliver(self, stopping: bool) -> None:
        if self._client is None:
            self._connect()
        client, run_id = self._client, self.run_id
        assert client is not None
        assert run_id is not None
        self._send_tags(client, run_id)
        while not self._given_up.is_set():
            lines, offset = added(self._file, self._offset)
            if not lines:
                break
            self._send(client, run_id, lines)
            self._offset = offset
        if stopping and not self._given_up.is_set():
            self._send_tags(client, run_id)
            client.set_terminated(run_id, self._status)
            self._delivered = True

    def _connect(self) -> None:
        # Here and not above: mlflow takes seconds to import, which the thread spends beside training.
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import logging

        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=self.uri)
        self._state.save(self._state_file)
        run = _open_run(client, self._description, self._state)
        with self._lock:
            self._state.run_id = run.info.run_id
        self._state.save(self._state_file)
        missing = {k: v for k, v in self._description.params.items() if k not in run.data.params}
        _log_params(client, run.info.run_id, missing)
        self._newest = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._offset = 0
        self._client = client

    def _send_tags(self, client: "MlflowClient", run_id: str) -> None:
        from mlflow.entities import RunTag

        with self._lock:
            tags = dict(self._state.tags)
        if not tags:
            return
        self._state.save(self._state_file)
        client.log_batch(run_id, tags=[RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()])
        with self._lock:
            self._state.tags = {k: v for k, v in self._state.tags.items() if tags.get(k) != v}
        self._state.save(self._state_file)

    def _send(self, client: "MlflowClient", run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for line in lines:
            step, at_ms = int(line["step"]), int(1000 * line.get("time", time.time()))
            for key, value in line.items():
                number = isinstance(value, int | float) and key not in ("step", "time")
                if number and step > self._newest.get(key, -1):
                    metrics.append(Metric(key, float(value), at_ms, step))
                    self._newest[key] = step
        for part in _parts(metrics, METRICS_A_CALL):
            client.log_batch(run_id, metrics=part)


LATER = "Training goes on; metrics.jsonl keeps everything and is sent when it answers."


def _open_run(client: "MlflowClient", description: RunDescription, state: Unsent) -> "Run":
    experiment_id = _experiment(client, description.experiment)
    run = _living(client, state.run_id) if state.run_id else None
    if run is None:  # made, but the answer came too late; or the id is another server's
        found = client.search_runs([experiment_id], f"tags.`unsee.key` = '{state.key}'", max_results=1)
        run = found[0] if found else None
    if run is None:
        tags = {"unsee.key": state.key}
        return client.create_run(experiment_id, tags=tags, run_name=description.name)
    client.update_run(run.info.run_id, status="RUNNING")
    return run


def _living(client: "MlflowClient", run_id: str) -> "Run | None":
    """The run, or None when this server never had it or somebody deleted it (a new one takes its place)."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return client.create_experiment(name)
    except MlflowException as error:  # another run made it in between
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment(client, name)


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value[:PARAM_LENGTH]) for key, value in params.items()]
    for part in _parts(entities, PARAMS_A_CALL):
        client.log_batch(run_id, params=part)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
