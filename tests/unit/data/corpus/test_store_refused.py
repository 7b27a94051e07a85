"""A store that refuses is not asked again: wrong credentials do not pass."""

from __future__ import annotations

import errno

import fsspec
import pytest

from unsee_dist.data.corpus import store
from unsee_dist.errors import ExitCode, exit_code_of


@pytest.mark.parametrize("refusal", [PermissionError("Access Denied"), OSError(errno.EINVAL, "no key")])
def test_a_refusal_is_said_at_once_and_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    asked = []

    def refusing(*_: object, **__: object) -> bytes:
        asked.append(1)
        raise refusal

    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refusing)
    with pytest.raises(PermissionError) as met:
        store.Store("memory://corpus").read("index.json")
    assert exit_code_of(met.value) is ExitCode.MISTAKE
    assert len(asked) == 1
