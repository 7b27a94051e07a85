"""`deepspeed unsee_dist/train.py --config CONFIG.yaml [section.key=value ...]`: parse, build, run; nothing else.

Also the script of `torchrun`, of a bare `srun` and of plain `python`.

Exit codes are those of errors.ExitCode. (torchrun and deepspeed return 1 for all but 0.)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World
    from unsee_dist.supervision.signals import StopSignal
    from unsee_dist.supervision.watchdog import Watchdog

if (
    __name__ == "__main__" and not __package__
):  # by its path: its folder would shadow packages of the same names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from unsee_dist.errors import ExitCode, UserError, exit_code_of, report

LAST_WORDS_S = 2.0  # for the rank that failed to print: srun kills the others once one has ended


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a sentence encoder without labels.")
    parser.add_argument("--config", required=True, help="a YAML file or the name of a preset")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, help="given by launchers; LOCAL_RANK is what counts"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    from unsee_dist.supervision.signals import StopSignal, stop_with_launcher

    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    stop_with_launcher()
    stop = StopSignal()  # before torch is imported: a signal in those seconds would end this rank unheard
    from unsee_dist.distributed.world import join_world, leave_world

    try:
        world = join_world()
    except Exception as error:  # no rank can speak for the others yet
        return report(error)
    try:
        return run(chosen, world, stop)
    finally:
        leave_world()
        stop.close()


def run(chosen: argparse.Namespace, world: World, stop: StopSignal) -> int:
    """Train on a rank that has joined the others; returns its exit code."""
    from unsee_dist.config import load
    from unsee_dist.distributed.world import together, wait_for_all
    from unsee_dist.run import train
    from unsee_dist.supervision.signals import Stopped
    from unsee_dist.supervision.watchdog import Watchdog

    watchdog, folder = None, None
    try:
        with together(world):  # a file that one host does not see must not leave the others waiting
            config = load(chosen.config, chosen.overrides)
        folder = config.run.dir
        watchdog = Watchdog(world, config.guard.timeout_s)
        watchdog.start()
        train(config, stop)
        wait_for_all(world)  # rank 0 may keep the store that the others' watchdogs read
    except Stopped:
        watchdog_leaves(watchdog)
        assert folder is not None
        leave_stopped(world, folder, stop.name)
    except Exception as error:
        return end(error, world, watchdog, folder)
    finally:
        watchdog_leaves(watchdog)
    return ExitCode.COMPLETE


def end(error: Exception, world: World, watchdog: Watchdog | None, folder: str | None) -> int:
    """Say why this rank ends, and end it together with the others where they end for the same reason.

    folder: of the run, when its configuration could be read.
    """
    from unsee_dist.distributed.world import (
        PeerFailed,
        SharedTransientError,
        SharedUserError,
        leave_together,
    )

    if exit_code_of(error) is ExitCode.TRANSIENT and folder is not None:
        mark(folder)
    if isinstance(error, SharedUserError | SharedTransientError):
        watchdog_leaves(watchdog)
        if world.rank == 0:
            report(error)
        leave_together(world, exit_code_of(error))
    if isinstance(error, PeerFailed):
        print(error, file=sys.stderr, flush=True)
        time.sleep(LAST_WORDS_S)
        return ExitCode.BUG
    lost = watchdog.explain() if isinstance(error, RuntimeError) and watchdog is not None else None
    if lost is not None:
        print(lost, file=sys.stderr, flush=True)  # a collective failed because a rank is gone
        os._exit(ExitCode.RANK_LOST)
    watchdog_leaves(watchdog)  # a block damaged on one host, or a bug: no other rank knows
    return report(error, f"rank {world.rank}" if world.size > 1 else "")


def leave_stopped(world: World, folder: str, signal_name: str) -> NoReturn:
    """All ranks have agreed to stop, and a checkpoint is on the disk."""
    from unsee_dist.distributed.world import leave_together

    if world.rank == 0:
        mark(folder)
        print(
            f"stopped after {signal_name or 'a signal to another rank'}; the same command continues",
            file=sys.stderr,
        )
    leave_together(world, ExitCode.STOPPED)


def watchdog_leaves(watchdog: Watchdog | None) -> None:
    if watchdog is not None:
        watchdog.leave("it has left, its own lines say why")


def mark(run: str) -> None:
    """For the batch script, which requeues a job that leaves it: the step of a verified checkpoint, in $UNSEE_STOP_MARK."""
    from unsee_dist.training.checkpoint.directory import choose, verify

    path = os.environ.get("UNSEE_STOP_MARK")
    if path:
        try:
            newest, _ = choose(Path(run) / "checkpoints", verify)
        except (OSError, UserError):  # the file system that failed may fail here, too: then no step is known
            newest = None
        Path(path).write_text(f"{newest.name if newest else 'step-00000000'}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
