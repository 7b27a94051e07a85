"""Stage 3: every write of weights is ordered with deepspeed's stream of gathers. Streams are recorded here; on a GPU they run."""

from __future__ import annotations

from oracle import Case, running
from processes import run

from unsee_dist.distributed.weight_writes import WeightWrites


class Recorded:
    """A stream that writes down for whom it waits."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Recorded) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def waits(rank: int, size: int) -> dict[str, list[str]]:
    ours = running(Case("vicreg"), rank, size, 3)
    log: list[str] = []
    current = Recorded("compute", log)
    writes = WeightWrites(Recorded("gathers", log), lambda: current)  # type: ignore[arg-type]
    ours.engine.writes = writes
    assert ours.target is not None
    ours.target.replica.writes = writes

    def during(done: object) -> list[str]:
        assert callable(done)
        log.clear()
        done()
        return list(log)

    ours.engine.backward(ours.engine(batch_of(rank, size))[0])
    return {
        "step": during(lambda: ours.engine.step(1e-3, 1.0)),
        "refresh": during(ours.engine.refresh),
        "publish": during(ours.target.publish),
    }


def batch_of(rank: int, size: int) -> object:
    from oracle import batch

    return batch(1, rank, size).micro_batches


def test_gathers_wait_for_what_is_written_and_writes_for_what_is_gathered() -> None:
    both = ["compute waits for gathers", "gathers waits for compute"]
    assert run(waits, 2)[0] == {"step": both, "refresh": both, "publish": both}


def test_without_a_stream_of_gathers_nothing_waits() -> None:
    with WeightWrites().ordered():
        pass


def stream_is_found(rank: int, size: int) -> bool:
    """deepspeed keeps it under a private name: another version may move it."""
    ours = running(Case("vicreg"), rank, size, 3)
    offload = ours.engine.optimizer.parameter_offload  # type: ignore[union-attr]
    return hasattr(offload, "_DeepSpeedZeRoOffload__allgather_stream")


def test_the_stream_is_where_it_is_looked_for() -> None:
    assert run(stream_is_found, 1) == [True]
