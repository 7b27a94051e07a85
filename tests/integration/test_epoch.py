"""`make epoch` for CI: the same on a hundredth of its sentences."""

from __future__ import annotations

import sys

import pytest
from integration import tiny


@pytest.mark.slow
def test_an_epoch_of_a_prepared_corpus_meets_every_sentence_once() -> None:
    told = tiny.run([sys.executable, "tests/torture/epoch.py", "--sentences", "100000"], timeout_s=500)
    assert told.returncode == 0, told.stderr
    assert "an epoch by 2 ranks x 2 workers" in told.stderr
    assert "every sentence once" in told.stderr
