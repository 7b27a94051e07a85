"""The folders that are installed with the package: configs/, slurm/, cluster/ and docs/examples/.

In a clone (an editable installation, too) they are the clone's top-level folders; a wheel has them inside the
package (setup.py puts them there).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from unsee_dist.errors import REPORT_TO, UserError

FOLDERS = ("configs", "slurm", "cluster")  # `unsee init` copies these
EXAMPLES = "examples"


def shipped(folder: str) -> Path:
    """The folder of this installation, in any working directory."""
    assert folder in (*FOLDERS, EXAMPLES), folder
    package = Path(str(resources.files("unsee_dist")))
    inside = package / folder
    if inside.is_dir():
        return inside
    return package.parent / "docs" / folder if folder == EXAMPLES else package.parent / folder


def shipped_file(folder: str, name: str) -> Path:
    """A file of such a folder. UserError: it is not there, which is no mistake in what the user gave."""
    path = shipped(folder) / name
    if not path.is_file():
        raise damaged_installation(path, "there is no such file")
    return path


def damaged_installation(path: Path, why: str) -> UserError:
    """The sentence about a file of this package's that is missing or cannot be read."""
    return UserError(
        f"{path} belongs to unsee_dist and cannot be read ({why}): this installation is damaged. Install it again: pip install "
        f"--force-reinstall --no-deps unsee_dist. Where it is missing then, too, that is a bug of ours; please report it: {REPORT_TO}"
    )
