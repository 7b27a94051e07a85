import pytest
from integration import tiny as making


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> making.Tiny:
    return making.make(tmp_path_factory.mktemp("tiny"))
