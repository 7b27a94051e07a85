"""Law 3 by force: kill a run again and again, run the same command, and compare the end with the run never killed.

    python tests/torture/torture.py [--instants N] [--ways one,all] [--cells stage-precision,...] [--seed S]

(make torture). Two ranks, each ZeRO stage x fp32 and bf16, dropout on. Killed at every failpoint, one rank and all
of them, and at random instants. What must be equal, bit for bit: masters, Adam moments, EMA, objective state, best
and final encoders, metrics.jsonl without times and speeds, every rank's trace of sentence ids, and the names of all
files: a killed run leaves nothing lying about.

The run never killed is started cold, the killed ones are forked by a server (warm.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import warm  # noqa: E402  (after sys.path)
from integration import ranks, tiny  # noqa: E402  (after sys.path)
from rich.console import Console  # noqa: E402  (after sys.path)
from rich.table import Table  # noqa: E402  (after sys.path)
from safetensors.torch import load_file  # noqa: E402  (after sys.path)

SIZE, STEPS = 2, 12
CELLS = [f"{stage}-{precision}" for stage in range(4) for precision in ("fp32", "bf16")]
# phase and step: steps 4, 8 and 12 are evaluated and saved; the save of step 4 is written while step 5 is taken
FAILPOINTS = [
    *("forward 5", "backward 6", "finish 6", "update 7", "ema 7", "log 7"),
    *("evaluation 4", "export 4", "save 4"),
    *("save.begin 8", "save.written 8", "save.manifest 8", "save.renamed 8", "save.pointed 8", "save.end 8"),
    *("wait 9", "export 12"),
]
RANK_0_ONLY = ("save.manifest", "save.renamed", "save.pointed", "save.end")
PATIENCE_S = 300  # of this test, on a machine with other work; a hang is told by guard.timeout_s


@dataclass(frozen=True)
class Trial:
    """How an attempt ends: `victims` die at a failpoint that the first of them reaches, or at a share of a run's time."""

    victims: tuple[int, ...]
    failpoint: str | None = None
    share: float = 0.0

    def __str__(self) -> str:
        return f"{self.failpoint or f'{self.share:.0%} of a run'}, ranks {self.victims}"


@dataclass
class Cell:
    """One stage and precision: the run never killed, and what came of the killed ones."""

    name: str
    folder: Path
    config: Path
    whole_s: float = 0.0  # the shortest warm run so far
    failpoints: int = 0
    instants: int = 0
    in_training: int = 0  # instants that met a run in its training
    ends: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def through(self) -> Path:
        return self.folder / f"{self.name}-through"

    @property
    def beaten(self) -> Path:
        return self.folder / f"{self.name}-beaten-{self.ends}"

    def arguments(self, folder: Path) -> list[str]:
        stage, precision = self.name.split("-")
        layout = (f"run.dir={folder}", f"parallel.zero={stage}", f"parallel.precision={precision}")
        cadence = (f"train.steps={STEPS}", "evaluate.every=4", "checkpoint.every=4", "guard.timeout_s=60")
        made = ("model.dropout=0.1", "objective.name=corinfomax", f"evaluate.sts={self.folder / 'sts.tsv'}")
        return [*layout, *cadence, *made]

    def start(self, **variables: str) -> warm.Warm:
        arguments = ["--config", str(self.config), *self.arguments(self.beaten)]
        return warm.start(SIZE, self.folder, arguments, **variables)


def schedule(seed: int, cells: int, ways: list[str], instants: int) -> list[list[Trial]]:
    """The trials of each cell: its failpoints in the order of a run, then its instants, dealt out in turn."""
    dice = random.Random(seed)
    aimed = [Trial(_victims(dice, point, way), point) for point in FAILPOINTS for way in ways]
    drawn = [Trial(_victims(dice, "", dice.choice(ways)), share=dice.random()) for _ in range(instants)]
    deck = dice.sample(aimed, len(aimed)) + drawn
    return [sorted(deck[place::cells], key=_step) for place in range(cells)]


def _step(trial: Trial) -> int:
    return int(trial.failpoint.split()[1]) if trial.failpoint else STEPS


def _victims(dice: random.Random, failpoint: str, way: str) -> tuple[int, ...]:
    first = 0 if failpoint.startswith(RANK_0_ONLY) else dice.randrange(SIZE)
    return (first,) if way == "one" else (first, *(rank for rank in range(SIZE) if rank != first))


def torment(cell: Cell, trials: list[Trial], tell: Callable[[str], None]) -> None:
    """Every trial, then the end; a run that is past a trial's place is brought to its end and a new one begun."""
    ranks.start(SIZE, cell.config, *cell.arguments(cell.through)).succeed(2 * PATIENCE_S)
    bring_to_end(cell, "never killed, warm", tell)
    for trial in trials:
        if _is_past(cell.beaten, trial):
            bring_to_end(cell, "killed", tell)
        aimed = trial
        while (mistake := strike(cell, aimed)) == OVER:
            bring_to_end(cell, "killed", tell)
            aimed = replace(aimed, share=aimed.share / 2)
        if mistake:
            cell.wrong.append(f"{cell.name}, {trial}: {mistake}")
        cell.failpoints += trial.failpoint is not None
        cell.instants += trial.failpoint is None
        tell(f"{cell.name}: {aimed}{' WRONG' if mistake else ''}")
    bring_to_end(cell, "killed", tell)


