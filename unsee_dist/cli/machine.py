"""`unsee quickstart`, `unsee bench` and `unsee doctor`: commands about this machine."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.training import Overrides
from unsee_dist.config import load
from unsee_dist.errors import UserError
from unsee_dist.masking import masked

app = typer.Typer()


@app.command()
def quickstart() -> None:
    """Train a small encoder on the docstrings of the installed packages, and evaluate it."""
    from unsee_dist.quickstart import main as run

    run()


@app.command()
def bench(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="Absent: the quickstart's preset, corpus and encoder, made if missing; unsee-vicreg where --only needs no corpus.",
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench.json"),
    peer_unsee: Annotated[
        Path | None, typer.Option(help="A checkout of asparius/UNSEE, timed beside ours.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="training, masks, recovery, corpus, order, index (memory at ten billion sentences), sweep, scale (what a step sends "
            "on up to 1,024 ranks) or gpu (BERT-base, under five minutes); again for another. order, index, scale and gpu need no "
            "corpus. Absent: all, gpu where there is one."
        ),
    ] = None,
) -> None:
    """Time training by its parts, reading a corpus, recovery and sweeps, beside others: tables and a JSON."""
    from unsee_dist import bench as benchmark

    for part in only or ():
        if part not in benchmark.PARTS:
            raise UserError(f"--only {part} is unknown. Write one of {', '.join(benchmark.PARTS)}.")

    needs_corpus = not only or not benchmark.WITHOUT_CORPUS.issuperset(only)
    chosen, changed = config or ("quickstart" if needs_corpus else "unsee-vicreg"), list(overrides or ())
    if config is None and needs_corpus:
        from unsee_dist import quickstart as start

        corpus, encoder = start.HOME / "corpus", start.HOME / "encoder"
        start.make_corpus(corpus)
        start.make_encoder(encoder, corpus)
        changed += [f"data.shards={corpus}", f"model.encoder=./{encoder}"]
    load(chosen, changed)
    benchmark.main(chosen, changed, out, peer_unsee, only or None)


@app.command()
def doctor() -> None:
    """Print versions, devices, threads, the launcher's environment, and how a run would use them."""
    import torch

    from unsee_dist.distributed.engine import cpu_computes_bf16

    names = ("unsee_dist", "torch", "deepspeed", "transformers", "mlflow", "sentence-transformers")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = {
        "versions": ", ".join([f"python {sys.version.split()[0]}", *(_version(name) for name in names)]),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}, torch uses {torch.get_num_threads()}",
        "devices": ", ".join(gpus) or "no GPU",
        "launcher": _launcher(),
        "tracking": masked(
            os.environ.get("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI is not set: sqlite:///mlflow.db")
        ),
        "a run": _would_use(len(gpus), torch.cuda.is_bf16_supported() if gpus else cpu_computes_bf16()),
    }
    for name, line in lines.items():
        typer.echo(f"{name:<10} {line}")


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} missing"


def _launcher() -> str:
    """The launcher of this process, from the variables that distributed/process_group.py reads."""
    seen = os.environ
    if "RANK" in seen:
        meeting = f"{seen.get('MASTER_ADDR', '?')}:{seen.get('MASTER_PORT', '?')}"
        return f"rank {seen['RANK']} of {seen.get('WORLD_SIZE', '?')} (deepspeed or torchrun), meeting at {meeting}"
    if "SLURM_STEP_NUM_TASKS" in seen:
        return f"rank {seen.get('SLURM_PROCID', '?')} of {seen['SLURM_STEP_NUM_TASKS']} (srun)"
    return "none: one process"


def _would_use(gpus: int, bf16: bool) -> str:
    if gpus == 0:
        several = "deepspeed --num_accelerators N --module unsee_dist.train --config CONFIG"
        advice = "" if bf16 else "; this CPU has no units for bf16: write parallel.precision=fp32"
        return f"`unsee train` is 1 CPU rank; N ranks over gloo: DS_ACCELERATOR=cpu {several}{advice}"
    advice = "" if bf16 else "; these GPUs have no bf16: write parallel.precision=fp16 or fp32"
    several = f"deepspeed --num_gpus {gpus} --module unsee_dist.train --config CONFIG"
    return f"`unsee train` is 1 GPU rank; {gpus} over nccl: {several}{advice}"
