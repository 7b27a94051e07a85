"""TensorBoard beside a run (`track.tensorboard`): event files in its folder, written by torch's SummaryWriter.

metrics.jsonl is the record; a thread follows it, so that training never waits. At every start, and after a return to a
checkpoint, the event files are written anew from it: they have each step once, whatever was killed, and all of a run whose
earlier starts had no TensorBoard. The first event tells a TensorBoard that looks on to forget what it has read.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.errors import is_our_bug, report
from unsee_dist.metrics.names import STEP, TIME
from unsee_dist.tracking.metrics_file import METRICS, added

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # in a run's folder
EVENTS = "events.out.tfevents.*"
EVERY_S = 5.0


class TensorboardSink:
    """Follows `folder`/metrics.jsonl; make it on rank 0, after `cut_back` on resume. warn is called, from the thread, with one
    sentence when the files cannot be written. Nothing here raises, and only `close` waits."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._metrics, self._folder, self._warn = folder / METRICS, folder / FOLDER, warn
        self._stop, self._again = threading.Event(), threading.Event()
        self._again.set()
        self._writer: SummaryWriter | None = None
        self._offset = 0
        self._thread = threading.Thread(target=self._work, name="tensorboard", daemon=True)
        self._thread.start()

    def rewind(self) -> None:
        """metrics.jsonl was cut back: write the files anew."""
        self._again.set()

    def close(self, timeout_s: float = 60.0) -> None:
        """Write the rest; close metrics.jsonl first."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn(
                f"{self._folder} has not got all of this run in {timeout_s:g} s; {self._metrics} has all of it"
            )

    def _work(self) -> None:
        wait_s, warned = 0.0, False
        while True:
            stopping = self._stop.wait(wait_s)
            try:
                self._write()
                if stopping and self._writer is not None:
                    self._writer.close()
            except Exception as error:  # training goes on without pictures of it
                if is_our_bug(error) and not warned:  # once, not every EVERY_S
                    report(error, "writing for TensorBoard")
                if not warned:
                    self._warn(
                        f"{self._folder} cannot be written ({error}). Training continues; {self._metrics} keeps everything"
                    )
                warned = True
                self._again.set()
            if stopping:
                return
            wait_s = EVERY_S

    def _write(self) -> None:
        if self._again.is_set():
            self._again.clear()
            self._begin()
        assert self._writer is not None
        while not self._again.is_set():
            lines, self._offset = added(self._metrics, self._offset)
            if not lines:
                break
            for line in lines:
                for name, value in line.items():
                    if name not in (STEP, TIME) and isinstance(value, int | float) and math.isfinite(value):
                        self._writer.add_scalar(name, value, int(line[STEP]), walltime=line.get(TIME))
        self._writer.flush()

    def _begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is not None:
            self._writer.close()
        for old in self._folder.glob(EVENTS):
            if old.stat().st_size == 0:
                old.unlink()
            else:
                os.truncate(old, 0)  # a TensorBoard that reads it would stop at a file that is gone
        self._writer, self._offset = SummaryWriter(str(self._folder), purge_step=0), 0
