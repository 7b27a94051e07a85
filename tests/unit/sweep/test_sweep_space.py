"""A space is enumerated, sampled and checked under its conditions; every mistake of a sweep file is named at once."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest

from unsee_dist.config import ConfigError
from unsee_dist.errors import UserError
from unsee_dist.sweep.load import load_sweep

BASE = "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
CONDITIONAL = """space:
  objective.covariance: {loguniform: [0.1, 10], when: {objective.name: vicreg}}
  objective.name: {choice: [vicreg, byol, simcse]}
  objective.temperature: {choice: [0.05, 0.1], when: {objective.name: simcse}}
  train.lr: {loguniform: [1e-5, 1e-3]}
  projector.blocks: {integer: [1, 3]}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    return str(path)


def mistakes(path: str, *given: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, given)
    return {mistake.key: str(mistake) for mistake in caught.value.mistakes}


def test_conditions_come_before_those_that_ask_and_decide_what_a_trial_has(tmp_path: Path) -> None:
    space = load_sweep(write(tmp_path, CONDITIONAL)).space
    keys = [axis.key for axis in space.axes]
    assert keys.index("objective.name") < keys.index("objective.covariance")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        space.suggest(trial)
        name = trial.params["objective.name"]
        seen.add(name)
        assert ("objective.covariance" in trial.params) == (name == "vicreg")
        assert ("objective.temperature" in trial.params) == (name == "simcse")
        assert 1e-5 <= trial.params["train.lr"] <= 1e-3
        assert trial.params["projector.blocks"] in (1, 2, 3)
    assert seen == {"vicreg", "byol", "simcse"}


def test_a_grid_holds_every_combination_once(tmp_path: Path) -> None:
    text = """sweep: {search: grid}
space:
  objective.name: {choice: [vicreg, simcse]}
  objective.temperature: {choice: [0.05, 0.1], when: {objective.name: simcse}}
  train.batch: {choice: [16, 32]}
"""
    sweep = load_sweep(write(tmp_path, text))
    grid = sweep.space.grid()
    assert len(grid) == sweep.trials == 2 + 2 * 2
    assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)
    temperatures = sorted(point.get("objective.temperature", "none") for point in grid)
    assert temperatures == ["0.05", "0.05", "0.1", "0.1", "none", "none"]


def test_a_point_becomes_the_run_that_unsee_train_would_make(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, CONDITIONAL), ["train.batch=64"])
    config = sweep.config({"objective.name": "simcse", "objective.temperature": "0.1", "train.lr": 3e-4})
    assert config.objective.model_dump() == {"name": "simcse", "temperature": 0.1}
    assert (config.train.lr, config.train.batch, config.train.steps) == (3e-4, 64, 100)


def test_the_kept_sweep_is_the_same_sweep(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, CONDITIONAL), ["sweep.trials=7", "sweep.dir=else/where"])
    kept = tmp_path / "sweep.yaml"
    kept.write_text(sweep.as_yaml(), encoding="utf-8")
    again = load_sweep(str(kept))
    assert again.as_yaml() == sweep.as_yaml()
    assert (again.settings, again.space.axes[0].values) == (sweep.settings, sweep.space.axes[0].values)


def test_the_command_line_adds_replaces_and_removes_axes(tmp_path: Path) -> None:
    given = [
        "space.train.lr={choice: [1e-4, 2e-4]}",
        "space.seed={choice: [0, 1]}",
        "space.projector.blocks=",
    ]
    axes = {axis.key: axis for axis in load_sweep(write(tmp_path, CONDITIONAL), given).space.axes}
    assert axes["train.lr"].values == ("1e-4", "2e-4")
    assert axes["seed"].values == ("0", "1")
    assert "projector.blocks" not in axes
    assert "must say how" in mistakes(write(tmp_path, CONDITIONAL), "space.train.lr=3")["space.train.lr"]


