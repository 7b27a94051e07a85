import json
from pathlib import Path
from typing import Any

import pytest
from integration import judging
from integration import tiny as making


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> making.Tiny:
    return making.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def place(tiny: making.Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks/, and the models good/, random/, point/ and nan/."""
    folder = tmp_path_factory.mktemp("judged")
    judging.write_tasks(folder / "tasks")
    for name, change in (("good", "none"), ("random", "random"), ("point", "point"), ("nan", "nan")):
        judging.write_model(folder / name, tiny, change)
    return folder


@pytest.fixture(scope="session")
def judged(place: Path) -> dict[str, Any]:
    """What `unsee evaluate good --tasks tasks --json` printed in `place`."""
    said = judging.unsee("evaluate", "good", "--tasks", "tasks", "--json", cwd=place)
    assert said.code == 0, said.err
    return dict(json.loads(said.out))
