"""results.json: what an experiment has measured, for the docs and for other programs. No path of a machine is in it."""

from __future__ import annotations

import json
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unsee_dist import __version__
from unsee_dist.bench.sentence_trainer import PEERS
from unsee_dist.config import load
from unsee_dist.config.kinds import flat
from unsee_dist.errors import UserError, writing
from unsee_dist.evaluation.mteb_tasks import VERSION as MTEB
from unsee_dist.files.atomic import write_file
from unsee_dist.files.trees import parse_json, read_within
from unsee_dist.metrics.names import COLLAPSED, DEV, STEP, dev
from unsee_dist.reproduce.differences import Difference, difference
from unsee_dist.reproduce.experiment import Claim
from unsee_dist.reproduce.results import Results, UnitResult, best_step
from unsee_dist.reproduce.sentences import headline, sentences
from unsee_dist.tracking.metrics_file import Line

FORMAT = 1
BYTES = 1 << 26  # of results to look at: some hundred runs have a thousandth of it
PATHS = ("model.encoder", "data.shards", "evaluate.sts", "evaluate.retrieval")


def check_results(path: Path) -> None:
    """UserError: something else than an experiment's results has this name."""
    if not os.path.lexists(path):
        return
    try:
        tree = parse_json(read_within(path, BYTES, "Move it away."))
    except ValueError:  # no JSON; a UserError, too
        tree = None
    if not (isinstance(tree, dict) and {"experiment", "seeds"} <= tree.keys()):
        raise UserError(
            f"{path} is not a file that unsee reproduce wrote. Nothing was changed: write another --out, or move it away."
        )


def write_results(results: Results, path: Path) -> None:
    """UserError: the file cannot be written."""
    text = json.dumps(_finite(as_dict(results)), indent=1, ensure_ascii=False, allow_nan=False)
    with writing(path, "Make room, and write the same command again: what is complete is not run again."):
        write_file(path, text + "\n")


def as_dict(results: Results) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "experiment": results.experiment.name,
        "question": results.experiment.question,
        "small": results.small,
        "seeds": results.seeds,
        "versions": {"unsee_dist": __version__, "torch": version("torch"), "mteb": MTEB},
        "headline": headline(results),
        "sentences": sentences(results),
        "scores": results.scores,
        "arms": {
            arm.name: {
                "preset": arm.preset,
                **({"trainer": f"sentence-transformers {PEERS[arm.trainer].loss}"} if arm.trainer else {}),
                "settings": list(arm.settings),
                "scores": {score: list(results.values(arm.name, score).values()) for score in results.scores},
                "before": {score: list(results.before(arm.name, score).values()) for score in results.scores},
            }
            for arm in results.plan.arms
        },
        "claims": [_claim(results, claim) for claim in results.plan.claims],
        "runs": [_run(each) for each in results.units],
    }


def _claim(results: Results, claim: Claim) -> dict[str, Any]:
    differences = [difference(results, claim, score) for score in results.claimed]
    return {
        "arm": claim.arm,
        "against": claim.against,
        "scores": {each.score: _gap(each) for each in differences},
    }


def _gap(of: Difference) -> dict[str, Any]:
    seeds, pairs = of.seeds, of.of_pairs
    return {
        "finding": of.finding,
        "by_seed": list(of.gaps),
        "over_seeds": [seeds.low, seeds.high] if seeds else None,
        "over_pairs": [pairs.low, pairs.high] if pairs else None,
        "pairs": of.pairs,
    }


def _run(each: UnitResult) -> dict[str, Any]:
    """settings: what differs from the preset's, where it has one."""
    return {
        "arm": each.unit.arm,
        "seed": each.unit.seed,
        "settings": _settings(each) if each.unit.preset else dict(each.settings),
        "steps": each.steps,
        "ended_early": each.why != "",
        "best_step": best_step(each),
        "collapsed": bool(each.last.get(dev(COLLAPSED))),
        "sentences_per_s": each.sentences_per_s,
        "tasks": {name: score.score for name, score in each.tasks.items()},
        "evaluations": [_scores(line) for line in each.evaluations],
    }


def _settings(each: UnitResult) -> dict[str, object]:
    """Names instead of paths."""
    preset = flat(load(each.unit.preset))
    return {
        key: Path(str(value)).name if key in PATHS else value
        for key, value in flat(load(each.unit.preset, each.unit.overrides)).items()
        if value != preset.get(key) and not key.startswith("run.")
    }


def _scores(line: Line) -> dict[str, float]:
    return {key.removeprefix(DEV): value for key, value in line.items() if key == STEP or key.startswith(DEV)}


def _finite(tree: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    if isinstance(tree, float):
        return round(tree, 6) if math.isfinite(tree) else None
    return tree
