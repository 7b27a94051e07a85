"""The top-level folders configs/, slurm/ and cluster/ travel inside the package; all else is in pyproject.toml.

Here, because pyproject.toml can either find packages or list them, and these are both.
"""

from setuptools import find_packages, setup

DATA = {"unsee_dist.configs": "configs", "unsee_dist.slurm": "slurm", "unsee_dist.cluster": "cluster"}

setup(packages=[*find_packages(include=["unsee_dist", "unsee_dist.*"]), *DATA], package_dir=DATA)
