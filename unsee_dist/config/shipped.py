"""The folders that are installed with the package: configs/, slurm/, cluster/ and docs/examples/.

In a clone (an editable installation, too) they are the clone's top-level folders; a wheel has them inside the
package (setup.py puts them there).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

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
