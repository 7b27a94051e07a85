"""`deepspeed unsee_dist/train.py --config CONFIG.yaml [section.key=value ...]`: parse, build, run; nothing else.

Also the script of `torchrun`, of a bare `srun` and of plain `python`.

Exit codes are those of errors.ExitCode. (torchrun and deepspeed return 1 for all but 0.)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from unsee_dist.api import Run
    from unsee_dist.config import RunConfig
    from unsee_dist.distributed.world import World
    from unsee_dist.supervision.signals import StopSignal
    from unsee_dist.supervision.watchdog import Watchdog

if (
    __name__ == "__main__" and not __package__
):  # by its path: its folder would shadow packages of the same names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from unsee_dist.config.options import no_such_option, option_and_value
from unsee_dist.errors import ExitCode, UserError, exit_code_of, report
from unsee_dist.log import be_quiet, say_waiting
from unsee_dist.masking import masked
from unsee_dist.terminal import clear_waiting

# The configuration, read once. A mistake in it is raised at each call: all ranks say it together, once they have met.
ReadConfig = Callable[[], "RunConfig"]

LAUNCHER = os.getppid()  # before anything takes long: it may die meanwhile
PRINT_WAIT_S = 2.0  # lets the rank that failed print: srun kills the others as soon as one has ended


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a sentence encoder without labels.")
    parser.add_argument("--config", required=True, help="a YAML file or the name of a preset")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, help="given by launchers; LOCAL_RANK is what counts"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:  # meant as a setting
        name, value = option_and_value(unknown[0].partition("=")[0], arguments)
        parser.error(no_such_option(parser.prog, name, value, f"--config {options.config}"))
    return options


def main(arguments: list[str] | None = None) -> int:
    from unsee_dist.supervision.signals import StopSignal, is_launched, launched_as, stop_with_launcher

    stop = StopSignal()  # before torch is imported: in those seconds a signal would end this rank at once
    stop.meeting = is_launched()
    stop_with_launcher(LAUNCHER)
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.quiet:
        be_quiet()
    rank, ranks = launched_as()
    if rank == 0:
        others = f", then waiting for {ranks} ranks" if ranks > 1 else ""
        say_waiting(f"{options.config}: loading torch and deepspeed{others}", alone=ranks == 1)
    read_config = config_of(options)
    begin_workers(read_config)
    from unsee_dist.distributed.process_group import join_world, leave_world
    from unsee_dist.distributed.rendezvous import RendezvousStopped
    from unsee_dist.distributed.shared_errors import SharedUserError

    try:
        world = join_world(stopped=lambda: stop.requested)
        stop.meeting = False
    except SharedUserError as error:
        return report_once(error)
    except RendezvousStopped:
        return leave_meeting(read_config, stop.name)
    except Exception as error:  # the ranks are not connected yet: each reports for itself
        if exit_code_of(error) is ExitCode.TRANSIENT:
            write_stop_mark(None)
        return report(error)
    try:
        code = run(read_config, world, stop)
    finally:
        stop.close()
    leave_world(code)
    return code


def config_of(options: argparse.Namespace) -> ReadConfig:
    from unsee_dist.config import load

    return cache(lambda: load(options.config, options.overrides))


def begin_workers(read_config: ReadConfig) -> None:
    """Let what the workers are forked from import torch beside this process: the first batch waits for it."""
    from unsee_dist.data.processes import start_fork_server

    try:
        workers = read_config().data.workers
    except Exception:  # whatever it is: it is raised again in `run`
        return
    if workers:
        start_fork_server("unsee_dist.data.stream.stream")


def report_once(error: Exception) -> int:
    """Rank 0 prints an error that all ranks have, before any rank ends."""
    if os.environ.get("RANK", "0") == "0":
        return report(error)
    time.sleep(PRINT_WAIT_S)
    return exit_code_of(error)


def leave_meeting(read_config: ReadConfig, signal_name: str) -> int:
    """End before the ranks have met, because one of them got a signal. Rank 0 writes the mark, as after any stop."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(PRINT_WAIT_S)
        return ExitCode.STOPPED
    clear_waiting()
    print(stopped_by(signal_name), file=sys.stderr)
    if "UNSEE_STOP_MARK" in os.environ:
        try:
            write_stop_mark(read_config().run.dir)
        except UserError as error:
            return report(error)
    return ExitCode.STOPPED