def test_every_mistake_is_named_at_once_before_anything_starts(tmp_path: Path) -> None:
    text = """sweep: {metric: dev/stss, search: grid, grace: 200, trails: 3}
space:
  train.lr: {logunifrom: [1, 2]}
  train.warmup: {uniform: [0, 2]}
  objective.temperature: {uniform: [0.01, 1]}
  projector.depth: {choice: [1, 2]}
  train.batch: {choice: [-4, 2]}
  train.clip: 3
  run.dir: {choice: [a]}
  train.weight_decay: {uniform: [1, 1]}
"""
    found = mistakes(write(tmp_path, text))
    expected = {
        "sweep.trails": "did you mean sweep.trials?",
        "sweep.metric": "write dev/sts",
        "sweep.search": "cannot enumerate the ranges",
        "sweep.grace": "leaves nothing of train.steps = 100",
        "space.train.lr": "did you mean loguniform?",
        "space.train.warmup": "at most 1",
        "space.objective.temperature": "setting of simcse",
        "space.projector.depth": "no such key",
        "space.train.batch": "at least 2",
        "space.train.clip": "must say how it varies",
        "space.run.dir": "decided by the sweep",
        "space.train.weight_decay": "empty range",
    }
    assert found.keys() == expected.keys()
    assert all(words in found[key] for key, words in expected.items()), found


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (["evaluate.sts="], "sweep.metric", "never appears: evaluate.sts is absent"),
        (["sweep.ranks=3"], "train.batch", "cannot be split over sweep.ranks = 3"),
        (["train.steps="], "train.steps", "one number in a sweep"),
        (["sweep.mode=maximum"], "sweep.mode", "'max' or 'min'"),
        (["trian.lr=3"], "trian.lr", "train"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, given: list[str], key: str, words: str) -> None:
    assert words in mistakes(write(tmp_path, "space: {train.lr: {loguniform: [1e-5, 1e-3]}}\n"), *given)[key]


def test_an_empty_space_and_a_circle_are_refused(tmp_path: Path) -> None:
    assert "is empty" in mistakes(write(tmp_path, ""))["space"]
    circle = """space:
  train.batch: {choice: [16], when: {train.lr: 1}}
  train.lr: {choice: [1], when: {train.batch: 16}}
"""
    assert "ask for each other" in mistakes(write(tmp_path, circle))["space"]


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("objective.name: {choice: [[vicreg], [byol]]}", "a choice that is a list or a map"),
        ("train.lr: {choice: [{a: 1}, 2]}", "a choice that is a list or a map"),
        ("train.lr: {choice: [1e-4, 0.0001]}", "has the choice 0.0001 twice"),
        ("objective.name: {choice: [vicreg, byol, vicreg]}", "has the choice vicreg twice"),
        ("data.pack: {choice: [true, True]}", "has the choice True twice"),
        ("data.tokenise: {choice: [true, 'on']}", "has the choice on twice"),
        ("data.tokenise: {choice: [1, true]}", "has the choice true twice"),
    ],
)
def test_choices_are_plain_and_each_once(tmp_path: Path, axis: str, words: str) -> None:
    key = axis.partition(":")[0]
    assert words in mistakes(write(tmp_path, f"space:\n  {axis}\n"))[f"space.{key}"]


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["train.lr: {choice: [1, 2], when: {objective.name: byol}}"], "objective.name is vicreg"),
        (
            ["train.batch: {choice: [16, 32]}", "train.lr: {choice: [1, 2], when: {train.batch: [64, 128]}}"],
            "train.batch is 16 or 32",
        ),
        (
            ["train.warmup: {uniform: [0, 1]}", "train.lr: {choice: [1, 2], when: {train.warmup: 0.5}}"],
            "train.warmup is a number of a range",
        ),
        (  # each could hold, but never both
            [
                "objective.name: {choice: [vicreg, simcse]}",
                "objective.temperature: {choice: [0.1, 0.2], when: {objective.name: simcse}}",
                "train.lr: {choice: [1, 2], when: {objective.temperature: 0.1, objective.name: vicreg}}",
            ],
            "objective.temperature is 0.1 or 0.2",
        ),
    ],
)
def test_a_condition_that_never_holds_is_a_mistake(tmp_path: Path, axes: list[str], words: str) -> None:
    found = mistakes(write(tmp_path, "space:\n  " + "\n  ".join(axes) + "\n"))
    assert "has a condition that never holds" in found["space.train.lr"]
    assert words in found["space.train.lr"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("track.mlflow", "false"), ("train.lr", "1.0e-4"), ("train.lr", "0.0001"), ("data.tokenise", "off")],
)
def test_a_condition_holds_however_its_value_is_written(tmp_path: Path, key: str, value: str) -> None:
    given = ["track.mlflow=false", "train.lr=1e-4", "data.tokenise=false"]
    axis = f"space:\n  train.batch: {{choice: [16, 32], when: {{{key}: {value}}}}}\n"
    (axis_of,) = load_sweep(write(tmp_path, axis), given).space.axes
    assert axis_of.key == "train.batch"
    assert len(load_sweep(write(tmp_path, axis), given).space.grid()) == 2


