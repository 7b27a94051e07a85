"""The folders configs/, slurm/, cluster/ and docs/examples/ travel inside the package; all else is in pyproject.toml.

Here, because pyproject.toml can either find packages or list them, and these are both.
"""

from setuptools import find_packages, setup

DATA = {f"unsee_dist.{folder}": folder for folder in ("configs", "slurm", "cluster")}
DATA["unsee_dist.examples"] = "docs/examples"

setup(packages=[*find_packages(include=["unsee_dist", "unsee_dist.*"]), *DATA], package_dir=DATA)
