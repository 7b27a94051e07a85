"""Several encoders to begin with: the arms of each, and what is said of harm and gain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModel
from unit.reproduce.made_experiment import NO_TASKS, made, wave

from unsee_dist.errors import ExitCode, UserError
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.model.fresh import FreshSize, write_fresh
from unsee_dist.report.page import render
from unsee_dist.reproduce import command
from unsee_dist.reproduce.command import Request, reproduce
from unsee_dist.reproduce.experiment import BEFORE, from_each
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.page import page, scores_table
from unsee_dist.reproduce.sentences import by_start
from unsee_dist.reproduce.starts import all_starts, parse_starts, write_random
from unsee_dist.reproduce.units import Unit, units_of
from unsee_dist.supervision.signals import Stopped

START = EXPERIMENTS["start"]


def lifted(**lifts: float) -> object:
    """A score by rule: 60 before, and after training as much more as the arm's lift says, else a little in each direction."""

    def score(arm: str, seed: int, step: int) -> float:
        name = arm.partition("-")[2]
        own = lifts.get(name.replace("-", "_"))
        return 60 + (10 * wave(3 * seed) if own is None else own + wave(seed)) + step / 1e6

    return score


def test_each_arm_is_trained_from_each_start(tmp_path: Path) -> None:
    plan = from_each(START.plan(small=True), all_starts({"mini": "models/mini"}, tmp_path))
    units = units_of(START, plan, ["model.encoder=x"], 1, tmp_path)
    encoders = {unit.arm: unit.config.model.encoder for unit in units}
    assert len(encoders) == 3 * len(START.small.arms)
    assert encoders["given-default"] == "x"
    assert encoders["mini-no-projector"] == "models/mini"
    assert encoders["random-default"] == str(tmp_path / "random")
    assert {claim.against for claim in plan.claims} == {BEFORE}
    waits = next(unit.config for unit in units if unit.arm == "given-projector-first")
    assert waits.train.projector_first == 0.25


@pytest.mark.parametrize("text", ["mini", "=folder", "mini=", "a b=c", "given=x", "random=x", "../up=x"])
def test_a_start_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="--start"):
        parse_starts([text])


def test_a_start_is_given_once() -> None:
    assert parse_starts(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    with pytest.raises(UserError, match="already"):
        parse_starts(["a=b", "a=c"])


def test_starts_are_of_experiments_that_have_them(tmp_path: Path) -> None:
    request = Request("target", ["evaluate.sts=a.tsv"], tmp_path, starts={"a": "b"}, tasks=NO_TASKS)
    with pytest.raises(UserError, match="--start is of start, and target begins"):
        reproduce(request)


def test_the_random_start_is_made_of_the_given_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fresh(tmp_path / "given", ["the old river follows a garden"], FreshSize(width=16), 7)
    monkeypatch.setattr(command, "run_all", lambda *_: (_ for _ in ()).throw(Stopped("SIGTERM")))
    settings = [f"model.encoder={tmp_path / 'given'}", "evaluate.sts=a.tsv"]
    assert (
        reproduce(Request("start", settings, tmp_path / "out", small=True, tasks=NO_TASKS))
        == ExitCode.STOPPED
    )
    assert load_encoder(str(tmp_path / "out" / "random"), None).config.hidden_size == 16


def test_some_arms_of_some_starts_are_run_and_no_encoder_is_made_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def stop(units: Sequence[Unit], *_: object) -> None:
        ran.extend(unit.name for unit in units)
        raise Stopped("SIGTERM")

    monkeypatch.setattr(command, "run_all", stop)
    write_fresh(tmp_path / "given", ["the old river follows a garden"], FreshSize(width=16), 7)
    settings = [f"model.encoder={tmp_path / 'given'}", "evaluate.sts=a.tsv"]
    asked = Request("start", settings, tmp_path / "out", True, 2, ["other-default"], {"other": "x"}, NO_TASKS)
    assert reproduce(asked) == ExitCode.STOPPED
    assert ran == ["other-default-0", "other-default-1"]
    assert not (tmp_path / "out" / "random").exists()


@pytest.mark.parametrize("name", ["results.json", "report.html"])
@pytest.mark.parametrize("experiment", ["target", "vision"])
def test_a_file_of_somebody_else_is_found_before_anything_is_trained(
    name: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run_all", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(command.vision, "run", lambda *_: pytest.fail("trained"))
    (tmp_path / name).write_text('{"accuracy": 91}')
    settings = [] if experiment == "vision" else ["evaluate.sts=a.tsv"]
    with pytest.raises(UserError, match=rf"{name} is not a .* that unsee re.* wrote. Nothing was changed"):
        reproduce(Request(experiment, settings, tmp_path, small=True, tasks=NO_TASKS))
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"accuracy": 91}']


def test_harm_that_a_setting_turns_into_gain_is_said(tmp_path: Path) -> None:
    results = made(START, tmp_path, lifted(default=-2, tenth_of_rate=1))  # type: ignore[arg-type]
    said = by_start(results)
    assert [each.partition(":")[0] for each in said] == ["From given", "From other"]
    assert (
        "training helps with tenth-of-rate; it harms with default; no difference can be seen with" in said[0]
    )
    assert said[0].endswith("Harm is turned into gain by tenth-of-rate.")


def test_harm_that_nothing_turns_into_gain_is_said(tmp_path: Path) -> None:
    arms = [arm.name.replace("-", "_") for arm in START.small.arms]
    results = made(START, tmp_path, lifted(**dict.fromkeys(arms, -1.0)))  # type: ignore[arg-type]
    assert by_start(results)[0].endswith("No setting that was tried turns harm into gain.")


def test_harm_that_is_only_avoided_is_no_gain(tmp_path: Path) -> None:
    results = made(START, tmp_path, lifted(default=-2))  # type: ignore[arg-type]
    assert "No setting that was tried turns harm into gain; third-of-rate" in by_start(results)[0]


def test_gain_alone_has_nothing_to_be_turned(tmp_path: Path) -> None:
    results = made(START, tmp_path, lifted(default=2, tenth_of_rate=-1))  # type: ignore[arg-type]
    assert "turn" not in by_start(results)[0]
    assert "From given" in render(page(results, tmp_path))


def test_each_start_has_a_row_above_its_arms(tmp_path: Path) -> None:
    results = made(START, tmp_path, lifted(default=2))  # type: ignore[arg-type]
    rows = [row[0] for row in scores_table(results).rows]
    assert rows[0] == BEFORE
    assert rows[1] == "given-default"


def test_random_weights_are_those_of_the_seed_and_not_the_encoders(tmp_path: Path) -> None:
    write_fresh(tmp_path / "given", ["the old river follows a garden"], FreshSize(width=16), 7)
    for name in ("a", "b"):
        write_random(tmp_path / name, str(tmp_path / "given"))
    given, first, second = (
        load_encoder(str(tmp_path / name), None).state_dict() for name in ("given", "a", "b")
    )
    assert given.keys() == first.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    matrices = [key for key, weight in given.items() if weight.ndim == 2 and key.endswith("weight")]
    assert not any(torch.equal(first[key], given[key]) for key in matrices)
    vocabularies = [load_tokenizer(str(tmp_path / name)).get_vocab() for name in ("given", "a")]
    assert vocabularies[0] == vocabularies[1]
    assert AutoModel.from_pretrained(tmp_path / "a").config.hidden_size == 16
