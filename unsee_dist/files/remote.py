"""Paths that are URLs: `s3://`, `gs://`, `https://`, `hf://`, `memory://` and what else fsspec knows."""

from __future__ import annotations


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return "://" in name
