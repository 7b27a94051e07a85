"""Exports give equal vectors in sentence-transformers 5.1, 5.3 and ours, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from integration import tiny as launch
from integration.evaluating import loaded, write_model
from integration.tiny import Tiny

SENTENCES = ["the old river follows a bright garden .", "the house", "a green harbour near the island ."]
# What differs between the versions, or would be imported and does not fit them; torch and the rest are linked.
OWN = ("sentence_transformers", "transformers", "tokenizers", "huggingface_hub", "datasets", "mteb", "unsee", "hf_xet",
       "__editable__", "accelerate", "peft", "pip", "setuptools")  # fmt: skip
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import sentence_transformers, transformers
model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(json.loads(sys.argv[2])).tolist()
print(json.dumps({"version": sentence_transformers.__version__, "file": sentence_transformers.__file__, "vectors": vectors}))
"""


def environment(folder: Path, version: str) -> Path:
    """The python of a new environment with that sentence-transformers, and our torch; skips without an index."""
    venv.create(folder, with_pip=True, symlinks=True)
    linked = folder / "linked"
    linked.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.lower().replace("-", "_").startswith(OWN):
            (linked / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "linked.pth").write_text(f"{linked}\n")
    wanted = [f"sentence-transformers=={version}.*", "transformers>=4.57,<5", "huggingface_hub<1"]
    done = launch.run([str(python), "-m", "pip", "install", "-q", *wanted], timeout_s=150)
    if done.returncode != 0:
        pytest.skip(
            f"pip could not install sentence-transformers {version}: {done.stderr.strip().splitlines()[-1]}"
        )
    return python


def vectors(python: Path, folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-c", SCRIPT, str(folder), json.dumps(SENTENCES)],
        capture_output=True, text=True, cwd=cwd, env=launch.environment(), timeout=120,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("version", ["5.1", "5.3"])
def test_an_export_gives_equal_vectors_where_one_saved_by_6_does_not_load(
    tiny: Tiny, tmp_path: Path, version: str
) -> None:
    folder = write_model(tmp_path / "export", tiny)
    ours = loaded(folder).encode(SENTENCES)
    python = environment(tmp_path / "environment", version)
    output = vectors(python, folder, tmp_path)
    assert output.returncode == 0, output.stderr
    found = json.loads(output.stdout.splitlines()[-1])
    assert found["version"].startswith(version)
    assert str(tmp_path) in found["file"]
    np.testing.assert_allclose(np.array(found["vectors"]), ours, atol=1e-6)
    loaded(folder).save_pretrained(
        str(tmp_path / "saved")
    )  # the control: what 6 itself saves names modules that 5 lacks
    assert vectors(python, tmp_path / "saved", tmp_path).returncode != 0
