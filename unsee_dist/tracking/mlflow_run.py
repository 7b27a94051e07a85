"""A run in MLflow: found by its id or its key, else made; its parameters, tags and metrics in calls of a size that MLflow accepts."""

import json
import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unsee_dist.tracking.unsent import Unsent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# A dead server must answer "dead" soon: MLflow's defaults keep trying for about four minutes a call.
QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
Item = TypeVar("Item")
SQLITE = "sqlite:///"
NOTE = "mlflow.note.content"  # the Markdown that the run's page shows as description
# How MLflow's page shows an experiment: as one of machine learning, not of "GenAI apps & agents".
KIND = {"mlflow.experimentKind": "custom_model_development"}
METRICS_A_CALL, PARAMS_A_CALL, PARAM_LENGTH, TAG_LENGTH = 1000, 100, 6000, 8000  # MLflow's own limits


@dataclass(frozen=True)
class RunDescription:
    """What MLflow shows of a run. params: flat text, logged once. tags: environment, user, source, parent. note: Markdown, whose first
    line tells it from one that a person wrote. corpus: what it reads."""

    experiment: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    corpus: "CorpusDescription | None" = None


@dataclass(frozen=True)
class CorpusDescription:
    """The input of a run. digest: of all its sentences, 36 characters at most. source: where it is."""

    name: str
    digest: str
    source: str
    sentences: int


def connect(uri: str) -> "MlflowClient":
    """A client that gives up soon when nobody answers. mlflow takes seconds to import: call it from a thread."""
    for name, value in QUIET.items():  # MLflow reads them at each call; the user's own values win
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # Not restored: MLflow logs from threads of its own until the process ends, between the lines of the run.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Says at each call, over our lines, what the error says that comes then: databricks without its credentials.
    logging.getLogger("mlflow.utils.databricks_utils").setLevel(logging.ERROR)
    if uri.startswith(SQLITE) and "?" not in uri:
        _make_database(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """Make the file of a new database in one move: MLflow cannot mend its tables when the disk was full between them, nor
    make them twice at once. OSError, or an error of MLflow: there is no file then."""
    if path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(
        f".{path.name}.{uuid.uuid4().hex}.partial"
    )  # MLflow keeps a file open under its name
    try:
        new.touch()
        MlflowClient(tracking_uri=f"{SQLITE}{new}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # another process was faster
            os.link(new, path)
    finally:
        for each in path.parent.glob(f"{new.name}*"):  # and its journal
            each.unlink()


def open_run(client: "MlflowClient", description: RunDescription, state: Unsent) -> "Run":
    experiment_id = _experiment(client, description.experiment)
    run = _living(client, state.run_id) if state.run_id else None
    if run is None:  # made, but the answer came too late; or the id is another server's
        runs = client.search_runs([experiment_id], f"tags.`unsee.key` = '{state.key}'", max_results=1)
        run = runs[0] if runs else None
    if run is None:
        # user and source, which a run is made with
        tags = {name: value for name, value in description.tags.items() if name.startswith("mlflow.")}
        tags["unsee.key"] = state.key
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
        for key in KIND.keys() - experiment.tags.keys():  # one that a person has chosen stays
            client.set_experiment_tag(experiment.experiment_id, key, KIND[key])
        return str(experiment.experiment_id)
    try:
        return client.create_experiment(name, tags=KIND)
    except MlflowException as error:  # another run made it in between
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment(client, name)


def log_params(client: "MlflowClient", run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value[:PARAM_LENGTH]) for key, value in params.items()]
    for part in _parts(entities, PARAMS_A_CALL):
        client.log_batch(run_id, params=part)


def log_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value[:TAG_LENGTH]) for key, value in tags.items()])


def log_corpus(client: "MlflowClient", run: "Run", corpus: CorpusDescription) -> None:
    """Name the corpus as what the run was trained on, once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if run.inputs and any(each.dataset.digest == corpus.digest for each in run.inputs.dataset_inputs):
        return
    source, profile = json.dumps({"uri": corpus.source}), json.dumps({"sentences": corpus.sentences})
    dataset = Dataset(corpus.name, corpus.digest, "local", source, profile=profile)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def is_written_by_a_person(client: "MlflowClient", run_id: str, note: str) -> bool:
    """Whether the run has a description that is none of ours: ours begin with the same line."""
    there = client.get_run(run_id).data.tags.get(NOTE, "")
    return bool(there) and there.partition("\n")[0] != note.partition("\n")[0]


def log_metrics(client: "MlflowClient", run_id: str, values: Sequence[tuple[str, float, int, int]]) -> None:
    """values: key, value, time in ms, step."""
    from mlflow.entities import Metric

    for part in _parts([Metric(*value) for value in values], METRICS_A_CALL):
        client.log_batch(run_id, metrics=part)


def _parts(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
