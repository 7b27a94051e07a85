"""`deepspeed unsee_dist/train.py --config CONFIG.yaml [section.key=value ...]`: parse, build, run; nothing else.

Also the script of `torchrun`, of a bare `srun` and of plain `python`.

Exit codes: 0 the run is complete; 2 a mistake, said in one sentence; 3 a rank hung or died; 75 stopped by a signal with
a checkpoint of the last step: the same command continues. (torchrun and deepspeed return 1 for all but 0.)
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsee_dist.supervision.watchdog import Watchdog

if __name__ == "__main__":  # the script's own folder would shadow top-level packages of the same names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

MISTAKE = 2


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a sentence encoder without labels.")
    parser.add_argument("--config", required=True, help="a YAML file or the name of a preset")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, help="given by launchers; LOCAL_RANK is what counts"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    from unsee_dist.supervision.signals import STOPPED, Stopped, StopSignal, stop_with_launcher

    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    stop_with_launcher()
    asked = StopSignal()  # before torch is imported: a signal in those seconds would end this rank unheard
    from unsee_dist.config import load
    from unsee_dist.distributed.world import (
        SharedUserError,
        join_world,
        leave_together,
        leave_world,
        together,
        wait_for_all,
    )
    from unsee_dist.run import train
    from unsee_dist.supervision.watchdog import LOST, Watchdog

    try:
        world = join_world()
    except ValueError as error:  # no rank can speak for the others yet
        print(error, file=sys.stderr)
        return MISTAKE
    watchdog = None
    try:
        with together(world):  # a file that one host does not see must not leave the others waiting
            config = load(chosen.config, chosen.overrides)
        watchdog = Watchdog(world, config.guard.timeout_s)
        watchdog.start()
        train(config, asked)
        wait_for_all(world)  # rank 0 may keep the store that the others' watchdogs read
    except Stopped:
        watchdog_leaves(watchdog)
        if world.rank == 0:
            mark(config.run.dir)
            print(
                f"stopped after {asked.name or 'a signal to another rank'}; the same command continues",
                file=sys.stderr,
            )
        leave_together(world, STOPPED)
    except (ValueError, OSError) as error:
        if not isinstance(error, SharedUserError):  # a block damaged on one host, say: no other rank knows
            print(error, file=sys.stderr)
            watchdog_leaves(watchdog)
            return MISTAKE
        watchdog_leaves(watchdog)
        if world.rank == 0:
            print(error, file=sys.stderr)
        leave_together(world, MISTAKE)
    except RuntimeError:
        why = watchdog.explain() if watchdog is not None else None
        if why is None:
            raise
        print(why, file=sys.stderr, flush=True)  # a collective failed because a rank is gone
        os._exit(LOST)
    finally:
        watchdog_leaves(watchdog)
        leave_world()
    return 0


def watchdog_leaves(watchdog: Watchdog | None) -> None:
    if watchdog is not None:
        watchdog.leave("it has left, its own lines say why")


def mark(run: str) -> None:
    """For the batch script that decides whether to requeue: the step of a verified checkpoint, in $UNSEE_STOP_MARK."""
    from unsee_dist.training.checkpoint.directory import choose, verify

    path = os.environ.get("UNSEE_STOP_MARK")
    if path:
        newest, _ = choose(Path(run) / "checkpoints", verify)
        Path(path).write_text(f"{newest.name if newest else 'step-00000000'}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
