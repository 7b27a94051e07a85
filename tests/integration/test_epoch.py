"""`make epoch` for CI: the same on a hundredth of its sentences."""

from __future__ import annotations

import sys

import pytest
from integration import tiny


@pytest.mark.slow
def test_an_epoch_of_a_prepared_corpus_meets_every_sentence_once() -> None:
    done = tiny.run([sys.executable, "tests/torture/epoch.py", "--sentences", "100000"], timeout_s=500)
    assert done.returncode == 0, done.stderr
    assert "an epoch by 2 ranks x 2 workers" in done.stderr
    assert "every sentence once" in done.stderr


@pytest.mark.slow
def test_many_files_and_a_large_one_are_prepared_with_few_descriptors() -> None:
    """`make large` for CI: the same on a fiftieth of its files and a thousandth of its bytes."""
    command = [sys.executable, "tests/torture/large.py", "--files", "2000", "--gigabytes", "0.05"]
    done = tiny.run(command, timeout_s=500)
    assert done.returncode == 0, done.stderr
    assert "2,000 files: 40,000 sentences, 36,020 different" in done.stderr
    assert "0.05 GB: 400,000 sentences, 300,000 different" in done.stderr
