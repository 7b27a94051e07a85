"""Configuration as flat text, versions, and the commit of our own checkout only."""

import subprocess

from unsee_dist.tracking.environment import describe, environment, flatten, git_commit


def test_flatten_keeps_every_leaf_under_its_dotted_key():
    tree = {"seed": 1, "train": {"lr": 1e-4, "steps": None, "deep": {"a": [1, 2]}}, "empty": {}}
    assert flatten(tree) == {
        "seed": "1",
        "train.lr": "0.0001",
        "train.steps": "absent",
        "train.deep.a": "[1, 2]",
    }


def test_the_environment_names_python_and_every_package():
    tags = environment()
    assert tags["version.torch"][0].isdigit()
    assert tags["python"].startswith("3.")
    assert all(isinstance(value, str) for value in tags.values())


def _git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_a_checkout_and_not_of_a_folder_inside_one(tmp_path):
    inside = tmp_path / "venv"
    inside.mkdir()
    assert git_commit(tmp_path) == {}
    _git(tmp_path, "init")
    assert git_commit(tmp_path) == {}
    (tmp_path / "file").write_text("one")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-m", "first")
    clean = git_commit(tmp_path)
    assert len(clean["mlflow.source.git.commit"]) == 40
    assert clean["git.dirty"] == "false"
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path)["git.dirty"] == "true"
    assert git_commit(inside) == {}


def test_the_experiment_is_the_users_when_named(monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert describe("a", {"seed": 1}).experiment == "unsee"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert describe("a", {"seed": 1}).experiment == "mine"
