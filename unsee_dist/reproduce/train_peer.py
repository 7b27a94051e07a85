"""A peer trained for as many seconds as a run of ours, into a folder that is read as a run's.

    python -m unsee_dist.reproduce.train_peer PEER RUN PRESET [key=value ...]

    config.yaml       its settings         metrics.jsonl    loss and rate, and an evaluation at each tenth, as ours
    best/, final/     folders of sentence-transformers' own              peer.json    what trained it, how long, in how many steps

What counts is the time of its steps, the reading of sentences included: neither loading nor evaluations nor saves, as in the
records of the run. The learning rate follows that clock where a run's follows its steps. Cut short, it begins anew.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from transformers import TrainerCallback, set_seed

from unsee_dist.bench.sentence_trainer import (
    NEEDED,
    PEERS,
    Peer,
    check_installed,
    make_loss,
    make_model,
    make_trainer,
)
from unsee_dist.config import CONFIG, RunConfig, load
from unsee_dist.config.sections import every_steps
from unsee_dist.data import open_corpus
from unsee_dist.errors import ExitCode, UserError, report, writing
from unsee_dist.evaluation.development import PROBE, Development
from unsee_dist.evaluation.question_files import load_question_sets
from unsee_dist.evaluation.sts_files import load_sets
from unsee_dist.files.atomic import atomic_folder
from unsee_dist.files.records import RecordFile
from unsee_dist.log import LOG
from unsee_dist.metrics.names import BEST, LOSS, LR, SENTENCES, SENTENCES_PER_S, STEP, best_metric, dev
from unsee_dist.metrics.verdict import gain_over
from unsee_dist.model.encoder import quiet_transformers
from unsee_dist.report.run_files import RunFiles, open_run
from unsee_dist.supervision.signals import OF_A_LAUNCHER, Stopped, StopSignal, stop_with_launcher
from unsee_dist.tracking import record
from unsee_dist.tracking.environment import of_this_start
from unsee_dist.tracking.metrics_file import METRICS, MetricsFile
from unsee_dist.tracking.note import BEST_EXPORT, FINAL_EXPORT, note_of, write_note
from unsee_dist.training.guard import with_verdict

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LAUNCHER = os.getppid()
ENDLESS = 1 << 40  # steps: the clock ends it
LOGGED = 10  # steps between two lines


@dataclass(frozen=True)
class PeerRecord:
    """peer.json. seconds: what it was given; trained_s: what its steps took. digest: of final/'s weights."""

    peer: str
    loss: str
    settings: list[str]
    max_tokens: int
    versions: dict[str, str]
    seconds: float
    trained_s: float
    steps: int
    sentences: int
    digest: str


RECORD = RecordFile("peer.json", PeerRecord, version=1, remedy="Remove its folder: it is trained again.")


def seconds_of(run: RunFiles) -> float:
    """What the steps of a run have taken. UserError: it has none."""
    speeds = [line[SENTENCES_PER_S] for line in run.training if SENTENCES_PER_S in line]
    if run.config is None or not speeds:
        raise UserError(
            f"{run.folder} does not say how long it was trained: the same command trains it first."
        )
    return float(run.step * np.mean([run.config.train.batch / speed for speed in speeds]))


