import json
from pathlib import Path
from typing import Any

import pytest
from integration import evaluating
from integration import tiny as making


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> making.Tiny:
    return making.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def place(tiny: making.Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks/, and the models good/, random/, point/ and nan/."""
    folder = tmp_path_factory.mktemp("evaluated")
    evaluating.write_tasks(folder / "tasks")
    for name, change in (("good", "none"), ("random", "random"), ("point", "point"), ("nan", "nan")):
        evaluating.write_model(folder / name, tiny, change)
    return folder


@pytest.fixture(scope="session")
def evaluated(place: Path) -> dict[str, Any]:
    """The output of `unsee evaluate good --tasks tasks --json` in `place`."""
    output = evaluating.unsee("evaluate", "good", "--tasks", "tasks", "--json", cwd=place)
    assert output.code == 0, output.err
    return dict(json.loads(output.out))
