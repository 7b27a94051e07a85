"""A configuration is right or does not exist, and every mistake is named at once, with its place."""

from pathlib import Path

import pytest
import yaml
from planted import planted

from unsee_dist.config import ConfigError, RunConfig, every_steps, load, recorded, sections
from unsee_dist.config.kinds import flat
from unsee_dist.config.load import LEGAL, checked
from unsee_dist.errors import UserError


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def mistakes(path: str, *overrides: str) -> dict[str, str]:
    """Key -> its line, of everything wrong."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert all(f"  {mistake}" in str(caught.value).splitlines() for mistake in caught.value.mistakes)
    return {mistake.key: str(mistake) for mistake in caught.value.mistakes}


def test_every_kind_of_mistake_at_once_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, "below.yaml", "trian:\n  lr: 1\nmodel:\n  pooling: max\n")
    path = write(
        tmp_path,
        "mine.yaml",
        "extends: below.yaml\n"
        "train:\n"
        "  btach: 64\n"
        "  lr: fast\n"
        "  warmup: 2\n"
        "  micro_batch: 48\n"
        "  clip: 1\n"
        "  clip: 2\n"
        "objective:\n"
        "  name: vicreg\n"
        "  temperature: 0.05\n"
        "data: 3\n",
    )
    found = mistakes(path, "parallel.zero=4", "seed", "evaluate.every=1.5", "track.mlflow=maybe")
    expected = {
        "trian": (f"{tmp_path}/below.yaml:1", "no such key", "section train"),
        "model.pooling": ("below.yaml:4", "= max", "mean or cls"),
        "train.btach": (f"{path}:3", "= 64", "did you mean train.batch?"),
        "train.lr": (f"{path}:4", "= fast", "must be a number"),
        "train.warmup": (f"{path}:5", "at most 1"),
        "train.micro_batch": (f"{path}:6", "larger than train.batch = 32"),
        "train.clip": (f"{path}:8", "twice, first in line 7"),
        "objective.temperature": (f"{path}:11", "setting of simcse", "vicreg has objective.invariance"),
        "data": (f"{path}:12", "is a section", "data.shards"),
        "parallel.zero": ("command line", "= 4", "at most 3"),
        "seed": ("command line", "section.key=value"),
        "evaluate.every": ("command line", "= 1.5", "whole number of steps, or a fraction"),
        "track.mlflow": ("command line", "true or false"),
    }
    assert found.keys() == expected.keys()
    for key, parts in expected.items():
        assert all(part in found[key] for part in parts), found[key]


@pytest.mark.parametrize(
    ("other", "instead"),
    [("parallel.zero=3", "write parallel.zero=2"), ("data.pack=false", "leave data.pack out")],
)
def test_graphs_of_the_encoders_are_refused_where_they_cannot_be(other: str, instead: str) -> None:
    (said,) = mistakes("unsee-vicreg", "parallel.compile=true", other).values()
    assert "parallel.compile = true" in said
    assert other.replace("=", " = ") in said
    assert f"{instead}, or leave parallel.compile out" in said
    load("unsee-vicreg", [other])


def test_a_corrected_mistake_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "train:\n  lr: fast\n  batch: 1\n")
    both, one = mistakes(path), mistakes(path, "train.lr=1e-4")
    assert both.keys() == {"train.lr", "train.batch"}
    assert one == {"train.batch": both["train.batch"]}


def test_a_weight_is_a_number_or_auto() -> None:
    assert load("unsee-barlow", ["objective.weight=auto"]).objective.settings()["weight"] == "auto"
    with pytest.raises(ConfigError, match=r"objective.weight = atuo .* must be a number, or auto"):
        load("unsee-barlow", ["objective.weight=atuo"])
    with pytest.raises(ConfigError, match=r"objective.weight = -1 .* at least 0"):
        load("unsee-barlow", ["objective.weight=-1"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.name=vicrge", "did you mean vicreg?"),
        ("objective.name=null", "barlow_twins, vicreg, corinfomax, byol, simcse"),
        ("data.pack=sometimes", "must be true or false, or auto"),
        ("data.views=corp", "dropout or crop"),
        ("target.decay=1.1", "at most 1"),
        ("model.dropout=1", "less than 1"),
        (
            "model.encoder=null",
            "cannot be absent — write a value, or leave it out for its default, bert-base-uncased",
        ),
        ("train.lr=nan", "finite"),
        ("train.lr=0", "greater than 0"),
        ("train.batch=32.5", "whole number"),
        ("checkpoint.keep=1", "at least 2"),
        ("checkpoint.every=0", "greater than 0"),
        ("seed=-1", "at least 0"),
        ("target.kind=none", "ema or online"),
        ("lr=1e-4", "did you mean train.lr?"),
        ("optim.lr=1e-4", "did you mean train.lr?"),
        ("train.learning_rate=1", "train has batch"),
        ("train.epochs=null", "train.steps = null"),
    ],
)
def test_one_mistake_one_sentence(override: str, words: str) -> None:
    found = mistakes("base", override)
    assert len(found) == 1
    assert words in str(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"train: [1, 2\n", "is not YAML"),
        (b"- 1\n- 2\n", "has no keys"),
        (b"\xff\xfe\x00", "cannot be read as text"),
        (b"a: \x01\n", "is not YAML"),
        (b"extends: nowhere.yaml\n", "no such file or preset"),
        (b"extends: mine.yaml\n", "extend each other"),
        (b"extends: bsae\n", "did you mean base?"),
        (b"train: &t\n  lr: *t\n", "must be a number"),
        (b"? {a: 1}\n: 2\n", "no such key"),
        (b"run:\n  name: [a, b]\n", "must be text"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    assert words in str(mistakes(str(path)))


def test_missing_files_name_the_closest_preset(tmp_path: Path) -> None:
    assert "did you mean configs/unsee-vicreg.yaml?" in str(mistakes("configs/unsee-vicrge.yaml"))
    assert "is a folder" in str(mistakes(str(tmp_path)))


def test_overrides_win_and_the_last_one_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "extends: base\ntrain: {lr: 2e-5, batch: 64}\n")
    config = load(
        path, ["train.lr=3e-5", "train.lr=5e-5", "data.pack=true", "model.dropout=0", "train.clip="]
    )
    assert (config.train.lr, config.train.batch, config.train.clip) == (5e-5, 64, None)
    assert (config.data.pack, config.model.dropout) == (True, 0.0)


def test_text_stays_as_typed(tmp_path: Path) -> None:
    """PyYAML's own reading makes these 7, True, a date and 90."""
    for name in ("007", "on", "2026-11-23", "1:30", "a=b", "s3://x/y"):
        quoted = write(tmp_path, "mine.yaml", f"run:\n  name: {name}\n")
        assert load(quoted).run.name == load("base", [f"run.name={name}"]).run.name == name
    path = write(tmp_path, "mine.yaml", "train:\n  lr: 1e-4\n")
    assert load(path).train.lr == 1e-4


