"""What a run talks to: the Hub or its cache, MLflow, Slurm, Ray, and names and ports of this host."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from unsee_dist.distributed.slurm import port_of_job
from unsee_dist.doctor.findings import Finding, Level
from unsee_dist.errors import EXTRA_OF, UserError
from unsee_dist.masking import masked
from unsee_dist.tracking.mlflow_sink import tracking_uri

PASS, WARN, FAIL = Level.PASS, Level.WARN, Level.FAIL
ANSWER_S = 5.0
PORT = 29500  # of torchrun and deepspeed, where nobody says another


def hub() -> Iterator[Finding]:
    """The Hub answers, or the cache is what there is."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    kept = f"{models} model{'s' * (models != 1)} in {cache}"
    if constants.is_offline_mode():
        yield Finding(PASS, "hub", f"offline (HF_HUB_OFFLINE); {kept}")
        return
    answer = _answer(constants.ENDPOINT)
    if answer:
        remedy = "Without a network: export HF_HUB_OFFLINE=1, and give model.encoder a folder"
        yield Finding(WARN, "hub", f"{masked(constants.ENDPOINT)} does not answer ({answer}); {kept}", remedy)
    else:
        yield Finding(PASS, "hub", f"{masked(constants.ENDPOINT)} answers; {kept}")


def _answer(url: str) -> str:
    """Why nobody answers at a URL; "" where somebody does, with any answer."""
    try:
        parts = urlsplit(url)
        bare = parts._replace(
            netloc=parts.netloc.rpartition("@")[2]
        ).geturl()  # urllib knows no user in a URL
        urllib.request.urlopen(urllib.request.Request(bare, method="HEAD"), timeout=ANSWER_S).close()
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return masked(str(getattr(error, "reason", error)))
    return ""


def mlflow() -> Iterator[Finding]:
    """Where runs would be sent. A run goes on without it, so nothing here fails."""
    try:
        uri = tracking_uri()
    except UserError as error:
        yield Finding(FAIL, "mlflow", str(error), "Or train with track.mlflow=false")
        return
    shown = masked(uri)
    if find_spec("mlflow") is None:
        remedy = f'pip install "unsee_dist[{EXTRA_OF["mlflow"]}]", or train with track.mlflow=false'
        yield Finding(WARN, "mlflow", "not installed: metrics.jsonl is the only record", remedy)
    elif uri.startswith("http"):
        answer = _answer(f"{uri.rstrip('/')}/health")
        remedy = "Start it (cluster/mlflow/start.sh); metrics.jsonl keeps everything until it answers"
        if answer:
            yield Finding(WARN, "mlflow", f"{shown} does not answer ({answer})", remedy)
        else:
            yield Finding(PASS, "mlflow", f"{shown} answers")
    elif uri.startswith("sqlite:///"):
        place = Path(uri.removeprefix("sqlite:///")).absolute().parent
        if os.access(place, os.W_OK):
            yield Finding(PASS, "mlflow", f"{shown}, a file in {place}")
        else:
            yield Finding(
                WARN, "mlflow", f"{shown}: {place} cannot be written", "Set MLFLOW_TRACKING_URI to a server"
            )
    else:
        yield Finding(PASS, "mlflow", f"{shown}, not connected to")


def slurm(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether this is a job of Slurm, and all of its tasks were started."""
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        there = "its commands are here" if shutil.which("srun") else "not here"
        yield Finding(PASS, "slurm", f"{there}; this process is not in one of its jobs")
        return
    tasks, nodes = environment.get("SLURM_NTASKS", "1"), environment.get("SLURM_JOB_NUM_NODES", "1")
    what = f"job {job}, {nodes} node{'s' * (nodes != '1')}, {tasks} task{'s' * (tasks != '1')}"
    if tasks != "1" and "SLURM_STEP_NUM_TASKS" not in environment and "RANK" not in environment:
        yield Finding(WARN, "slurm", f"{what}, of which this process is one alone", "Write srun unsee doctor")
    else:
        yield Finding(PASS, "slurm", what)


def ray(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether a cluster of Ray answers where RAY_ADDRESS says; sweeps and --engine ray use it."""
    address = environment.get("RAY_ADDRESS")
    if find_spec("ray") is None:
        remedy = 'For sweeps: pip install "unsee_dist[sweep]"' if address else ""
        yield Finding(
            WARN if address else PASS, "ray", "not installed: no sweeps, no --engine ray here", remedy
        )
        return
    if not address or address in ("auto", "local"):
        yield Finding(PASS, "ray", f"RAY_ADDRESS is {address or 'not set'}: a sweep uses this machine")
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=ANSWER_S):
            yield Finding(PASS, "ray", f"{masked(address)} answers")
    except (OSError, ValueError) as error:
        remedy = "Start it (cluster/ray-local/start.sh or slurm/ray-node.sh), or leave RAY_ADDRESS out"
        yield Finding(WARN, "ray", f"{masked(address)} does not answer ({error})", remedy)


def ports(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether this host finds itself by its name, and where ranks would meet. Under a launcher they have met."""
    name = socket.gethostname()
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError as error:
        remedy = f"Write a line for {name} into /etc/hosts, or export MASTER_ADDR and GLOO_SOCKET_IFNAME"
        yield Finding(WARN, "ports", f"{name} has no address ({error})", remedy)
        return
    if "RANK" in environment and "MASTER_PORT" in environment:
        meeting = f"{environment.get('MASTER_ADDR')}:{environment['MASTER_PORT']}"
        yield Finding(PASS, "ports", f"{name} is {address}; ranks meet at {meeting}")
        return
    job = environment.get("SLURM_JOB_ID", "")
    port = port_of_job(int(job)) if job.isdecimal() else PORT
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(("", port))
        except OSError:
            remedy = f"Another program has it: deepspeed --master_port {port + 1}, or torchrun --master-port {port + 1}"
            yield Finding(
                WARN, "ports", f"{name} is {address}; port {port}, where ranks meet, is in use", remedy
            )
            return
    yield Finding(PASS, "ports", f"{name} is {address}; port {port}, where ranks meet, is free")
