"""Law 3 by force: kill a run again and again, run the same command, and compare the end with the run never killed.

    python tests/torture/torture.py [--kills N] [--cells stage-precision,...] [--seed S]       (make torture)

Two ranks, each ZeRO stage x fp32 and bf16, dropout on. First at every failpoint (SIGKILL of one rank, in turn 0 and 1),
then at random instants (one rank or all). What must be equal, bit for bit: masters, Adam moments, EMA, objective
state, best and final encoders, metrics.jsonl without times and speeds, the trace of sentence ids.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from integration import ranks, tiny  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress  # noqa: E402
from rich.table import Table  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

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


@dataclass
class Trial:
    """How one attempt ends: at a failpoint of a rank, or `after_s` seconds by killing `victims`."""

    failpoint: str | None = None
    rank: int = 0
    after_s: float = 0.0
    victims: tuple[int, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.failpoint} rank {self.rank}"
            if self.failpoint
            else f"ranks {self.victims} at {self.after_s:.1f} s"
        )


def trials(seed: int, kills: int) -> Iterator[Trial]:
    """Failpoints first, then random instants, `kills` of them in all; instants as a share of a whole run."""
    dice = random.Random(seed)
    order = dice.sample(FAILPOINTS, len(FAILPOINTS))
    for count in range(kills):
        if count < len(order):
            phase = order[count].split()[0]
            yield Trial(order[count], 0 if phase in RANK_0_ONLY else dice.randrange(SIZE))
        else:
            victims = dice.choice([(0,), (1,), (0, 1)])
            yield Trial(after_s=dice.uniform(0.3, 1.0), victims=victims)


def overrides(folder: Path, cell: str) -> list[str]:
    stage, precision = cell.split("-")
    return [
        *(f"run.dir={folder}", f"parallel.zero={stage}", f"parallel.precision={precision}"),
        *(f"train.steps={STEPS}", "evaluate.every=4", "checkpoint.every=4", "guard.timeout_s=30"),
        *("model.dropout=0.1", "objective.name=corinfomax", f"evaluate.sts={folder.parent / 'sts.tsv'}"),
    ]


def strike(config: Path, folder: Path, cell: str, trial: Trial) -> str | None:
    """One attempt that is killed. What went wrong: a rank that outlived the killed one must end by itself."""
    aimed = {"UNSEE_KILL_AT": f"{trial.failpoint} {trial.rank}"} if trial.failpoint else {}
    started = ranks.start(SIZE, config, *overrides(folder, cell), **aimed)
    until = time.monotonic() + (60 if trial.failpoint else trial.after_s)
    while time.monotonic() < until and all(process.poll() is None for process in started.processes):
        time.sleep(0.02)
    for victim in trial.victims:
        started.processes[victim].kill()
    began = [process.poll() is None for process in started.processes]
    until = time.monotonic() + 60
    while time.monotonic() < until and any(process.poll() is None for process in started.processes):
        if "steps of" not in started.text():
            break  # still meeting: that a rank never comes is the launcher's to see
        time.sleep(0.1)
    hung = [rank for rank, process in enumerate(started.processes) if process.poll() is None]
    text = started.text()
    started.kill()
    codes = [process.returncode for process in started.processes]
    if hung and "steps of" in text:
        return f"ranks {hung} did not end within 60 s"
    if any(code not in (0, 3, -9) for code in codes) and any(began):
        return f"exit codes {codes}: {text[-600:]}"
    return None


def state(folder: Path) -> dict[str, object]:
    """All that must be equal."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found: dict[str, object] = {
        "step": newest.name,
        "history": tiny.history(folder),
        "trace": tiny.traced(folder),
    }
    for file in sorted(newest.glob("*.safetensors")):
        found |= {f"{file.name}/{key}": value for key, value in load_file(file).items()}
    found["final"] = (folder / "final" / "model.safetensors").read_bytes()
    return found


def differences(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    import torch

    if ours.keys() != theirs.keys():
        return [f"other names: {sorted(ours.keys() ^ theirs.keys())[:3]}"]
    return [
        name
        for name, value in theirs.items()
        if not (torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else ours[name] == value)  # type: ignore[arg-type]
    ]


def torture(folder: Path, cells: list[str], kills: int, seed: int, console: Console) -> list[str]:
    """`kills` kills over the cells. Returns what went wrong."""
    made = tiny.make(folder)
    _write_sts(folder / "sts.tsv")
    wrong: list[str] = []
    table = Table("cell", "kills", "runs brought to their end", "verdict")
    schedule = trials(seed, kills)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("kills", total=kills)
        for place, cell in enumerate(cells):
            through = folder / f"{cell}-through"
            begun = time.monotonic()
            ranks.start(SIZE, made.config, *overrides(through, cell)).succeed()
            took_s, runs, found = time.monotonic() - begun, 1, len(wrong)
            count = kills // len(cells) + (place < kills % len(cells))
            for trial in (next(schedule) for _ in range(count)):
                trial.after_s *= took_s
                beaten = folder / f"{cell}-beaten-{runs}"
                if _is_past(beaten, trial):
                    wrong += [f"{cell}: {name}" for name in _finish(made.config, beaten, cell, through)]
                    runs += 1
                    beaten = folder / f"{cell}-beaten-{runs}"
                mistake = strike(made.config, beaten, cell, trial)
                wrong += [f"{cell}, {trial}: {mistake}"] if mistake else []
                bar.advance(task)
            beaten = folder / f"{cell}-beaten-{runs}"
            wrong += [f"{cell}: {name}" for name in _finish(made.config, beaten, cell, through)]
            table.add_row(
                cell, str(count), str(runs), "differs" if len(wrong) > found else "equal, bit for bit"
            )
    console.print(table)
    return wrong


def _is_past(folder: Path, trial: Trial) -> bool:
    """Would the attempt begin behind the failpoint, or is the run complete?"""
    saved = sorted((folder / "checkpoints").glob("step-*"))
    step = int(saved[-1].name.removeprefix("step-")) if saved else 0
    return step >= (int(trial.failpoint.split()[1]) if trial.failpoint else STEPS)


def _write_sts(path: Path) -> None:
    lines = tiny.corpus(60)
    rows = [
        f"{first}\t{second}\t{score % 6}"
        for score, (first, second) in enumerate(zip(lines[::2], lines[1::2], strict=True))
    ]
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")


def _finish(config: Path, folder: Path, cell: str, through: Path) -> list[str]:
    """Run the same command to its end and compare with the run never killed."""
    ranks.start(SIZE, config, *overrides(folder, cell)).succeed()
    return differences(state(folder), state(through))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=len(FAILPOINTS) + 100)
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        wrong = torture(Path(folder), chosen.cells.split(","), chosen.kills, chosen.seed, console)
    for each in wrong:
        console.print(f"WRONG {each}", markup=False, soft_wrap=True)
    console.print(f"{chosen.kills} kills, {len(wrong)} differences (seed {chosen.seed})")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