def test_extends_is_relative_to_its_file_or_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "grand.yaml", "extends: simcse\ntrain: {lr: 1e-5, batch: 8}\n")
    write(tmp_path / "deep", "parent.yaml", "extends: ../grand.yaml\ntrain: {batch: 16}\n")
    write(tmp_path / "deep", "mine.yaml", "extends: parent.yaml\n")
    monkeypatch.chdir(tmp_path)
    config = load("deep/mine.yaml")
    assert (config.train.lr, config.train.batch, config.model.pooling) == (1e-5, 16, "cls")
    assert (config.run.name, config.run.dir) == ("mine", "runs/mine")


def test_another_objective_drops_what_is_inherited_and_only_that(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "extends: base\nobjective:\n  name: vicreg\n  covariance: 4\n")
    assert load(path).objective.settings() == {"invariance": 25, "variance": 25, "covariance": 4}
    other = load(path, ["objective.name=corinfomax"]).objective.settings()
    assert (other["covariance"], other["invariance"]) == (0.2, 2000)  # not VICReg's 4 and 25
    assert load(path, ["objective.name=vicreg"]).objective == load(path).objective
    assert load(path, ["objective.name=byol"]).objective.settings() == {}
    typed_here = mistakes(path, "objective.name=byol", "objective.covariance=1")
    assert "setting of vicreg and corinfomax" in typed_here["objective.covariance"]
    assert "byol has no settings" in typed_here["objective.covariance"]


def test_a_run_is_named_after_its_file_and_lives_under_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "seed: 1\n")
    assert (load(path).run.name, load(path).run.dir) == ("mine", "runs/mine")
    assert load(path, ["run.name=x"]).run.dir == "runs/x"
    assert load(path, ["run.dir=/y"]).run.model_dump() == {"name": "mine", "dir": "/y"}


def test_what_show_prints_loads_equal(tmp_path: Path) -> None:
    overrides = ["run.name=007", "model.encoder=a b", "train.lr=1e-7", "evaluate.sts=null", "data.pack=false"]
    for objective in ("barlow_twins", "vicreg", "corinfomax", "byol", "simcse"):
        config = load("base", [*overrides, f"objective.name={objective}"])
        assert load(write(tmp_path, "resolved.yaml", config.as_yaml())) == config


