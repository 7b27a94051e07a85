"""Who holds up a rank: threads register themselves, and count while the main thread waits for them."""

from __future__ import annotations

from unsee_dist.supervision import phases


def test_a_thread_in_the_background_counts_only_while_it_is_waited_for() -> None:
    assert phases.trains("MainThread")
    assert phases.trains("some thread")
    phases.works_in_background("some thread")
    try:
        assert not phases.trains("some thread")
        with phases.waiting_for("some thread"):
            assert phases.trains("some thread")
        assert not phases.trains("some thread")
    finally:
        phases._background.discard("some thread")
