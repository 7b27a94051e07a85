"""`unsee init` copies what a user edits, and nothing that belongs to this installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.cli import project
from unsee_dist.config import shipped as places


def test_compiled_files_and_what_needs_the_sources_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    for name in places.FOLDERS:
        for path in ("kept.sh", "__pycache__/kept.pyc", "airgapped/wheelhouse.py", "below/kept.yaml"):
            (package / name / path).parent.mkdir(parents=True, exist_ok=True)
            (package / name / path).write_text("x")
    monkeypatch.setattr(project, "shipped", lambda name: package / name)
    for _ in range(2):  # a second time changes nothing and is no mistake
        project.init(tmp_path / "mine")
        copied = {path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").rglob("*.*")}
        assert copied == {
            "README.md",
            *(f"{name}/{path}" for name in places.FOLDERS for path in ("kept.sh", "below/kept.yaml")),
        }
