"""The notebook of the docs, cell by cell as a kernel runs them, with a text and an encoder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.tiny import REPOSITORY, corpus, environment

from unsee_dist.model.fresh import FreshSize, write_fresh

NOTEBOOK = REPOSITORY / "docs" / "howto" / "python.ipynb"
LOOK = """
import json
print(json.dumps({"dev": corpus.dev, "state": run.state, "step": run.step, "rows": list(run.scores().index),
    "shape": embeddings.shape, "own": float(similarity[0, 0]), "module": __name__}))
"""


def cells() -> list[dict[str, Any]]:
    return list(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_it_is_committed_without_outputs_and_its_code_can_be_read() -> None:
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) > 5
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        compile(source(cell), NOTEBOOK.name, "exec")


@pytest.mark.slow
def test_it_runs_to_the_end(tmp_path: Path) -> None:
    text, encoder = tmp_path / "mine.txt", tmp_path / "encoder"
    text.write_text("\n".join(corpus(2000)) + "\n", encoding="utf-8")
    write_fresh(encoder, corpus(2000), FreshSize(vocabulary=300, layers=2, width=32, heads=2), seed=0)
    own = {"text": str(text), "encoder": str(encoder), "folder": "notebook", "steps": 4}
    code, replaced = [], 0
    for cell in cells():
        if "parameters" in cell["metadata"].get("tags", ()):
            replaced += 1
            assert all(f"{name} = " in source(cell) for name in own)
            code += [f"{name} = {value!r}" for name, value in own.items()]
        elif cell["cell_type"] == "code":
            code.append(source(cell))
    assert replaced == 1
    # From standard input: __main__ is then no file that the processes of a preparation could import, as in a kernel.
    done = subprocess.run(
        [sys.executable, "-"],
        input="\n".join([*code, LOOK]),
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("own") == pytest.approx(1, abs=1e-5)
    assert found == {
        "dev": 200,
        "state": "complete",
        "step": 4,
        "rows": ["before", "best", "last"],
        "shape": [2, 32],
        "module": "__main__",
    }
