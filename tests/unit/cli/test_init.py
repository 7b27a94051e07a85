"""`unsee init` copies what a user edits, and nothing that belongs to this installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.cli import project
from unsee_dist.config import shipped as places
from unsee_dist.errors import REPORT_TO, UserError


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


@pytest.mark.parametrize("damage", ["a folder", "a file", "all files"])
def test_a_file_that_this_package_lacks_is_no_mistake_in_the_folder_given(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    for name in places.FOLDERS:
        (package / name).mkdir(parents=True)
        (package / name / "kept.sh").write_text("x")
    (package / "slurm" / "kept.sh").unlink()
    if damage == "a folder":
        (package / "slurm").rmdir()
    if damage == "a file":
        (package / "slurm" / "kept.sh").symlink_to("nowhere")
    monkeypatch.setattr(project, "shipped", lambda name: package / name)
    with pytest.raises(UserError, match="belongs to unsee_dist and cannot be read") as met:
        project.init(tmp_path / "mine")
    assert str(met.value).startswith(f"{package / 'slurm'}")
    assert "pip install" in str(met.value)
    assert REPORT_TO in str(met.value)
    assert str(tmp_path / "mine") not in str(met.value)
    assert not (tmp_path / "mine").exists()


def test_an_example_that_this_package_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "shipped", lambda _: tmp_path)
    with pytest.raises(UserError, match=r"vision\.py belongs to unsee_dist and cannot be read"):
        places.shipped_file(places.EXAMPLES, "vision.py")
