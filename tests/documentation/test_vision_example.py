"""docs/examples/vision.py: its parts, and `unsee reproduce vision`, which runs it and says what the runs show."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from integration.tiny import REPOSITORY

from unsee_dist.config.shipped import EXAMPLES, shipped
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.report.page import render
from unsee_dist.reproduce import vision as experiment
from unsee_dist.reproduce.command import Request, reproduce
from unsee_dist.reproduce.page import page
from unsee_dist.reproduce.record import as_dict
from unsee_dist.reproduce.sentences import claimed


@pytest.fixture(scope="module")
def vision() -> ModuleType:
    path = REPOSITORY / "docs" / "examples" / "vision.py"
    assert path == shipped(EXAMPLES) / "vision.py"
    spec = importlib.util.spec_from_file_location("vision_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_knows_the_example_s_arms_and_scores(vision: ModuleType) -> None:
    plan = experiment.experiment().small
    assert [arm.name for arm in plan.arms] == [arm.name for arm in vision.ARMS]
    assert experiment.ACCURACIES == (vision.NEIGHBOURS, vision.PROBE)
    assert plan.seeds == vision.SEEDS >= 5
    assert vision.STEPS == experiment.SMALL


def test_a_shift_is_one_of_nine_and_views_by_dropout_are_the_image(vision: ModuleType) -> None:
    torch.manual_seed(0)
    image = torch.rand(8, 8)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    nine = [padded[row : row + 8, column : column + 8] for row in range(3) for column in range(3)]
    images = image.expand(500, 1, 8, 8)
    assert vision.view(images, "dropout") is images
    found = [
        next(n for n, each in enumerate(nine) if torch.equal(each, moved[0]))
        for moved in vision.view(images, "shifts")
    ]
    assert set(found) == set(range(9))


def test_an_epoch_has_every_image_once(vision: ModuleType) -> None:
    torch.manual_seed(0)
    places = torch.cat(list(vision.batches(200, 50)))
    assert len(places) == 50 * vision.BATCH
    for epoch in places[: len(places) // 200 * 200].view(-1, 200):
        assert sorted(epoch.tolist()) == list(range(200))


@pytest.mark.parametrize("objective", ["vicreg", "corinfomax", "simcse"])
def test_the_target_is_the_average_and_gets_no_gradient(vision: ModuleType, objective: str) -> None:
    torch.manual_seed(1)
    images = torch.rand(16, 1, 8, 8)
    model = vision.Siamese(vision.Arm("dropout", objective, "ema"))
    before = [each.clone() for each in model.target.parameters()]
    model.loss(images, images).backward()
    with torch.no_grad():
        for weight in model.online.parameters():
            assert weight.grad.abs().sum() > 0
            weight.sub_(weight.grad)
    model.moved()
    for was, target, online in zip(before, model.target.parameters(), model.online.parameters(), strict=True):
        torch.testing.assert_close(target, vision.DECAY * was + (1 - vision.DECAY) * online)
        assert target.grad is None
    assert vision.Siamese(vision.Arm("dropout", objective, "online")).target is None


def test_a_run_is_a_function_of_its_seed_and_arms_begin_alike(vision: ModuleType) -> None:
    first, second = (vision.Arm("shifts", "vicreg", target) for target in ("ema", "online"))
    scores = vision.train(first, 0, 2)
    assert scores == vision.train(first, 0, 2)
    assert scores[0] == vision.train(second, 0, 2)[0]
    assert scores[-1] != vision.train(first, 1, 2)[-1]
    assert [line["step"] for line in scores] == [0, 1, 2]


@pytest.mark.slow
def test_the_command_runs_it_judges_it_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "SMALL", 2)
    request = Request("vision", (), tmp_path, small=True, seeds=2)
    assert reproduce(request) == ExitCode.COMPLETE
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["experiment"], found["seeds"], len(found["runs"])) == ("vision", 2, 40)
    assert found["scores"] == list(experiment.ACCURACIES)
    assert found["runs"][0]["settings"] == {"steps": 2}
    assert str(tmp_path) not in json.dumps(found)
    run = json.loads((tmp_path / "runs" / "dropout-vicreg-ema-1.json").read_text())
    assert found["arms"]["dropout-vicreg-ema"]["scores"][experiment.ACCURACIES[0]][1] == pytest.approx(
        run["evaluations"][-1][experiment.ACCURACIES[0]], abs=1e-5
    )
    page = (tmp_path / "report.html").read_text()
    assert "shifts-byol-online" in page
    assert (tmp_path / "vision.png").stat().st_size > 10_000
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert reproduce(request) == ExitCode.COMPLETE
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == written


def test_the_sentences_are_about_target_and_none_over_seeds(tmp_path: Path) -> None:
    """Of scores by rule: the target gives 3 on the probe in each seed, give or take, and nothing on the neighbours."""
    plan = experiment.experiment().small
    (tmp_path / "runs").mkdir()
    for arm in plan.arms:
        for seed in range(3):
            noise = 0.1 * np.sin(seed + len(arm.name))
            gain = 3 if arm.name.endswith("ema") else 0
            line = {"effective_rank": 9.0, "std": 0.9} | dict(
                zip(experiment.ACCURACIES, (90 + noise, 80 + gain + noise), strict=True)
            )
            run = {"steps": 1, "evaluations": [{"step": 0} | line, {"step": 1} | line]}
            (tmp_path / "runs" / f"{arm.name}-{seed}.json").write_text(json.dumps(run))
    results = experiment.collect(tmp_path, small=True, seeds=3)
    said = claimed(results, plan.claims[0])
    assert said.startswith(
        "dropout-barlowtwins-ema against dropout-barlowtwins-online: better on digits: probe of 8 labels (+2.87"
    )
    assert "inside the noise on digits: 5 nearest" in said
    text = render(page(results, tmp_path))
    assert text.count("<svg") == 3  # both accuracies by arm, the effective rank over steps
    assert all(arm.name in text for arm in plan.arms)
    kept = as_dict(results)
    assert (kept["small"], kept["seeds"], kept["runs"][0]["settings"]) == (True, 3, {"steps": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"steps": 1}',
        '{"steps": "1", "evaluations": []}',
        '{"steps": 1, "evaluations": [{"step": 0}]}',
    ],
)
def test_a_damaged_run_is_a_sentence_before_the_example_reads_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runs" / "dropout-vicreg-ema-0.json"
    path.parent.mkdir()
    path.write_text(text)
    request = Request("vision", (), tmp_path, small=True, seeds=1)
    with pytest.raises(UserError, match=rf"{path.name} is damaged, or is not a run of vision. Remove it"):
        reproduce(request)
    assert path.read_text() == text
