"""A bug while the ranks meet is no closed port."""

from __future__ import annotations

import pytest

from unsee_dist.doctor import ranks


def test_what_nobody_foresaw_while_ranks_meet_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(**_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(ranks, "join_world", planted)
    with pytest.raises(KeyError, match="planted"):
        ranks._meet()
