"""Which settings mattered: fANOVA over the trials, by Optuna (Hutter et al. 2014)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from unsee_dist.log import quiet
from unsee_dist.sweep.ledger import BAD, LedgerRow
from unsee_dist.sweep.settings import Sweep

FEWEST = 6  # trials: with fewer, a forest explains nothing


def importances(sweep: Sweep, rows: Sequence[LedgerRow]) -> tuple[dict[str, float], list[str]]:
    """Share of the variance of the scores explained by each setting that all trials have, largest first; and those
    left out because some trials lack them. ({}, []) with too few scores, or none that differ."""
    import optuna

    sound = [row for row in rows if row.score is not None and row.status not in BAD]
    shared = [axis for axis in sweep.space.axes if all(axis.key in row.point for row in sound)]
    left_out = [axis.key for axis in sweep.space.axes if axis not in shared]
    if len(sound) < FEWEST or len({row.score for row in sound}) < 2 or not shared:
        return {}, []
    with quiet("optuna", level=logging.WARNING):
        study = optuna.create_study(direction="maximize" if sweep.settings.mode == "max" else "minimize")
    distributions = {axis.key: axis.distribution() for axis in shared}
    for row in sound:
        params = {axis.key: row.point[axis.key] for axis in shared}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=row.score)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(weight) for key, weight in shares.items()}, left_out
