"""MLflow beside a run: it never holds up the training.

metrics.jsonl is the record of a run; this sends it on. A thread reads what was added to the file and
logs it in batches, so the training loop never calls MLflow, a server that is slow costs nothing, and one
that is dead loses nothing: the file is what remains to be sent, at the next try, at `close`, or when the
same command starts again. The server is asked what it has already (the newest step of each metric), so nothing is logged twice however often either side was killed.

    metrics.jsonl ──read from offset──► lines newer than the server's ──log_batch──► MLflow
    mlflow.json   the run's id, its key, tags not yet delivered, and whether MLflow has all of it
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from unsee_dist.errors import UserError, foreseen, is_our_bug, report
from unsee_dist.masking import masked
from unsee_dist.metrics.names import TIME
from unsee_dist.tracking import mlflow_run
from unsee_dist.tracking.metrics_file import METRICS, added
from unsee_dist.tracking.mlflow_charts import Charts
from unsee_dist.tracking.mlflow_run import RunDescription
from unsee_dist.tracking.unsent import load

if TYPE_CHECKING:
    from mlflow import MlflowClient

Also = Callable[["MlflowClient", str, bool], None]

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
BARE = ("databricks", "databricks-uc", "uc")  # also without a host
PLUGINS = "mlflow.tracking_store"  # entry points of packages that bring other stores

EVERY_S = 5.0  # between sendings: log_batch costs about 0.1 s per 1,000 values of sqlite


def tracking_uri(uri: str | None = None) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else sqlite in the current folder (MLflow's file store is gone).

    Relative: a # or a ? in the folder's name would end the path inside the URI.
    UserError: it is no URI, which MLflow would take for the folder of a file store.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if not _is_address(uri):
        raise UserError(
            f"MLFLOW_TRACKING_URI = {masked(uri)} is not an address of an MLflow server or file. Write http://HOST:PORT, or "
            "sqlite:////FOLDER/mlflow.db, or leave the variable out."
        )
    return uri


def _is_address(uri: str) -> bool:
    scheme, _, rest = uri.partition(":")
    if scheme in BARE:
        return True
    start = "///" if scheme.startswith("sqlite") else "//"
    try:
        address = urlsplit(uri)
        if address.port == 0 or (scheme in ("http", "https") and not address.hostname):
            return False
    except ValueError:  # a port that is no number or above 65535, an open bracket
        return False
    known = scheme.partition("+")[0].lower() in SCHEMES or bool(entry_points(group=PLUGINS, name=scheme))
    return known and rest.startswith(start) and len(rest) > len(start)


class MlflowSink:
    """Sends `folder`/metrics.jsonl to MLflow from a thread; make it on rank 0, after `cut_back` on resume.

    run_id: that of the checkpoint, or None; `folder`/mlflow.json has it too. warn is called, from the
    thread, with one sentence when MLflow stops answering. also is called at each sending, from the thread,
    with the client, the run's id and whether it is the last; what it raises counts as no answer. UserError: mlflow.json is damaged. No other method
    raises and none waits for MLflow except `close`, which waits at most its timeout.
    """

    def __init__(
        self,
        folder: Path,
        description: RunDescription,
        uri: str | None = None,
        run_id: str | None = None,
        warn: Callable[[str], None] = print,
        also: Also | None = None,
    ) -> None:
        self.uri, self._also = tracking_uri(uri), also
        self._file, self._folder = folder / METRICS, folder
        self._description, self._warn = description, warn
        note = {mlflow_run.NOTE: description.note} if description.note else {}
        self._state = load(folder, run_id, {**description.tags, **note})
        self._lock, self._stop, self._given_up = threading.Lock(), threading.Event(), threading.Event()
        self._status = "FINISHED"
        self._offset, self._charts = 0, Charts({})
        self._client: MlflowClient | None = None
        self._delivered, self._why = False, ""
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def key(self) -> str:
        """Our own name of the run, known before MLflow has answered."""
        return self._state.key

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
                f"MLflow at {masked(self.uri)} has not received all of this run{self._why}. {self._file} has all of it; the same "
                "command sends the rest when the server answers."
            )
        return self._delivered

    def _work(self) -> None:
        down, reported = False, set[str]()
        wait_s = 0.0
        while True:
            stopping = self._stop.wait(wait_s)
            try:
                self._deliver(stopping)
                down, wait_s, self._why = False, EVERY_S, ""
            except Exception as error:  # training continues in any case: warn once, try again
                self._why = f" ({_first_line(error)})"
                if is_our_bug(error):
                    if str(error) not in reported:
                        report(error, "sending to MLflow")
                        self._warn(LATER)
                    reported.add(str(error))
                elif not down and not stopping:
                    self._warn(
                        f"MLflow at {masked(self.uri)} does not answer ({_first_line(error)}). {LATER}"
                    )
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
        if self._also is not None:
            self._also(client, run_id, stopping)
        if stopping and not self._given_up.is_set():
            for key, value in self._charts.constants.items():
                self.tag(f"constant.{key}", f"{value:g}")
            self._send_tags(client, run_id)
            client.set_terminated(run_id, self._status)
            self._state.delivered = self._delivered = True
            self._state.save(self._folder)

    def _connect(self) -> None:
        client = mlflow_run.connect(self.uri)
        self._state.delivered = False
        self._state.save(self._folder)
        run = mlflow_run.open_run(client, self._description, self._state)
        with self._lock:
            self._state.run_id = run.info.run_id
        self._state.save(self._folder)
        missing = {k: v for k, v in self._description.params.items() if k not in run.data.params}
        mlflow_run.log_params(client, run.info.run_id, missing)
        if self._description.corpus is not None:
            mlflow_run.log_corpus(client, run, self._description.corpus)
        self._charts = Charts({metric.key: metric.step for metric in run.data.to_proto().metrics})
        self._offset = 0
        self._client = client

    def _send_tags(self, client: "MlflowClient", run_id: str) -> None:
        with self._lock:
            tags = dict(self._state.tags)
        if not tags:
            return
        self._state.save(self._folder)
        note = tags.get(mlflow_run.NOTE)
        kept = note is not None and mlflow_run.is_written_by_a_person(client, run_id, note)
        mlflow_run.log_tags(
            client, run_id, {k: v for k, v in tags.items() if not (kept and k == mlflow_run.NOTE)}
        )
        with self._lock:
            self._state.tags = {k: v for k, v in self._state.tags.items() if tags.get(k) != v}
        self._state.save(self._folder)

    def _send(self, client: "MlflowClient", run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        now = time.time()
        points = [
            point for line in lines for point in self._charts.points(line, int(1000 * line.get(TIME, now)))
        ]
        mlflow_run.log_metrics(client, run_id, points)


def send_page(client: "MlflowClient", run_id: str, page: Path) -> None:
    """Send a run's page as an artifact, where there is one."""
    if page.is_file():
        client.log_artifact(run_id, str(page))


def send_output(what: str, send: Callable[[], None], warn: Callable[[str], None]) -> None:
    """Send something at a run's end. A store that does not take it (an artifact root of another machine, say) keeps neither the
    metrics nor the run's end from being sent."""
    try:
        send()
    except Exception as error:
        if is_our_bug(error):
            raise
        warn(f"MLflow has not taken {what} ({_first_line(error)}). The run's folder has it all the same.")


LATER = "Training continues; metrics.jsonl keeps everything and is sent when it answers."


def _first_line(error: Exception) -> str:
    error = foreseen(error) or error
    return masked((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
