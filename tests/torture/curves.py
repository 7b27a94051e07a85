"""Masks by sentence teach what torch's dropout teaches: the same training under both, over seeds. Prints a table, writes a JSON.

    python tests/torture/curves.py CONFIG [key=value ...] --seeds 0 1 2 --out curves.json

CONFIG and the settings name encoder, corpus and `evaluate.sts`. The difference of the means is compared with what seeds
alone make: two standard errors of a difference of two means over so many seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

KINDS = ("by sentence", "torch's")


def one(kind: str, config: str, overrides: Sequence[str]) -> None:
    """Train to the end in this process, under the masks of `kind`; the score of every evaluation is printed as JSON."""
    from unsee_dist.config import load
    from unsee_dist.distributed.process_group import join_world, leave_world
    from unsee_dist.metrics.names import STEP
    from unsee_dist.model.dropout import masks_of, remove
    from unsee_dist.run import build
    from unsee_dist.tracking.metrics_file import evaluations
    from unsee_dist.training.loop import train

    settings = load(config, overrides)
    run = build(settings, join_world())
    module = run.engine.module
    if kind == "torch's":
        for encoder in (module.online, module.target):
            if encoder is not None:
                remove(encoder)
    assert (masks_of(module.online) is None) == (kind == "torch's")
    train(run)
    run.recorder.close()
    leave_world()
    lines = evaluations(Path(settings.run.dir) / "metrics.jsonl")
    print(json.dumps({line[STEP]: line["dev/sts"] for line in lines}), flush=True)


def curve(kind: str, seed: int, config: str, overrides: Sequence[str]) -> list[float]:
    """Dev scores of one training in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*overrides, f"seed={seed}", f"run.dir={folder}/run", "track.mlflow=false"]
        command = [sys.executable, __file__, config, *settings, "--kind", kind]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]).values())


def compare(curves: dict[str, list[list[float]]]) -> dict[str, object]:
    """By evaluation: the means of both, their difference, and two standard errors of it by the seeds."""
    rows = []
    for place in range(len(curves[KINDS[0]][0])):
        ours, theirs = ([each[place] for each in curves[kind]] for kind in KINDS)
        noise = 2 * ((statistics.variance(ours) + statistics.variance(theirs)) / len(ours)) ** 0.5
        rows.append(
            {
                "by_sentence": statistics.fmean(ours),
                "torch": statistics.fmean(theirs),
                "difference": statistics.fmean(ours) - statistics.fmean(theirs),
                "two_standard_errors": noise,
            }
        )
    return {"evaluations": rows, "curves": curves}


def _without_folders(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}={os.path.basename(value)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("curves.json"))
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_intermixed_args()
    if options.kind:
        one(options.kind, options.config, options.overrides)
        return
    curves: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for seed in options.seeds:
        for kind in KINDS:
            curves[kind].append(curve(kind, seed, options.config, options.overrides))
            print(f"seed {seed}, {kind}: {curves[kind][-1]}", flush=True)
    result = compare(curves)
    settings = [options.config, *map(_without_folders, options.overrides)]
    options.out.write_text(json.dumps({"settings": settings, **result}, indent=1) + "\n")
    for row in result["evaluations"]:  # type: ignore[attr-defined]
        print(row)


if __name__ == "__main__":
    main()
