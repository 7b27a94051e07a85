"""Files of one JSON object a line, each with its step: metrics.jsonl and trace/rank-R.jsonl. The only writer and reader.

Lines are valid JSON: NaN and infinities, which JSON does not have, are written as null and read as NaN. Lines are held
in memory for up to a second, so a kill loses at most the last moment; `flush` before a checkpoint is
published, and `cut_back` to the checkpoint's step on resume, make the file the history of one run. What a kill or a full disk
left of a last line is cut off before the next one is appended.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from unsee_dist.errors import UserError, file_error, writing
from unsee_dist.files.trees import open_regular, parse_json
from unsee_dist.log import LOG
from unsee_dist.metrics.names import DEV, LOSS, STEP

METRICS = "metrics.jsonl"  # in a run's folder
FLUSH_S = 1.0
REMEDY = "Make room; the same command continues the run."
MOST = 1 << 53  # of a step
HUGE = 1e300  # of a number
READ_BYTES = 1 << 18  # at once; a line is far shorter
Line = dict[str, Any]  # at least "step"


class MetricsFile:
    """Appends one line a call to `path`, whose folder is made when missing; a torn last line is cut off, and said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if torn := cut_torn(path):
            LOG.warning(f"{path}: its last line was never finished, and was cut off ({torn} bytes).")
        with writing(path, REMEDY):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1 << 16)
        self._flushed_at = time.monotonic()

    def write(self, line: Mapping[str, object]) -> None:
        """Append one object; it must have a "step". Steps never decrease down the file."""
        assert STEP in line, f"a line of {self.path.name} has no step: {sorted(line)}"
        with writing(self.path, REMEDY):
            self._file.write(_json(line) + "\n")
            now = time.monotonic()
            if now - self._flushed_at > FLUSH_S:
                self._file.flush()
                self._flushed_at = now

    def flush(self) -> None:
        """Bring all lines to the disk: call before a checkpoint is published."""
        with writing(self.path, REMEDY):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._flushed_at = time.monotonic()

    def close(self) -> None:
        """Flush and close; the object is done with."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                with suppress(OSError):  # on a full disk, what `flush` has said already
                    self._file.close()


def read(path: Path) -> list[Line]:
    """The lines of a file in order, [] when there is none. null is read as NaN.

    A line cut short by a kill ends the file and is left out. UserError: another line is damaged.
    """
    return added(path, 0, None)[0]


def of_steps(lines: Iterable[Line]) -> list[Line]:
    """The lines that steps wrote."""
    return [line for line in lines if LOSS in line]


def of_evaluations(lines: Iterable[Line]) -> list[Line]:
    """The lines that evaluations wrote, that of the untrained encoder included."""
    return [line for line in lines if any(key.startswith(DEV) for key in line)]


def training_lines(path: Path) -> list[Line]:
    """`of_steps` of a file."""
    return of_steps(read(path))


def evaluations(path: Path, after: int = -1) -> list[Line]:
    """`of_evaluations` of a file, of later steps than `after`; 0 leaves out the untrained encoder's."""
    return [line for line in of_evaluations(read(path)) if line[STEP] > after]


def added(path: Path, offset: int, most: int | None = READ_BYTES) -> tuple[list[Line], int]:
    """The whole lines after `offset` and the offset after them, of at most `most` bytes; a line still being written
    waits. UserError: a line is damaged."""
    if not path.exists():
        return [], offset
    with _opened(path) as file:
        file.seek(offset)
        text = file.read(-1 if most is None else most)
    whole = text[: text.rfind(b"\n") + 1]
    lines: list[Line] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        if _step(line + b"\n") is None:
            place = f"line {number}" if offset == 0 else f"line {number} after byte {offset}"
            raise UserError(f"{path}, {place} is damaged. Delete that line, or move the file away.")
        lines.append(_parse(line))
    return lines, offset + len(whole)


def count_lines(path: Path) -> int:
    """The whole lines of a file, 0 when there is none."""
    if not path.exists():
        return 0
    with _opened(path) as file:
        return sum(line.endswith(b"\n") for line in file)


def cut_back(path: Path, step: int) -> int:
    """Keep the lines of `path` with a step of at most `step`; returns how many lines were cut.

    Called on resume, before the file is opened again. It is one truncation, so a kill leaves the old file
    or the new one. A line cut short by a kill ends the file. A missing file has no lines. UserError, and nothing is cut:
    a damaged line comes before one that belongs to the history, or steps go back, as in the records of two runs.
    """
    if not path.exists():
        return 0
    kept, cut, damaged, before = 0, 0, 0, -1
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            at = _step(line)
            if at is None:
                damaged = damaged or number
            elif at < before:
                raise UserError(
                    f"{path}, line {number}: step {at} comes after step {before}, so this is not the record of one run. "
                    "Restore the file, or move it away to start a new one."
                )
            before = before if at is None else at
            if at is None or at > step:
                cut += 1
                continue
            if damaged:
                raise UserError(
                    f"{path}, line {damaged} is damaged, and later lines belong to step {step} or before. "
                    "Delete that line, or move the file away to start a new one."
                )
            kept += len(line)
    if cut:
        with path.open("rb+") as file:
            file.truncate(kept)
            os.fsync(file.fileno())
    return cut


def cut_torn(path: Path) -> int:
    """Cut off what follows the last line end of a file; returns how many bytes. None are cut of a file that is missing."""
    if not path.exists():
        return 0
    with _opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        whole = size
        while whole:
            start = max(0, whole - READ_BYTES)
            file.seek(start)
            if (end := file.read(whole - start).rfind(b"\n")) >= 0:
                whole = start + end + 1
                break
            whole = start
    if whole < size:
        with writing(path, REMEDY), path.open("rb+") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    return size - whole


def _opened(path: Path) -> IO[bytes]:
    """A file for reading. UserError: it cannot be read, or is a pipe or a device, which could be waited for without end."""
    try:
        return open_regular(path)
    except OSError as error:
        raise file_error(
            f"{path} cannot be read ({error.strerror}). Restore it, or move it away.", error
        ) from error


def _step(line: bytes) -> int | None:
    """The step of a whole line; None of one that nobody wrote."""
    if not line.endswith(b"\n"):
        return None
    try:
        tree = parse_json(line)
    except ValueError:
        return None
    if not isinstance(tree, dict) or not all(map(_is_measured, tree.values())):
        return None
    step = tree.get(STEP)
    return step if type(step) is int and 0 <= step < MOST else None


def _is_measured(value: object) -> bool:
    """A number, null (or NaN) for one that was not finite, or the ids of a trace."""
    if isinstance(value, list):
        return all(type(each) is int for each in value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, int | float) and -HUGE < value < HUGE


def _parse(line: bytes) -> Line:
    tree = parse_json(line)
    assert isinstance(tree, dict)
    return {key: math.nan if value is None else value for key, value in tree.items()}


def _json(line: Mapping[str, object]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(finite, allow_nan=False, separators=(", ", ": "), ensure_ascii=False)
