"""The result of an objective, and the interfaces of objectives without and with state."""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from unsee_dist.distributed.reduce import Reduction


class Outcome(NamedTuple):
    """`loss`: 0-d, with gradient. `terms`: its summands by name, weighted, 0-d, detached; they add up to it.

    A loss with a local part differs between ranks: its mean over ranks is the loss of the global batch.
    """

    loss: Tensor
    terms: dict[str, Tensor]


def outcome(**terms: Tensor) -> Outcome:
    """The sum of the weighted terms as a loss, and the terms for the log."""
    loss = sum(terms.values(), start=next(iter(terms.values())).new_zeros(()))
    return Outcome(loss, {name: term.detach() for name, term in terms.items()})


class Objective(Protocol):
    """An objective: an nn.Module, constructed as `OBJECTIVES[name](width, reduction, **settings)`.

    symmetric: a step sums both directions. Its input is fp32 or better and has this rank's sentences only; sums
    over the batch go through `reduction`. An objective with state is also Stateful.

    V pairs of views come in one call, so that one collective carries the moments of all of them.
    """

    symmetric: ClassVar[bool]

    def __init__(self, width: int, reduction: Reduction, **settings: float) -> None: ...

    def __call__(self, online: Tensor, target: Tensor) -> Outcome:
        """V pairs of views of B sentences, (V, B, D) each, whose losses are summed; or one pair, (B, D) each."""

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """nn.Module's: the state that checkpoints keep."""


@runtime_checkable
class Stateful(Protocol):
    """An objective whose forward only proposes new state, since a skipped step must change nothing."""

    def commit(self) -> None:
        """The step was applied: the proposed state becomes the state."""

    def discard(self) -> None:
        """The step was skipped: the proposed state is dropped."""