def train_peer(name: str, run: RunFiles, config: RunConfig, stop: StopSignal) -> None:
    """Train anew. Raises Stopped after a signal, UserError for a mistake of the user."""
    check_installed(name)
    peer, folder, seconds = PEERS[name], Path(config.run.dir), seconds_of(run)
    clear(folder)
    record.begin(folder, config)
    length = min(peer.max_tokens, config.model.max_tokens)
    set_seed(config.seed % 2**32)
    corpus = open_corpus(config.data)
    with quiet_transformers():
        model = make_model(config, length)
        loss = make_loss(name, model)
    sentences = corpus.head(corpus.sentences)
    if len(sentences) < config.train.batch:
        raise UserError(
            f"{name} needs {config.train.batch} sentences for a step, and there are {len(sentences)}."
        )
    record.add_start(folder, 0, 1, (), None, of_this_start(model.device))
    steps = run.step
    clock = _Clock(
        config, model, stop, seconds, every_steps(config.evaluate.every, steps) / steps, sentences[:PROBE]
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(
            config, model, loss, peer.columns(sentences), scratch,
            callbacks=[clock], max_steps=ENDLESS, logging_steps=LOGGED,
        )  # fmt: skip
        optimizer = trainer.create_optimizer()
        rate = (lambda _: 1.0) if peer.constant else (lambda _: risen(clock.share, config.train.warmup))
        trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        trainer.train()
    if stop.requested:
        raise Stopped
    clock.export(FINAL_EXPORT)
    clock.metrics.close()
    RECORD.write(folder, _record(name, peer, clock, length))


def clear(folder: Path) -> None:
    """Remove what an earlier, unfinished training left in its folder. UserError: what lies there is none."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} has files, and no {CONFIG} of a run: they are not ours to remove. Move them away, or write another "
            "--out."
        )
    with writing(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def risen(share: float, warmup: float) -> float:
    """The learning rate as a part of its peak, after this share of the time: up over the warmup, then linear to 0."""
    return share / warmup if share < warmup else max(0.0, (1 - share) / (1 - warmup))


def _record(name: str, peer: Peer, clock: _Clock, length: int) -> PeerRecord:
    weights = (Path(clock.config.run.dir) / FINAL_EXPORT / "model.safetensors").read_bytes()
    versions = {each: version(each) for each in (*NEEDED, "torch", "transformers")}
    return PeerRecord(
        name,
        peer.loss,
        list(peer.settings),
        length,
        versions,
        clock.seconds,
        clock.trained_s,
        clock.step,
        clock.step * clock.config.train.batch,
        xxhash.xxh3_128_hexdigest(weights),
    )


class _Clock(TrainerCallback):
    """Counts the seconds of steps, evaluates at each `every` of them, and ends the training when they are over."""

    def __init__(
        self,
        config: RunConfig,
        model: SentenceTransformer,
        stop: StopSignal,
        seconds: float,
        every: float,
        probe: list[str],
    ) -> None:
        self.config, self.model, self.stop, self.seconds, self.every = config, model, stop, seconds, every
        self.metrics = MetricsFile(Path(config.run.dir) / METRICS)
        questions = config.evaluate
        self.development = Development(
            load_sets(questions.sts or ()), load_question_sets(questions.retrieval or ()), probe
        )
        self.step, self.trained_s, self.evaluated = 0, 0.0, 0
        self.logged = (0, 0.0)  # step and seconds of the newest line
        self.before: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self.best: float | None = None
        self._since = 0.0

    @property
    def share(self) -> float:
        """Of the seconds that are over."""
        return min(1.0, self.trained_s / self.seconds)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  (transformers calls it so)
        self._evaluate()
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  (transformers calls it so)
        now = time.perf_counter()
        self.trained_s, self._since = self.trained_s + now - self._since, now
        self.step = state.global_step
        over = self.share >= 1
        control.should_training_stop = over or self.stop.requested
        if (over or self.share >= (self.evaluated + 1) * self.every) and not self.stop.requested:
            self.evaluated = int(self.share / self.every)
            self._evaluate()
            self._since = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002  (transformers calls it so)
        if not logs or "loss" not in logs or state.global_step <= self.logged[0]:
            return
        step, seconds = self.logged
        self.logged = (state.global_step, self.trained_s)
        batch = self.config.train.batch
        speed = (state.global_step - step) * batch / max(self.trained_s - seconds, 1e-9)
        self.metrics.write(
            {
                STEP: state.global_step,
                LOSS: logs["loss"],
                LR: logs["learning_rate"],
                SENTENCES: state.global_step * batch,
                SENTENCES_PER_S: speed,
            }
        )

    def _evaluate(self) -> None:
        with torch.random.fork_rng():
            found = with_verdict(self.config.guard, self.development(self._encode))
        scores = found | (gain_over(self.before, found) if self.step else {})
        deciding = best_metric(scores)
        better = bool(self.step) and deciding is not None and (self.best is None or deciding[1] > self.best)
        self.metrics.write({STEP: self.step, **scores, dev(BEST): float(better)})
        self.metrics.flush()
        self.scores = scores
        if not self.step:
            self.before = scores
        LOG.info(f"step {self.step}, {self.trained_s:.0f} of {self.seconds:.0f} s: {deciding}")
        if better and deciding is not None:
            self.best = deciding[1]
            self.export(BEST_EXPORT)

    def _encode(self, sentences: list[str]) -> np.ndarray:
        return self.model.encode(sentences, batch_size=64, show_progress_bar=False, convert_to_numpy=True)

    def export(self, name: str) -> None:
        """Write the encoder as sentence-transformers does."""
        with atomic_folder(Path(self.config.run.dir) / name) as new:
            self.model.save_pretrained(str(new), create_model_card=False)
            write_note(new, note_of(name, self.step, self.scores))


def main(arguments: list[str]) -> int:
    stop = StopSignal()
    stop_with_launcher(LAUNCHER)
    for variable in OF_A_LAUNCHER:  # accelerate would look for other ranks
        os.environ.pop(variable, None)
    name, run, preset, *overrides = arguments
    try:
        train_peer(name, open_run(Path(run)), load(preset, overrides), stop)
    except Stopped:
        return ExitCode.STOPPED
    except Exception as error:
        return report(error)
    finally:
        stop.close()
    return ExitCode.COMPLETE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
