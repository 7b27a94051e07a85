"""`unsee bench`: where a step's time goes, by objective, ZeRO stage, precision, ranks and micro-batch. One table, one JSON.

Each case is a run's own engine, stream and target (run.build) in processes of its own, so that peak memory is the
case's. Times are medians over steps after warm-up; compare rows of one call, machines differ and are noisy.

utilisation = arithmetic of the non-padding tokens / (time x the matmul ceiling measured in the same process)
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # see train.py
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.table import Table

STAGES = (
    "wait",
    "online",
    "target",
    "projector",
    "objective",
    "backward",
    "finish",
    "optimizer",
    "ema",
    "logging",
)
WARM_UP, STEPS = 3, 12

# One thing changed at a time from the preset: (label, ranks, overrides).
CASES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("as configured", 1, ()),
    ("data.pack=false", 1, ("data.pack=false",)),
    ("precision fp32", 1, ("parallel.precision=fp32",)),
    ("precision bf16", 1, ("parallel.precision=bf16",)),
    ("micro_batch 8", 1, ("train.micro_batch=8",)),
    ("vicreg", 1, ("objective.name=vicreg",)),
    ("barlow_twins", 1, ("objective.name=barlow_twins",)),
    ("corinfomax", 1, ("objective.name=corinfomax",)),
    ("byol", 1, ("objective.name=byol",)),
    (
        "simcse",
        1,
        ("objective.name=simcse", "target.kind=online", "projector.kind=tanh", "projector.side=both"),
    ),
    *((f"ZeRO-{stage}, 2 ranks", 2, (f"parallel.zero={stage}",)) for stage in range(4)),
)


def main(config: str, overrides: Sequence[str], out: Path) -> None:
    """Run every case, print the table, write `out` (JSON). Raises ValueError when a case fails."""
    rows: list[dict[str, Any]] = []
    console = Console(highlight=False)
    for label, ranks, changed in CASES:
        console.print(f"{label} ...", markup=False)
        rows.append({"case": label, "ranks": ranks} | _in_processes(config, [*overrides, *changed], ranks))
    out.write_text(json.dumps({"config": config, "overrides": list(overrides), "rows": rows}, indent=1))
    console.print(_table(rows))
    console.print(f"written to {out}", markup=False)


def _in_processes(config: str, overrides: list[str], ranks: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command += [__file__, config, *overrides, f"run.dir={folder}/run", "track.mlflow=false"]
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not found:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise ValueError(f"{' '.join(overrides)} on {ranks} ranks failed: {' / '.join(said[-3:])}")
        row: dict[str, Any] = json.loads(found[-1])
        return row


def measure(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """One case in this process (one of its ranks): medians in milliseconds, rates, padding, memory."""
    import torch

    from unsee_dist.config import load
    from unsee_dist.parallel import process
    from unsee_dist.run import build

    settings = load(config, overrides)
    world = process.start()
    run = build(settings, world)
    spent: dict[str, list[float]] = defaultdict(list)
    tokens, cells, sentences = 0, 0, 0
    batches = _alone(run, WARM_UP + STEPS, spent)
    for batch, step in zip(batches, range(WARM_UP + STEPS), strict=True):
        if step == WARM_UP:
            for times in spent.values():
                times.clear()
            tokens = cells = sentences = 0
        tokens += batch.tokens
        cells += sum(piece.input_ids.numel() for piece in batch.pieces)
        sentences += len(batch.ids)
    ms = {
        stage: 1000 * statistics.median(spent[stage]) if spent[stage] else 0.0 for stage in (*STAGES, "step")
    }
    seconds = sum(spent["step"])
    dtype = torch.float32 if settings.parallel.precision == "fp32" else torch.bfloat16
    ceiling = _matmul_ceiling(world.device, dtype)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if world.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    row = {
        "ms": ms,
        "sentences_per_s": world.size * sentences / seconds,
        "tokens_per_s": world.size * tokens / seconds,
        "padding": 1 - tokens / cells,
        "peak_mib": memory,
        "ceiling_gflops": ceiling / 1e9,
        "utilisation": _arithmetic(run.engine.module, tokens, sentences) / seconds / ceiling,
        "data_sentences_per_s": _data_alone(run, settings.train.batch),
    }
    run.record.close()
    process.stop()
    return row if world.rank == 0 else {}


def _alone(run: Any, steps: int, spent: dict[str, list[float]]) -> Iterator[Any]:
    """The steps of a run with a clock around each part. Hooks time the networks inside the engine's forward."""
    import torch

    from unsee_dist.training.loop import line
    from unsee_dist.training.step import Taken, seed_step

    engine, model = run.engine, run.engine.module
    state = {"backward": False}
    inside: dict[str, float] = defaultdict(float)

    def now() -> float:
        if engine.world.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(name: str, module: Any) -> None:
        begun: list[float] = []
        module.register_forward_pre_hook(lambda *_: begun.append(now()))

        def end(*_: Any) -> None:
            taken = now() - begun.pop()
            if not state["backward"]:  # a recomputed piece belongs to backward
                inside[name] += taken

        module.register_forward_hook(end)

    for name in ("online", "target", "projector", "objective"):
        if getattr(model, name) is not None:
            watch(name, getattr(model, name))

    @contextmanager
    def clock(stage: str) -> Iterator[None]:
        begun = now()
        yield
        spent[stage].append(now() - begun)

    batches = run.stream.batches(1, steps)
    for step in range(1, steps + 1):
        begun = now()
        inside.clear()
        with clock("wait"):
            batch = next(batches).to(engine.world.device)
        seed_step(run.plan.seed, step, engine.world.rank)
        loss, terms = engine(batch.pieces)
        for name, seconds in inside.items():
            spent[name].append(seconds)
        state["backward"] = True
        with clock("backward"):
            engine.backward(loss)
        state["backward"] = False
        with clock("finish"):
            means, norm = engine.finish(torch.cat([loss.detach().view(1), terms]))
        with clock("optimizer"):
            engine.step(1e-6)
        with clock("ema"):
            if run.target is not None:
                run.target.follow(run.plan.decay)
        with clock("logging"):
            run.progress.step = run.progress.updates = step
            taken = Taken(means[0], dict(zip(model.terms, means[1:], strict=True)), norm, True)
            run.record.step(line(run, taken, 1e-6, run.plan.decay))
        spent["step"].append(now() - begun)
        yield batch


