"""Offline, single-threaded, and our own warnings are errors."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import Phase, settings

# For make mutants: the same examples every time, so that the count is the same; and none is made smaller, which can
# take minutes and changes no verdict.
settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate]
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", r"error:::unsee_dist(\..*)?$")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real text and models beside the repository; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of data and models beside the repository ({folder.name}), not there")
    return folder
