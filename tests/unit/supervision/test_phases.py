"""Who holds up a rank: threads register themselves, and count while the main thread waits for them."""

from __future__ import annotations

from unsee_dist.supervision import phases


def test_a_thread_in_the_background_counts_only_while_it_is_waited_for() -> None:
    assert phases.blocks_training("MainThread")
    assert phases.blocks_training("some thread")
    phases.register_background_thread("some thread")
    try:
        assert not phases.blocks_training("some thread")
        with phases.waiting_for("some thread"):
            assert phases.blocks_training("some thread")
        assert not phases.blocks_training("some thread")
    finally:
        phases._background.pop("some thread", None)
