"""The records of a run while it trains: metrics.jsonl, the trace, lines on the console, MLflow.

Rank 0 prints and writes; only the trace is each rank's own. Nothing here waits for a network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee_dist.errors import EXTRA_OF
from unsee_dist.log import LOG
from unsee_dist.masking import published
from unsee_dist.metrics.names import STEP, TIME
from unsee_dist.tracking.console import ConsoleReporter
from unsee_dist.tracking.eta import Eta, Kind
from unsee_dist.tracking.metrics_file import METRICS, MetricsFile, count_lines, cut_back
from unsee_dist.tracking.mlflow_model import ModelDescription, log_model
from unsee_dist.tracking.mlflow_run import NOTE, RunDescription
from unsee_dist.tracking.mlflow_sink import MlflowSink, send_output, send_page
from unsee_dist.tracking.tensorboard_sink import TensorboardSink

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE, TRACE = "report.html", "trace"  # in a run's folder


class RunRecorder:
    """The records of one rank. `first` is the step the run continues from: files are cut back to it.

    lines: of metrics.jsonl, on rank 0. every: steps between lines of metrics.jsonl. console_every: steps between lines on the console.
    """

    def __init__(
        self, folder: Path, rank: int, *, steps: int, first: int, every: int, console_every: int
    ) -> None:
        self.folder, self.rank, self.steps, self.every, self.console_every = (
            folder,
            rank,
            steps,
            every,
            console_every,
        )
        self._trace: MetricsFile | None = None
        self._metrics: MetricsFile | None = None
        self._console: ConsoleReporter | None = None
        self._mlflow: MlflowSink | None = None
        self._tensorboard: TensorboardSink | None = None
        self._first, self.lines = first, 0
        self._note = ""
        self._model: ModelDescription | None = None
        if rank == 0:
            cut_back(folder / METRICS, first if first else -1)
            self.lines = count_lines(folder / METRICS)
            self._metrics = MetricsFile(folder / METRICS)
            self._console = ConsoleReporter(steps, first)

    def expect(self, lines: int) -> None:
        """Say it when metrics.jsonl has lost some of the lines that the checkpoint had counted."""
        if self.lines < lines:
            self.warn(
                f"{self.folder / METRICS} has lost {lines - self.lines} of the {lines} lines that the checkpoint of "
                f"step {self._first} had counted. The run continues; its record has a hole there"
            )

    def keep_trace(self, size: int) -> None:
        """Write trace/rank-R.jsonl from here on (data.trace). A run that had more ranks before keeps their lines."""
        folder = self.folder / TRACE
        path = folder / f"rank-{self.rank}.jsonl"
        surplus = [old for old in folder.glob("rank-*.jsonl") if int(old.stem.removeprefix("rank-")) >= size]
        for old in [path, *(surplus if self.rank == 0 else [])]:
            cut_back(old, self._first)
        self._trace = MetricsFile(path)

    def send_to_mlflow(self, description: RunDescription, run_id: str | None) -> None:
        """Follow metrics.jsonl to MLflow from a thread of rank 0 (track.mlflow). Without the package: a warning."""
        if self.rank != 0 or self._console is None:
            return
        if find_spec("mlflow") is None:
            self._console.warn(
                "track.mlflow = true, but mlflow is not installed: metrics.jsonl is this run's only record. Write: "
                f'pip install "unsee_dist[{EXTRA_OF["mlflow"]}]" (the same command then sends all of it), or '
                "track.mlflow=false"
            )
        else:
            self._note = description.note
            self._mlflow = MlflowSink(
                self.folder, description, run_id=run_id, warn=self._console.warn, also=self._send_outputs
            )

    @property
    def in_mlflow(self) -> bool:
        return self._mlflow is not None

    def write_tensorboard(self) -> None:
        """Follow metrics.jsonl into event files from a thread of rank 0 (track.tensorboard). Without the package: a warning."""
        if self.rank != 0 or self._console is None:
            return
        if find_spec("tensorboard") is None:
            self._console.warn(
                f'track.tensorboard = true, but tensorboard is not installed. Write: pip install "unsee_dist[{EXTRA_OF["tensorboard"]}]" '
                "(the same command then writes all of it), or track.tensorboard=false"
            )
        else:
            self._tensorboard = TensorboardSink(self.folder, self._console.warn)

    def will_pause(self, evaluate_every: int, save_every: int) -> None:
        """How often the run is evaluated and saved: the time left counts these, too."""
        if self._console is not None:
            self._console.eta = Eta(self.steps, evaluate_every, save_every)

    def took(self, kind: Kind, seconds: float) -> None:
        """A step, an evaluation or a save took so long."""
        if self._console is not None:
            self._console.took(kind, seconds)

    def doing(self, what: str) -> None:
        """What the run does now, for whoever looks at the console."""
        if self._console is not None:
            self._console.doing(what)

    def evaluating(self, done: int, sentences: int) -> None:
        """How many sentences of an evaluation this rank has encoded."""
        if self._console is not None:
            self._console.evaluating(done, sentences)

    @property
    def mlflow_run(self) -> str | None:
        return self._mlflow.run_id if self._mlflow else None

    def trace(self, step: int, ids: tuple[int, ...]) -> None:
        if self._trace is not None:
            self._trace.write({STEP: step, "ids": list(ids)})

    def step(self, line: Mapping[str, Any]) -> None:
        if self._metrics is None or self._console is None:
            return
        last = line[STEP] == self.steps
        if line[STEP] % self.every == 0 or last:
            self._write(line)
        if line[STEP] % self.console_every == 0 or last:
            self._console.training(line)
        self._console.advance(line[STEP])

    def evaluation(self, line: Mapping[str, Any], best: bool) -> None:
        if self._metrics is not None and self._console is not None:
            self._write(line)
            self._console.evaluation(line, best)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._metrics is not None
        self._metrics.write({**line, TIME: time.time()})
        self.lines += 1

    def summary(
        self, columns: Mapping[str, Mapping[str, object]], paths: Mapping[str, str], then: list[str]
    ) -> None:
        """The closing table, what each exported folder is, and what to do next."""
        if self._console is not None:
            self._console.summary(columns, paths, then)

    def tag(self, name: str, value: str) -> None:
        """A tag of the run in MLflow."""
        if self._mlflow is not None:
            self._mlflow.tag(f"unsee.{name}", published(value))

    def conclude(self, verdict: str, model: ModelDescription | None) -> None:
        """What came out, for MLflow: in the run's description, and as a model. None: no encoder can be used."""
        if self._mlflow is not None:
            if verdict:
                self.tag("verdict", verdict)
                self._mlflow.tag(NOTE, f"{self._note}\n\n{verdict[0].upper()}{verdict[1:]}.")
            self._model = model

    def _send_outputs(self, client: MlflowClient, run_id: str, last: bool) -> None:
        """At a run's end: its page, where there is one, and its model."""
        if last and self._console is not None:
            send_output(
                str(self.folder / PAGE),
                partial(send_page, client, run_id, self.folder / PAGE),
                self._console.warn,
            )
            if self._model is not None:
                send_output("the model", partial(log_model, client, run_id, self._model), self._console.warn)

    def warn(self, sentence: str) -> None:
        if self._console is not None:
            self._console.warn(sentence)

    def say(self, sentence: str) -> None:
        """A line on the console."""
        if self._console is not None:
            LOG.info(sentence)

    def rewind(self, step: int) -> None:
        """Back to a checkpoint in the middle of a run: cut the files back to its step and go on after it."""
        self._metrics, self._trace = (_cut(file, step) for file in (self._metrics, self._trace))
        self.lines = count_lines(self.folder / METRICS) if self._metrics is not None else 0
        if self._mlflow is not None:
            self._mlflow.rewind()
        if self._tensorboard is not None:
            self._tensorboard.rewind()

    def flush(self) -> None:
        """Bring metrics and trace to the disk: before a checkpoint counts."""
        for file in (self._metrics, self._trace):
            if file is not None:
                file.flush()

    def close(self, status: str = "FINISHED") -> None:
        for file in (self._metrics, self._trace):
            if file is not None:
                file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._console is not None:
            self._console.close()
        if self._mlflow is not None:
            self._mlflow.close(status=status)


def _cut(file: MetricsFile | None, step: int) -> MetricsFile | None:
    if file is None:
        return None
    file.close()
    cut_back(file.path, step)
    return MetricsFile(file.path)