def test_a_value_of_a_condition_that_no_point_has_is_a_mistake(tmp_path: Path) -> None:
    axes = """space:
  objective.name: {choice: [vicreg, byol]}
  train.lr: {choice: [1e-4, 1e-3], when: {objective.name: [vicreg, bioyl]}}
"""
    assert "bioyl is never met" in mistakes(write(tmp_path, axes))["space.train.lr"].replace(" — ", " ")


@pytest.mark.parametrize(
    ("axis", "given", "key", "words"),
    [
        ("train.batch: {uniform: [8, 16]}", (), "space.train.batch", "must be a whole number"),
        ("train.batch: {integer: [8, 16]}", (), "space.train.batch", "cannot be split over sweep.ranks = 2"),
        ("train.lr: {choice: [1e-4, 1e-3]}", ("train.lr=5e-4",), "train.lr", "is not used: space varies it"),
    ],
)
def test_what_would_fail_or_be_ignored_later_is_a_mistake_now(
    tmp_path: Path, axis: str, given: tuple[str, ...], key: str, words: str
) -> None:
    assert words in mistakes(write(tmp_path, f"space:\n  {axis}\n"), "sweep.ranks=2", *given)[key]


def test_a_scheduler_and_a_setting_of_another_one_in_one_file_are_a_mistake(tmp_path: Path) -> None:
    text = "sweep:\n  scheduler: median\n  reduction: 3\nspace:\n  train.lr: {choice: [1e-4, 1e-3]}\n"
    assert "is not used with" in mistakes(write(tmp_path, text))["sweep.reduction"]


def test_more_trials_than_a_grid_has_and_a_misspelt_section_are_mistakes(tmp_path: Path) -> None:
    axes = "space:\n  train.lr: {choice: [1e-4, 1e-3]}\n"
    found = mistakes(write(tmp_path, axes), "sweep.search=grid", "sweep.scheduler=none", "sweep.trials=100")
    assert "more than the 2 points of the grid" in found["sweep.trials"]
    mistake = mistakes(write(tmp_path, axes), "sweep.dir=s3://me:Pa55-w0rd@b/x")["sweep.dir"]
    assert "is a URL" in mistake
    assert "Pa55" not in mistake
    assert "did you mean sweep.dir?" in mistakes(write(tmp_path, axes), "swep.dir=x")["swep.dir"]