def _arithmetic(model: Any, tokens: int, sentences: int) -> float:
    """Floating-point operations of the matrix products: 2 a weight a token forward, twice that backward, two views."""
    weights = sum(
        w.numel() for n, w in model.online.named_parameters() if w.ndim == 2 and "embedding" not in n
    )
    weights = weights or sum(w.ds_numel for n, w in model.online.named_parameters() if "embedding" not in n)
    projector = sum(getattr(w, "ds_numel", w.numel()) for w in model.projector.parameters())
    passes = 3 + (model.target is not None)
    return 2 * 2 * (passes * weights * tokens + 3 * projector * sentences)


def _matmul_ceiling(device: Any, dtype: Any) -> float:
    """The best of five square products, in operations a second: what this process could do at most."""
    import torch

    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        product = left @ right
        float(product[0, 0])
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def _data_alone(run: Any, batch: int) -> float:
    """Sentences a second of the stream by itself, after its first batch."""
    batches = run.stream.batches(1, 21)
    next(batches)
    begun = time.perf_counter()
    for _ in batches:
        pass
    return 20 * batch / (time.perf_counter() - begun)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        "case", *(f"{name}" for name in ("sent/s", "tok/s", "padding", "MiB", "util", "data sent/s"))
    )
    for stage in (*STAGES, "step"):
        table.add_column(f"{stage} ms", justify="right")
    for row in rows:
        rates = (
            f"{row['sentences_per_s']:.0f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['padding']:.0%}",
            f"{row['peak_mib']:.0f}",
            f"{row['utilisation']:.0%}",
            f"{row['data_sentences_per_s']:.0f}",
        )
        table.add_row(row["case"], *rates, *(f"{row['ms'][stage]:.1f}" for stage in (*STAGES, "step")))
    return table


if __name__ == "__main__":
    result = measure(sys.argv[1], sys.argv[2:])
    if result:
        print(json.dumps(result), flush=True)
