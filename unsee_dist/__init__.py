"""unsee_dist: train sentence encoders without labels, exactly, on any number of ranks."""

from importlib import metadata

try:
    __version__ = metadata.version("unsee_dist")  # pyproject.toml's, as it was installed
except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH that was never installed
    __version__ = "0+unknown"
