"""A URL where a path must be is shown as it was written, although `Path` makes one slash of two."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.files.remote import as_given, check_here, check_local

URLS = ("s3://bucket/a", "https://host/a/b.tsv", "file:///tmp/a", "webhdfs+x://h/y")
PATHS = ("a", "/tmp/a", "a:b/c", "c:/x", "./s3/x", "3:/x")


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_as_it_was_written_and_refused(url: str) -> None:
    assert as_given(Path(url)) == as_given(url) == url
    with pytest.raises(UserError, match=f"--out {url}".replace("+", r"\+")):
        check_local(Path(url), "--out")
    with pytest.raises(UserError, match=f"--tasks {url}".replace("+", r"\+")):
        check_here(Path(url), "--tasks ", "give its folder.")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_none(path: str) -> None:
    assert as_given(path) == path
    check_local(Path(path), "--out")
    check_here(path, "", "")


def test_what_is_here_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "bucket").mkdir(parents=True)
    check_here(Path("s3:/bucket"), "", "")