def test_the_tree_is_frozen_and_whole() -> None:
    config = load("base")
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0  # type: ignore[misc]
    dumped = yaml.safe_load(config.as_yaml())
    flat = {f"{s}.{k}" for s, part in dumped.items() if isinstance(part, dict) for k in part} | {
        "seed",
        "resume",
    }
    assert flat == {key for key in LEGAL if not key.startswith("objective.")} | {
        f"objective.{key}" for key in ("name", "invariance", "variance", "covariance")
    }
    with pytest.raises(ValueError, match="larger than"):
        RunConfig.model_validate({"train": {"batch": 8, "micro_batch": 9}})


@pytest.mark.parametrize(
    ("every", "steps", "expected"), [(0.05, 31_250, 1562), (0.05, 3, 1), (500, 30, 500), (1, 9, 1)]
)
def test_cadence(every: float, steps: int, expected: int) -> None:
    assert every_steps(every, steps) == expected


def test_a_record_with_a_password_is_read_and_masked_where_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data:\n  mix: 2 s3://me:secret-word@bucket/a, 1 b\n")
    with pytest.raises(ConfigError, match="password or a token"):
        load(str(tmp_path / "config.yaml"))
    assert recorded(tmp_path).data.mix == "2 s3://***@bucket/a, 1 b"


def test_a_crop_is_no_longer_than_what_is_encoded() -> None:
    found = mistakes("base", "data.views=crop", "data.crop_tokens=65", "data.crop_distance=-1")
    assert found.keys() == {"data.crop_distance", "data.crop_tokens"}
    assert "= 65 — command line — is more than model.max_tokens = 64" in found["data.crop_tokens"]
    assert "write at most 64" in found["data.crop_tokens"]
    config = load("base", ["data.views=crop", "data.crop_tokens=64"])
    assert (config.read_tokens, load("base").read_tokens) == (65535, 64)


@pytest.mark.parametrize("key", sorted(flat(RunConfig()).keys() - {"objective.name"}))
@pytest.mark.parametrize("absent", ["", "null"])
def test_null_means_absent_where_that_means_something_and_is_a_sentence_elsewhere(
    tmp_path: Path, key: str, absent: str
) -> None:
    default = flat(RunConfig())[key]
    others = ["train.steps=3"] if key == "train.epochs" else []
    try:
        config = load("base", [*others, f"{key}={absent}"])
    except ConfigError as error:
        (mistake,) = error.mistakes
        shown = str(default).lower() if isinstance(default, bool) else default
        assert mistake.why == "cannot be absent"
        assert mistake.instead == f"write a value, or leave it out for its default, {shown}"
        section, _, last = key.rpartition(".")
        file = write(tmp_path, "x.yaml", f"{section}: {{{last}: }}\n" if section else f"{last}:\n")
        assert "cannot be absent" in mistakes(file)[key]
    else:
        assert flat(config)[key] is None or key in ("run.name", "run.dir")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("t/tiny.yml", "t/tiny.yaml"),
        ("t/tniy.yaml", "t/tiny.yaml"),
        ("t/tiyn", "t/tiny.yaml"),
        ("mine.yml", "mine.yaml"),
        ("t/base", "base"),
        ("bse", "base"),
        ("nowhere/tiny.yml", None),
    ],
)
def test_the_nearest_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    for name in ("t/tiny.yaml", "t/other.yaml", "mine.yaml"):
        write(tmp_path, name, "seed: 1\n")
    line = mistakes(given)[given]
    assert f"did you mean {meant}?" in line if meant else "presets are" in line


@pytest.mark.parametrize("error", ["ValueError('planted')", "AssertionError('planted')"])
def test_a_bug_in_a_validator_is_no_mistake_of_the_user(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_whole_or_fraction", planted(sections, error))
    for read in (
        lambda: load("unsee-vicreg", ["checkpoint.every=3"]),
        lambda: checked(sections.EvaluateSettings, {"every": 3}),
    ):
        with pytest.raises((ValueError, AssertionError), match=r"^planted$") as met:
            read()
        assert not isinstance(met.value, UserError)


def test_a_bug_in_a_check_of_all_settings_is_no_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = planted(sections, "ValueError('planted')")
    as_ever = sections.conflicts
    monkeypatch.setattr(sections, "conflicts", lambda it: (bug if it.run.name == "other" else as_ever)(it))
    with pytest.raises(ValueError, match=r"^planted$") as met:
        load("unsee-vicreg", ["run.name=other"])
    assert not isinstance(met.value, UserError)
