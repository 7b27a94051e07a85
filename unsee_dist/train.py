"""`deepspeed unsee_dist/train.py --config CONFIG.yaml [section.key=value ...]`: parse, build, run; nothing else.

Also the script of `torchrun`, of a bare `srun` and of plain `python`. Exit code 2: a mistake, said in one sentence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


def main() -> int:
    from unsee_dist.config import load
    from unsee_dist.parallel.process import SharedMistake, leave_together, start, stop, together
    from unsee_dist.run import train

    chosen = parse(sys.argv[1:])
    try:
        world = start()
    except ValueError as error:  # no rank can speak for the others yet
        print(error, file=sys.stderr)
        return MISTAKE
    try:
        with together(world):  # a file that one host does not see must not leave the others waiting
            config = load(chosen.config, chosen.overrides)
        train(config)
    except (ValueError, OSError) as error:
        if not isinstance(error, SharedMistake):  # a block damaged on one host, say: no other rank knows
            print(error, file=sys.stderr)
            return MISTAKE
        if world.rank == 0:
            print(error, file=sys.stderr)
        leave_together(world, MISTAKE)
    finally:
        stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
