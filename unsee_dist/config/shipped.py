"""The folders that are installed with the package: configs/, slurm/ and cluster/.

In a clone (an editable installation, too) they are the clone's top-level folders; a wheel has them inside the
package (setup.py puts them there).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

FOLDERS = ("configs", "slurm", "cluster")


def shipped(folder: str) -> Path:
    """The folder of this installation, whatever the working directory is."""
    assert folder in FOLDERS, folder
    package = Path(str(resources.files("unsee_dist")))
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder
