"""Every parser of files against files that nobody wrote: changed by chance, by an editor, by an attacker.

    python tests/torture/fuzz.py [--minutes M] [--parsers NAME,...] [--seed S]

(make torture). The law: a changed file is refused by a sentence that names it, or means exactly what it meant before, in
bounded memory and time. Of a file without a digest, which people write, any meaning will do; so it is of files whose
digests were made anew after the change, but never a traceback, never gigabytes.

Before the files changed by chance come those in seeds/PARSER/: each has broken something once, or is of a kind that does.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import mutations  # noqa: E402  (after sys.path)
import xxhash  # noqa: E402  (after sys.path)

from unsee_dist.errors import UserError  # noqa: E402  (after sys.path)

CASE_S = 10.0  # of one file, on a machine with other work
MEMORY = 256 << 20  # bytes that reading one file of a few kB may take
SEEDS = HERE / "seeds"


@dataclass(frozen=True)
class Parser:
    """One kind of file. make: writes a sound folder; files: the names in it that are changed; read: what it means, or a
    UserError; seal: makes its digests anew, where it has some."""

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], object]
    seal: Callable[[Path], None] | None = None


@dataclass
class Tally:
    """What was tried on a parser, and what was wrong."""

    parser: str
    tried: int = 0
    refused: int = 0
    same: int = 0
    other: int = 0  # another meaning, where that is legal
    wrong: list[str] = field(default_factory=list)


class Overtime(BaseException):
    """A file took longer than CASE_S."""


def fuzz(parser: Parser, seconds: float, seed: int, folder: Path, cases: int | None = None) -> Tally:
    """Change files for so long, or so many times."""
    dice, tally = random.Random(seed), Tally(parser.name)
    sound, place = folder / "sound", folder / "changed"
    sound.mkdir(parents=True)
    parser.make(sound)
    before = meaning(parser.read(sound))
    for data, name in _kept(parser):
        _try(parser, tally, sound, place, name, data, None, before)
    until = time.monotonic() + seconds
    while time.monotonic() < until and (cases is None or tally.tried < cases) and len(tally.wrong) < 10:
        name = dice.choice(parser.files)
        data = (sound / name).read_bytes()
        changed = dice.choice((mutations.of_bytes, mutations.of_json))(data, dice)
        seal = parser.seal if parser.seal is not None and dice.random() < 0.5 else None
        _try(parser, tally, sound, place, name, changed, seal, before)
    return tally


def _kept(parser: Parser) -> Iterator[tuple[bytes, str]]:
    for path in sorted((SEEDS / parser.name).glob("*")):
        yield path.read_bytes(), parser.files[0]


def _try(  # noqa: PLR0913  (one case, by all that it is made of)
    parser: Parser,
    tally: Tally,
    sound: Path,
    place: Path,
    name: str,
    data: bytes,
    seal: Callable[[Path], None] | None,
    before: str,
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    (place / name).write_bytes(data)
    if seal is not None:
        try:
            seal(place)
        except Exception:  # the change left nothing to be sealed
            seal = None
    tally.tried += 1
    try:
        with bounded():
            value = meaning(parser.read(place))
    except UserError as error:
        if str(place) not in str(error) and Path(name).name not in str(error):
            _keep(tally, data, f"the sentence names no file: {error}")
        tally.refused += 1
        return
    except (Exception, Overtime):
        _keep(tally, data, traceback.format_exc(limit=-4))
        return
    tally.same += value == before
    tally.other += value != before
    if value != before and parser.seal is not None and seal is None:
        _keep(tally, data, "another meaning, without a word")


def _keep(tally: Tally, data: bytes, why: str) -> None:
    tally.wrong.append(f"{tally.parser}, case {tally.tried}: {why}\n  {data[:400]!r}")


def meaning(value: object) -> str:
    """A digest of a value, by its repr."""
    return xxhash.xxh3_128_hexdigest(repr(value).encode("utf-8", "backslashreplace"))


@contextmanager
def bounded() -> Iterator[None]:
    """Overtime or MemoryError where a file takes more than it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, _overtime)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 8 * MEMORY, hard))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins at what is used now
    used = _status("VmHWM")
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if (grown := _status("VmHWM") - used) > MEMORY:
        raise MemoryError(f"{grown >> 20} MiB for a file of a few kB")


def _overtime(*_: object) -> None:
    raise Overtime(f"more than {CASE_S:g} s")


def _status(name: str) -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise AssertionError(name)


def main() -> int:
    from parsers import PARSERS

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=60, help="of all parsers together")
    options.add_argument("--parsers", default=",".join(PARSERS))
    options.add_argument("--seed", type=int, default=int(time.time()))
    arguments = options.parse_args()
    names, wrong = arguments.parsers.split(","), []
    print(
        f"seed {arguments.seed}\n{'parser':<16}{'tried':>10}{'refused':>10}{'same':>10}{'other':>10}{'wrong':>8}",
        flush=True,
    )
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            tally = fuzz(PARSERS[name], 60 * arguments.minutes / len(names), arguments.seed, Path(folder))
        counts = (tally.tried, tally.refused, tally.same, tally.other)
        print(f"{name:<16}{''.join(f'{count:>10,}' for count in counts)}{len(tally.wrong):>8}", flush=True)
        wrong += tally.wrong
    for each in wrong:
        print(f"WRONG {each}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
