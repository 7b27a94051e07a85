"""A process that ends at once, as after Ctrl-C, leaves no warning about semaphores of its workers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import Tiny

SCRIPT = """
import sys
from unsee_dist.config import load
from unsee_dist.data import Stream, open_corpus
from unsee_dist.distributed import process_group
from unsee_dist.distributed.world import World
from unsee_dist.model.encoder import load_tokenizer

def main():
    config = load(sys.argv[1], ["data.workers=1"])
    stream = Stream(open_corpus(config.data), load_tokenizer(config.model.encoder), config)
    if sys.argv[2] == "without":
        process_group.multiprocessing.util._run_finalizers = lambda _: None
    for _ in stream.batches(1, 100):
        process_group.exit_together(World.alone(), 75)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", ["as it is", "without"])
def test_the_end_says_nothing_of_semaphores(tiny: Tiny, tmp_path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, tiny.config, how], capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    assert ("leaked semaphore" in done.stderr) == (how == "without")
