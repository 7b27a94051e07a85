"""What each run of an experiment is trained with, and which settings are no longer the user's."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.reproduce.made_experiment import made, unit_names, wave

from unsee_dist.config import ConfigError
from unsee_dist.errors import UserError
from unsee_dist.reproduce import vision
from unsee_dist.reproduce.experiment import Claim, Experiment, only
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.units import units_of

OBJECTIVES, TARGET = EXPERIMENTS["objectives"], EXPERIMENTS["target"]
TEXTS = [each for each in EXPERIMENTS.values() if each.name != vision.NAME]  # of presets
EVERY = [(each, small) for each in TEXTS for small in (True, False)]


@pytest.mark.parametrize(("experiment", "small"), EVERY, ids=lambda of: getattr(of, "name", str(of)))
def test_every_arm_can_be_configured_and_every_claim_is_about_arms(
    experiment: Experiment, small: bool, tmp_path: Path
) -> None:
    plan = experiment.plan(small)
    units = units_of(experiment, plan, ["model.encoder=x", "projector.width=2"], plan.seeds, tmp_path)
    assert len(set(unit_names(units))) == len(units) == 3 * len(plan.arms)
    for unit in units:
        config = unit.config
        assert (config.seed, config.run.dir) == (unit.seed, str(unit.folder))
        assert config.model.encoder == "x"
    names = {arm.name for arm in plan.arms} | {"before training"}
    assert {name for claim in plan.claims for name in (claim.arm, claim.against)} <= names
    assert plan.claims


def test_arms_differ_only_in_what_they_say(tmp_path: Path) -> None:
    units = units_of(TARGET, TARGET.small, ["model.encoder=x"], 1, tmp_path)
    with_target, without = (unit.config for unit in units[:2])
    assert (with_target.target.kind, without.target.kind) == ("ema", "online")
    assert with_target.train == without.train
    assert {unit.config.train.lr for unit in units} == {3e-5, 1e-4, 3e-4}


def test_the_users_settings_win_over_the_plans_and_are_left_out_where_they_mean_nothing(
    tmp_path: Path,
) -> None:
    settings = ["model.encoder=x", "train.steps=7", "projector.width=3"]
    by_arm = {unit.arm: unit.config for unit in units_of(OBJECTIVES, OBJECTIVES.small, settings, 1, tmp_path)}
    assert {config.train.steps for config in by_arm.values()} == {7}
    assert by_arm["byol"].projector.width == 3
    assert by_arm["simcse-fair"].projector.kind == "tanh"
    assert by_arm["simcse-fair"].train.lr == 3e-5


@pytest.mark.parametrize("setting", ["train.lr=1e-5", "train.batch=8", "run.dir=a", "seed=3", "resume=never"])
def test_what_is_each_runs_own_cannot_be_set_for_all(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        units_of(TARGET, TARGET.small, [setting], 1, tmp_path)


def test_a_wrong_setting_is_found_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.stepz"):
        units_of(OBJECTIVES, OBJECTIVES.small, ["train.stepz=3"], 1, tmp_path)


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path: Path) -> None:
    made(OBJECTIVES, tmp_path, lambda _arm, seed, _step: 61 + wave(seed), seeds=1)
    same = ["evaluate.sts=pairs.tsv", "train.steps=40"]
    assert all(unit.complete for unit in units_of(OBJECTIVES, OBJECTIVES.small, same, 1, tmp_path))
    changed = [*same, "data.workers=3"]  # changes no result
    assert all(unit.complete for unit in units_of(OBJECTIVES, OBJECTIVES.small, changed, 1, tmp_path))
    for other in ("model.max_tokens=32", "data.shards=elsewhere", "evaluate.sts=other.tsv"):
        with pytest.raises(UserError, match=other.partition("=")[0]):
            units_of(OBJECTIVES, OBJECTIVES.small, [*same, other], 1, tmp_path)
    more = units_of(OBJECTIVES, OBJECTIVES.small, same, 2, tmp_path)
    assert [unit.complete for unit in more] == [True] * 5 + [False] * 5


def test_some_arms_alone_have_the_claims_that_they_settle() -> None:
    part = only(OBJECTIVES.small, ["simcse-fair", "byol"])
    assert [arm.name for arm in part.arms] == ["byol", "simcse-fair"], "in the order of the experiment"
    assert part.claims == (Claim("byol", "simcse-fair"), Claim("byol"))
    assert only(TARGET.small, ["target-lr1e-4-batch32"]).claims == ()


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("buol", "--arm buol: there is no such arm; did you mean byol"),
        ("zzz", "--arm zzz: there is no such arm; it has unsee-vicreg, "),
    ],
)
def test_an_arm_that_is_not_there_is_one_sentence(arm: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        only(OBJECTIVES.small, ["byol", arm])
    assert said in str(raised.value)


def test_a_peer_needs_the_arm_that_says_how_long() -> None:
    with pytest.raises(UserError, match="Write --arm unsee-vicreg as well"):
        only(EXPERIMENTS["peers"].small, ["st-ct"])