OVER = "the run was over before"


def strike(cell: Cell, trial: Trial) -> str | None:
    """One attempt that is killed. What went wrong: a rank that outlived the killed ones must end by itself, and say why."""
    first = trial.victims[0]
    aimed = {"UNSEE_KILL_AT": f"{trial.failpoint} {first}"} if trial.failpoint else {}
    started = cell.start(**aimed)
    until = time.monotonic() + (PATIENCE_S if trial.failpoint else trial.share * cell.whole_s)
    while time.monotonic() < until and started.codes[first] is None:
        time.sleep(0.02)
    for victim in trial.victims:
        started.processes[victim].kill()
    trained = "steps of" in started.text()
    until = time.monotonic() + PATIENCE_S
    # before the ranks have met, that one never comes is the launcher's to see
    while trained and None in started.codes and time.monotonic() < until:
        time.sleep(0.1)
    hung = [rank for rank, code in enumerate(started.codes) if code is None]
    started.kill()
    codes, text = started.codes, started.text()
    if trial.failpoint is None and codes[first] == 0:
        return OVER
    cell.in_training += trained and trial.failpoint is None
    if codes[first] != -9:
        return f"{trial.failpoint or 'the instant'} was not reached: exit codes {codes}: {text[-2000:]}"
    if trained and hung:
        return f"ranks {hung} did not end within {PATIENCE_S} s: {text[-2000:]}"
    if any(code not in (0, 3, -9) for code in codes):
        return f"exit codes {codes}: {text[-2000:]}"
    return None


def bring_to_end(cell: Cell, what: str, tell: Callable[[str], None]) -> None:
    """Run the same command to its end and compare with the run never killed. The next trial begins a new run."""
    fresh, begun = not cell.beaten.exists(), time.monotonic()
    started = cell.start()
    for process in started.processes:
        process.join(2 * PATIENCE_S)
    took_s = time.monotonic() - begun
    started.kill()
    if set(started.codes) == {0}:
        differing = differences(state(cell.beaten), state(cell.through))
    else:
        differing = [f"the same command ended with {started.codes}: {started.text()[-2000:]}"]
    if fresh:
        cell.whole_s = min(took_s, cell.whole_s or took_s)
    cell.wrong += [f"{cell.name}, run {cell.ends} ({what}): {each}" for each in differing]
    tell(f"{cell.name}: run {cell.ends} ended, {f'{len(differing)} differences' if differing else 'equal'}")
    cell.ends += 1


def state(folder: Path) -> dict[str, object]:
    """All that must be equal."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    values: dict[str, object] = {
        "step": newest.name,
        "names": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "history": tiny.history(folder),
    }
    values |= {file.name: file.read_bytes() for file in (folder / "trace").iterdir()}
    for file in sorted(newest.glob("*.safetensors")):
        values |= {f"{file.name}/{key}": value for key, value in load_file(file).items()}
    return values | {name: (folder / name / "model.safetensors").read_bytes() for name in ("best", "final")}


def differences(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    import torch

    if ours["names"] != theirs["names"]:
        mine, other = set(ours["names"]), set(theirs["names"])  # type: ignore[call-overload]
        return [f"other files: {sorted(mine ^ other)[:5]}"]
    return [
        name
        for name, value in theirs.items()
        if not (torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else ours[name] == value)  # type: ignore[arg-type]
    ]


def _is_past(folder: Path, trial: Trial) -> bool:
    """Would the attempt begin behind the failpoint, or is the run complete?"""
    saved = sorted((folder / "checkpoints").glob("step-*"))
    step = int(saved[-1].name.removeprefix("step-")) if saved else 0
    return step >= _step(trial)


def write_sts(path: Path) -> None:
    lines = tiny.corpus(60)
    rows = [
        f"{first}\t{second}\t{score % 6}"
        for score, (first, second) in enumerate(zip(lines[::2], lines[1::2], strict=True))
    ]
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")


def verdicts(cells: list[Cell]) -> Table:
    table = Table("cell", "failpoints", "instants", "of them in training", "ends compared", "verdict")
    for cell in cells:
        counts = (cell.failpoints, cell.instants, cell.in_training, cell.ends)
        table.add_row(cell.name, *map(str, counts), "WRONG" if cell.wrong else "equal, bit for bit")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instants", type=int, default=100)
    parser.add_argument(
        "--ways", default="one,all", help="who is killed at a failpoint: one rank, all of them"
    )
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names, console = options.cells.split(","), Console(stderr=True, highlight=False, soft_wrap=True)
    trials = schedule(options.seed, len(names), options.ways.split(","), options.instants)
    begun = time.monotonic()
    warm.prepare()
    with tempfile.TemporaryDirectory() as place:
        made = tiny.make(Path(place), sentences=300)
        write_sts(made.folder / "sts.tsv")
        cells = [Cell(name, made.folder, made.config) for name in names]
        for cell, own in zip(cells, trials, strict=True):
            torment(cell, own, lambda line: console.print(f"{time.monotonic() - begun:5.0f} s  {line}"))
    wrong = [each for cell in cells for each in cell.wrong]
    console.print(verdicts(cells))
    for each in wrong:
        console.print(f"WRONG {each}", markup=False)
    kills = sum(cell.failpoints + cell.instants for cell in cells)
    console.print(
        f"{kills} kills, {len(wrong)} wrong, {time.monotonic() - begun:.0f} s (seed {options.seed})"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
