"""The environment of a run: versions, machine, git commit, and its configuration as flat text."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.masking import published
from unsee_dist.tracking.mlflow_run import CorpusDescription, RunDescription

if TYPE_CHECKING:
    import torch

    from unsee_dist.config import RunConfig

PACKAGES = ("unsee_dist", "torch", "deepspeed", "transformers", "tokenizers", "webdataset", "numpy", "mlflow")


# By these variables a sweep names the parent run to its trials; the key is set also when MLflow has not answered yet.
PARENT = {"MLFLOW_PARENT_RUN_ID": "mlflow.parentRunId", "UNSEE_PARENT_KEY": "unsee.parent"}


def describe(
    name: str,
    tree: Mapping[str, object],
    variables: Mapping[str, str] = os.environ,
    note: str = "",
    corpus: CorpusDescription | None = None,
) -> RunDescription:
    """The description of run `name` with configuration `tree`, in MLFLOW_EXPERIMENT_NAME (or "unsee").

    MLFLOW_PARENT_RUN_ID makes it a child of that run. note, corpus: see RunDescription.
    """
    experiment = variables.get("MLFLOW_EXPERIMENT_NAME") or "unsee"
    parent = {tag: variables[name] for name, tag in PARENT.items() if variables.get(name)}
    tags = environment() | who_and_what() | parent
    return RunDescription(experiment, name, flatten(tree), tags, note, corpus)


def who_and_what() -> dict[str, str]:
    """MLflow's tags of the user, where this machine knows one, and of the program that was started."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-", "-c") else "python"
    tags = {"mlflow.source.name": program, "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def note_of_run(config: RunConfig, steps: int, sentences: int) -> str:
    """The description of a run for people, in Markdown. sentences: of the corpus."""
    train, folder = config.train, published(config.run.dir)
    corpus = published(config.data.mix or config.data.shards)
    return (
        f"**{config.objective.name}** trains `{published(config.model.encoder)}` without labels on `{corpus}` ({sentences:,} sentences): "
        f"{steps:,} steps of {train.batch}, learning rate {train.lr:g}, {config.parallel.precision}, seed {config.seed}.\n\n"
        f"Folder `{folder}` on {socket.gethostname()}. All of it on one page: `unsee report {folder}`."
    )


def environment() -> dict[str, str]:
    """Tags of this environment: python, platform, version.<package> of each installed package, git commit."""
    tags = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            tags[f"version.{package}"] = "absent"
    return tags | git_commit(Path(__file__).resolve().parents[2])


def of_this_start(device: torch.device) -> dict[str, str]:
    """What the history of a run keeps of a start: the environment, the host of rank 0 and its device."""
    from unsee_dist.distributed.placement import device_name

    return environment() | {"host": socket.gethostname(), "device": device_name(device)}


def git_commit(root: Path) -> dict[str, str]:
    """mlflow.source.git.commit and git.dirty of a checkout whose top folder is `root`; empty otherwise.

    A package installed inside the virtual environment of somebody's project is not of that project.
    """
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return {}
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return {"mlflow.source.git.commit": commit, "git.dirty": str(dirty).lower()}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """A nested configuration as {"section.key": "value"}; an absent value (None) is written as "absent".

    For a tracker that others read, too: without secrets, and with ~ for the home folder.
    """
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "absent" if value is None else published(str(value))
    return flat
