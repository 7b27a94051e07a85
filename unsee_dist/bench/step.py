"""One case of `unsee bench` in this process (one of its ranks): `python -m unsee_dist.bench.step CONFIG [key=value ...]`.

Times are medians over steps after warm-up, in milliseconds.

    utilisation = arithmetic of the non-padding tokens / (time x the matmul ceiling measured in the same world)
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch

from unsee_dist.bench.recovery import save_cost
from unsee_dist.bench.table import STAGES, BenchRow
from unsee_dist.bench.timing import matmul_ceiling
from unsee_dist.config import load
from unsee_dist.data import Batch
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.model.unsee import Unsee
from unsee_dist.run import build
from unsee_dist.supervision.phases import observing
from unsee_dist.training.loop import Training, metrics_line, run_step

NETWORKS = ("online", "target", "projector", "objective")
STAGE_OF = {"backward": "backward", "finish": "finish", "update": "optimizer", "ema": "ema", "log": "logging"}
WARM_UP, STEPS = 3, 12
FEW_STEPS = 3  # of a batch of 256 sentences and more


def measure(config: str, overrides: Sequence[str]) -> BenchRow:
    """Times, rates, padding, memory of one case; an empty row on ranks other than 0."""
    settings = load(config, overrides)
    world = join_world()
    run = build(settings, world)
    weights = matrix_weights(run.engine.module.online)
    spent: dict[str, list[float]] = defaultdict(list)
    tokens, cells, sentences = 0, 0, 0
    warm, steps = (WARM_UP, STEPS) if settings.train.batch < 256 else (1, FEW_STEPS)
    for step, batch in enumerate(_timed_steps(run, warm + steps, spent)):
        if step == warm:
            for times in spent.values():
                del times[:-1]
            tokens = cells = sentences = 0
        tokens += batch.tokens
        cells += sum(micro_batch.input_ids.numel() for micro_batch in batch.micro_batches)
        sentences += len(batch.ids)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if world.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    seconds = len(spent["step"]) * statistics.median(spent["step"])
    ceiling = matmul_ceiling(
        world.device, torch.float32 if run.engine.precision == "fp32" else torch.bfloat16
    )
    row = {
        "ms": {name: 1000 * statistics.median(spent[name] or [0.0]) for name in (*STAGES, "step")},
        "sentences_per_s": world.size * sentences / seconds,
        "tokens_per_s": world.size * tokens / seconds,
        "padding": 1 - tokens / cells,
        "peak_mib": memory,
        "ceiling_gflops": ceiling / 1e9,
        "utilisation": arithmetic(run.engine.module, weights, tokens, sentences) / seconds / ceiling,
        "data_sentences_per_s": _data_alone(run, settings.train.batch),
        **save_cost(run, seconds / len(spent["step"])),
    }
    run.recorder.close()
    leave_world()
    return row if world.rank == 0 else {}


def _timed_steps(run: Training, steps: int, spent: dict[str, list[float]]) -> Iterator[Batch]:
    """The steps of a run, trained by the loop's own `run_step` and timed from outside: the phases it enters, and hooks
    around the networks inside the engine's forward."""
    device, clock = run.engine.world.device, Clock(run.engine.world.device)
    clock.watch({name: getattr(run.engine.module, name) for name in NETWORKS})
    batches = run.stream.batches(1, steps)
    for step in range(1, steps + 1):
        started = clock.now()
        batch = next(batches).to(device)
        clock.begin(started)
        with observing(clock.enter):
            result, rates = run_step(run, batch)
            run.recorder.step(metrics_line(run, result, *rates))
            clock.enter("end", step)
        for stage, seconds in clock.spent.items():
            spent[stage].append(seconds)
        spent["step"].append(clock.now() - started)
        yield batch


class Clock:
    """Seconds of the stages of one step. `enter` ends the stage of the phase before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = {}
        self._phase, self._since = "", 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self, step_began: float) -> None:
        """The batch has come; the waiting for it is over."""
        self._phase, self._since = "", self.now()
        self.spent = {"wait": self._since - step_began}

    def enter(self, phase: str, _step: int) -> None:
        at = self.now()
        if self._phase in STAGE_OF:
            self._add(STAGE_OF[self._phase], at - self._since)
        self._phase, self._since = phase, at

    def watch(self, networks: Mapping[str, torch.nn.Module | None]) -> None:
        """Time every call of these networks in the forward phase. A call in the backward phase counts as backward."""
        for name, network in networks.items():
            if network is not None:
                began: list[float] = []
                network.register_forward_pre_hook(partial(self._called, began))
                network.register_forward_hook(partial(self._returned, name, began))

    def _called(self, began: list[float], *_: object) -> None:
        began.append(self.now())

    def _returned(self, name: str, began: list[float], *_: object) -> None:
        seconds = self.now() - began.pop()
        if self._phase == "forward":
            self._add(name, seconds)

    def _add(self, stage: str, seconds: float) -> None:
        self.spent[stage] = self.spent.get(stage, 0.0) + seconds


def matrix_weights(encoder: torch.nn.Module) -> int:
    """Weights of an encoder's products over tokens, so no pooler's; at stage 3 a parameter is its rank's part."""
    return sum(
        getattr(w, "ds_numel", w.numel())
        for n, w in encoder.named_parameters()
        if len(getattr(w, "ds_shape", w.shape)) == 2 and "embedding" not in n and "pooler" not in n
    )


def arithmetic(model: Unsee, weights: int, tokens: float, sentences: int) -> float:
    """Floating-point operations of the matrix products: 2 a weight a token forward, twice that backward, two views."""
    projector = sum(getattr(w, "ds_numel", w.numel()) for w in model.projector.parameters())
    passes = 3 + (model.target is not None)
    return 2 * 2 * (passes * weights * tokens + 3 * projector * sentences)


def _data_alone(run: Training, batch: int) -> float:
    """Sentences a second of the stream alone, after its first batch."""
    batches = run.stream.batches(1, 11)
    next(batches)
    started = time.perf_counter()
    for _ in batches:
        pass
    return 10 * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    result = measure(sys.argv[1], sys.argv[2:])
    if result:
        print(json.dumps(result), flush=True)