def stopped_by(signal_name: str) -> str:
    return f"stopped after {signal_name or 'a signal to another rank'}; the same command continues"


def run(read_config: ReadConfig, world: World, stop: StopSignal) -> int:
    """Train on a rank that has joined the others; returns its exit code."""
    from unsee_dist.distributed.shared_errors import share_errors
    from unsee_dist.distributed.world import wait_for_all
    from unsee_dist.run import train
    from unsee_dist.supervision.signals import Stopped
    from unsee_dist.supervision.watchdog import Watchdog

    watchdog, folder = None, None
    try:
        with share_errors(world):  # a file that is missing on one host must not leave the others waiting
            config = read_config()
        folder = config.run.dir
        watchdog = Watchdog(world, config.guard.timeout_s)
        watchdog.start()
        stop.while_paused = watchdog.paused
        train(config, stop)
        wait_for_all(world)  # rank 0 may serve the store that the others' watchdogs read
    except Stopped:
        announce_exit(watchdog)
        assert folder is not None
        exit_stopped(world, folder, stop.name)
    except Exception as error:
        return end(error, world, watchdog, folder)
    finally:
        announce_exit(watchdog)
    return ExitCode.COMPLETE


def end(error: Exception, world: World, watchdog: Watchdog | None, folder: str | None) -> int:
    """Print why this rank ends; where all ranks end for the same reason, end them at the same moment.

    folder: of the run, when its configuration could be read.
    """
    from unsee_dist.distributed.process_group import exit_together
    from unsee_dist.distributed.shared_errors import PeerFailed, SharedTransientError, SharedUserError

    if exit_code_of(error) is ExitCode.TRANSIENT:
        write_stop_mark(folder)
    if isinstance(error, SharedUserError | SharedTransientError):
        announce_exit(watchdog)
        if world.rank == 0:
            report(error)
        exit_together(world, exit_code_of(error))
    if isinstance(error, PeerFailed):
        print(masked(str(error)), file=sys.stderr, flush=True)
        time.sleep(PRINT_WAIT_S)
        return ExitCode.BUG
    lost = watchdog.explain() if isinstance(error, RuntimeError) and watchdog is not None else None
    if lost is not None:
        print(lost, file=sys.stderr, flush=True)  # a collective failed because a rank is gone
        os._exit(ExitCode.RANK_LOST)
    announce_exit(watchdog)  # a bug, or a fault of one host: the other ranks have not raised it
    return report(error, f"rank {world.rank}" if world.size > 1 else "")


def exit_stopped(world: World, folder: str, signal_name: str) -> NoReturn:
    """Exit with code 75, after all ranks have agreed to stop and what they trained is in a checkpoint."""
    from unsee_dist.distributed.process_group import exit_together

    if world.rank == 0:
        write_stop_mark(folder)
        clear_waiting()
        print(stopped_by(signal_name), file=sys.stderr)
    exit_together(world, ExitCode.STOPPED)


def announce_exit(watchdog: Watchdog | None) -> None:
    if watchdog is not None:
        watchdog.announce_exit("it has exited, its own output says why")


def write_stop_mark(run: str | None) -> None:
    """Write the name of the newest verified checkpoint into the file $UNSEE_STOP_MARK, where the variable is set.

    The batch script requeues a job that has written it. run: None = its configuration could not be read.
    """
    from unsee_dist.supervision.stop_mark import OF_RUN, write_mark
    from unsee_dist.training.checkpoint.directory import CHECKPOINTS, checkpoint_name, newest_valid, verify

    def newest() -> str:
        checkpoint = None
        with suppress(OSError, UserError):  # the file system that failed may fail here, too
            checkpoint = newest_valid(Path(run) / CHECKPOINTS, verify)[0] if run is not None else None
        return checkpoint.name if checkpoint else checkpoint_name(0)

    write_mark(OF_RUN, newest)


class _Function(ModuleType):
    """The module, once it is imported, is what `unsee_dist.train` names: it is called as the function of that name."""

    def __call__(self, config: RunConfig) -> Run:
        from unsee_dist.api import train

        return train(config)


sys.modules[__name__].__class__ = _Function

if __name__ == "__main__":
    sys.exit(main())
