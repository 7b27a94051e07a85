"""The parent run of a sweep in MLflow: one for the sweep's folder, its trials below it, its report as artifacts.

It is a run like any other (`MlflowSink`): its thread never holds up the sweep, a dead server loses nothing, the
folder's mlflow.json and the key in the run's tags keep it from being made twice. What it does besides:

    environment()     names the parent to a trial's training, by variables that `tracking.environment.describe` reads
    report folder     every file in it is an artifact, sent again whenever it has changed
    children          runs with the parent's key become its children, also those that began before MLflow answered;
                      none has the status RUNNING when the sweep is over
    send_left(trial)  sends what a trial that is over could not: its server may have been dead at its end
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.config import CONFIG, recorded
from unsee_dist.errors import UserError
from unsee_dist.tracking.environment import PARENT, describe
from unsee_dist.tracking.mlflow_run import RunDescription
from unsee_dist.tracking.mlflow_sink import MlflowSink
from unsee_dist.tracking.unsent import load

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class ParentRun:
    """The run of the sweep in `folder`. Lines of `folder`/metrics.jsonl (`step` = trials that are over) are its charts.

    report: a folder whose files become artifacts; write them under a name that begins with a dot and rename them.
    """

    def __init__(
        self,
        folder: Path,
        description: RunDescription,
        report: Path,
        uri: str | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._report, self._experiment, self._warn = report, description.experiment, warn
        self._answered = threading.Event()
        self._sent: dict[Path, str] = {}
        self._server: MlflowClient | None = None
        self._sink = MlflowSink(folder, description, uri, warn=self._fail, also=self._deliver)

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None until the server has answered."""
        return self._sink.run_id

    def environment(self, wait_s: float = 60.0) -> dict[str, str]:
        """The variables that make a training a child of this run: give them to every trial.

        Waits at most wait_s for the server's first answer or failure, so that trials do not all make its
        tables at once. A trial that starts without the id is found by the key later. Names and passwords of
        this process go along: a worker on another node has none.
        """
        self._answered.wait(wait_s)
        variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        variables |= {"MLFLOW_TRACKING_URI": self._sink.uri, "MLFLOW_EXPERIMENT_NAME": self._experiment}
        tags = {"unsee.parent": self._sink.key, "mlflow.parentRunId": self.run_id}
        return variables | {name: value for name, tag in PARENT.items() if (value := tags[tag])}

    def tag(self, key: str, value: str) -> None:
        """Set a tag, soon: best.train.lr, for example, or mlflow.note.content, the Markdown that its page shows as description."""
        self._sink.tag(key, value)

    def send_left(self, trial: Path, status: str = "FINISHED", timeout_s: float = 30.0) -> bool:
        """Send what the training in the folder `trial`, which is over, has not; True when nothing is left."""
        if not (trial / CONFIG).exists():
            return True
        try:
            if load(trial, None, {}).delivered:
                return True
            tree = recorded(trial).model_dump(mode="json")
        except UserError as error:  # one damaged file keeps none of the other trials from being sent
            self._warn(str(error))
            return False
        description = describe(tree["run"]["name"], tree, os.environ | self.environment(0))
        sink = MlflowSink(trial, description, self._sink.uri, warn=self._warn)
        return sink.close(timeout_s, status)

    def close(self, status: str = "FINISHED", timeout_s: float = 30.0) -> bool:
        """Send the rest and end the run as FINISHED, FAILED or KILLED; False when something is left to send."""
        return self._sink.close(timeout_s, status)

    def _fail(self, sentence: str) -> None:
        self._answered.set()
        self._warn(sentence)

    def _deliver(self, client: "MlflowClient", run_id: str, last: bool) -> None:
        if client is not self._server:  # a new start, or the server was away: perhaps it is another one
            self._sent = {}
        if client is not self._server or last:
            self._adopt(client, run_id, last)
        self._server = client
        self._answered.set()
        for path in sorted(self._report.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self._send(client, run_id, path)

    def _send(self, client: "MlflowClient", run_id: str, path: Path) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if self._sent.get(path) == digest:
            return
        place = path.relative_to(self._report).parent.as_posix()
        client.log_artifact(run_id, str(path), None if place == "." else place)
        self._sent[path] = digest

    def _adopt(self, client: "MlflowClient", run_id: str, last: bool) -> None:
        for child in _children(client, run_id, self._sink.key):
            if child.data.tags.get("mlflow.parentRunId") != run_id:
                client.set_tag(child.info.run_id, "mlflow.parentRunId", run_id)
            if last and child.info.status == "RUNNING":  # killed, and no process was left to set it
                client.set_terminated(child.info.run_id, "KILLED")


def _children(client: "MlflowClient", run_id: str, key: str) -> "Iterator[Run]":
    experiment, token = client.get_run(run_id).info.experiment_id, None
    while True:
        page = client.search_runs([experiment], f"tags.`unsee.parent` = '{key}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return