def test_a_space_of_many_conditions_is_checked_at_once_and_wholly(tmp_path: Path) -> None:
    """12 axes of 8 values, each under a condition on the one before: 8^12 combinations."""
    keys = ["train.batch", "train.steps_", "projector.blocks", "projector.width", "guard.skips", "guard.timeout_s",
            "checkpoint.keep", "model.max_tokens", "seed", "track.every", "guard.evaluations", "data.workers"]  # fmt: skip
    keys.remove("train.steps_")
    values = [str(value) for value in range(3, 11)]
    lines = [
        f"{key}: {{choice: [{', '.join(values)}]{f', when: {{{before}: [3, 4, 5, 6]}}' if before else ''}}}"
        for before, key in zip(["", *keys], keys, strict=False)
    ]
    path = write(tmp_path, "sweep: {trials: 4}\nspace:\n  " + "\n  ".join(lines) + "\n")
    began = time.perf_counter()
    space = load_sweep(path).space
    assert time.perf_counter() - began < 20
    points = list(space.corners())
    assert len(points) == len(keys) * len(values)
    seen = {(key, value) for point in points for key, value in point.items()}
    assert seen == {(key, value) for key in keys for value in values}
    bad = str(tmp_path / "bad.yaml")
    Path(bad).write_text(
        Path(path).read_text().replace("data.workers: {choice: [3", "data.workers: {choice: [-3")
    )
    assert "at least 0" in mistakes(bad)["space.data.workers"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("run.dir=x", "decided by the sweep: each trial has its own — write sweep.dir"),
        ("run.name=x", "write sweep.name"),
        ("resume=never", "unsee sweep --resume DIR"),
        ("sweep.seed=3", "is not used with sweep.search = grid"),
        ("sweep.reduction=4", "is not used with sweep.scheduler = none"),
        ("sweep.grace=4", "is not used with sweep.scheduler = none"),
    ],
)
def test_a_setting_that_would_not_be_used_is_a_mistake(tmp_path: Path, given: str, words: str) -> None:
    text = "sweep: {search: grid, scheduler: none}\nspace: {train.lr: {choice: [1, 2]}}\n"
    key = given.partition("=")[0]
    assert words in mistakes(write(tmp_path, text), given)[key]
    load_sweep(write(tmp_path, text))


def test_a_run_that_a_sweep_extends_may_have_a_folder_and_the_sweep_may_not(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "extends: unsee-vicreg\nrun: {dir: mine}\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
    )
    text = "extends: run.yaml\nspace: {train.lr: {choice: [1, 2]}}\n"
    (tmp_path / "s.yaml").write_text(text)
    load_sweep(str(tmp_path / "s.yaml"))
    (tmp_path / "s.yaml").write_text(text + "run: {dir: mine}\n")
    assert "decided by the sweep" in mistakes(str(tmp_path / "s.yaml"))["run.dir"]


@pytest.mark.parametrize(
    ("name", "words"), [("tniy", "did you mean tiny?"), ("qwerty", "sweeps are ablation, paper, tiny")]
)
def test_a_name_that_is_no_sweep_gives_the_nearest(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_sweep(name)


def test_the_presets_are_right_once_the_data_is_named() -> None:
    names = sorted(path.stem for path in (Path(__file__).parents[3] / "configs" / "sweeps").glob("*.yaml"))
    assert names
    for name in names:
        sweep = load_sweep(name, ["evaluate.sts=x.tsv"])
        assert sweep.settings.name == name


def test_a_grid_of_too_many_points_is_refused_at_once(tmp_path: Path) -> None:
    keys = ("train.batch", "seed", "projector.blocks", "checkpoint.keep", "track.every", "guard.skips")
    lines = [f"{key}: {{choice: [{', '.join(str(2 + i) for i in range(10))}]}}" for key in keys]
    with pytest.raises(UserError, match="grid has more than 10,000 points"):
        load_sweep(write(tmp_path, "sweep: {search: grid}\nspace:\n  " + "\n  ".join(lines) + "\n"))


def test_settings_without_effect_are_refused_on_the_command_line_and_in_a_space(tmp_path: Path) -> None:
    path = write(tmp_path, CONDITIONAL)
    assert "no effect" in mistakes(path, "target.kind=online", "target.decay=0.9")["target.decay"]
    both = ("space.target.kind={choice: [ema, online]}", "space.target.decay={choice: [0.9, 0.99]}")
    assert "no effect" in mistakes(path, *both)["space.target.decay"]
    load_sweep(path, [both[0], "target.decay=0.9"])  # of the trials that have a target network
    load_sweep(path, [both[0], "space.target.decay={choice: [0.9, 0.99], when: {target.kind: ema}}"])
