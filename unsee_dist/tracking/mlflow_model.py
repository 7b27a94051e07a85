"""A run's encoder among MLflow's models: its name, scores and place. The weights stay in the run's folder.

MLflow calls such a model external. To copy the weights of a large encoder to a server takes minutes, at a moment at which a job may be
about to end, and they would be there twice; whoever wants them in MLflow logs the folder (docs/howto/mlflow.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXTERNAL = "mlflow.model.isExternal"  # MLflow's own tag
KIND = "sentence-encoder"  # MLflow shows and searches it as the model's type


@dataclass(frozen=True)
class ModelDescription:
    """What MLflow shows of an encoder. step: of its run. params: flat text. tags: where it is, for example."""

    name: str
    step: int
    params: Mapping[str, str]
    tags: Mapping[str, str]


def log_model(client: MlflowClient, run_id: str, model: ModelDescription) -> None:
    """Make the model an output of the run. One that the run has already, of this step and place, is left as it is."""
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    made = run.outputs.model_outputs if run.outputs else []
    for output in made:
        known = client.get_logged_model(output.model_id)
        if output.step == model.step and model.tags.items() <= known.tags.items():
            return
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=model.name,
        source_run_id=run_id,
        tags={**model.tags, EXTERNAL: "true"},
        params=dict(model.params),
        model_type=KIND,
    )
    _log_file(client, logged.model_id)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, model.step)])


def _log_file(client: MlflowClient, model_id: str) -> None:
    """MLmodel, without which nobody could register the model."""
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(client.get_logged_model(model_id)).save(
            str(Path(folder) / MLMODEL_FILE_NAME)
        )
        client.log_model_artifacts(model_id, folder)
