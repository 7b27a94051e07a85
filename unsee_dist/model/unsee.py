"""The module that is trained: online encoder and projector, frozen target, objective, in one forward.

    ema:     L = l(q(o1), t2) + l(q(o2), t1)     o1, o2: the online embeddings of a sentence under two dropout masks
                                                 t1, t2: the target's, under two more; q the projector
    online:  L = l(q(o1), p(o2))                 no target network: gradient through both views,
                                                 p = q (projector.side: both) or the identity (online)

SimCSE is one-directional in either case. With `projector.side: both` the target has an EMA copy of the projector.
One forward because ZeRO needs one `engine(...)` and one backward a step.

Shapes: V = 2 views, B sentences on this rank, D width. Embeddings reach projector and objective in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unsee_dist.config.sections import Pooling
from unsee_dist.data.stream.mask_keys import VIEWS
from unsee_dist.data.stream.packing import MicroBatch
from unsee_dist.model.dropout import TARGET, set_network
from unsee_dist.model.encoder import encode
from unsee_dist.objectives.outcome import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Unsee(nn.Module):
    """online, projector, objective; target and target_projector (frozen) or None."""

    online: PreTrainedModel
    projector: nn.Module
    objective: Objective
    target: PreTrainedModel | None
    target_projector: nn.Module | None

    def __init__(
        self,
        online: PreTrainedModel,
        projector: nn.Module,
        objective: Objective,
        *,
        pooling: Pooling,
        ema: bool,
        both: bool,
    ) -> None:
        super().__init__()
        self.online, self.projector, self.objective = online, projector, objective
        self.pooling, self.both = pooling, both
        self.target = copy.deepcopy(online).requires_grad_(False) if ema else None
        if self.target is not None:
            set_network(self.target, TARGET)
        self.target_projector = copy.deepcopy(projector).requires_grad_(False) if ema and both else None

    def forward(
        self, micro_batches: Sequence[MicroBatch], embed: bool = False
    ) -> tuple[Tensor, Tensor] | Tensor:
        """(loss, terms), the terms in the order of `self.terms`; with `embed`: (B, D) online embeddings, one view."""
        if embed:
            return torch.cat(
                [encode(self.online, micro_batch, self.pooling, views=1) for micro_batch in micro_batches]
            )
        target_VBD = self._encode_target(micro_batches)
        online_VBD = self._encode_online(micro_batches)
        if target_VBD is not None:
            pairs = VIEWS if self.objective.symmetric else 1
            projected_VBD, other_VBD = self.projector(online_VBD[:pairs]).float(), target_VBD.flip(0)[:pairs]
        elif self.both:
            projected_VBD, other_VBD = self.projector(online_VBD).float().chunk(VIEWS)
        else:
            projected_VBD, other_VBD = self.projector(online_VBD[:1]).float(), online_VBD[1:]
        loss, terms = self.objective(projected_VBD, other_VBD)
        self.terms = tuple(terms)
        return loss, torch.stack(list(terms.values()))

    def _encode_online(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """(V, B, D), both views in one pass. With several micro_batches each is encoded again in backward, under the masks
        that its sentences have."""
        if len(micro_batches) == 1:
            return _views([encode(self.online, micro_batches[0], self.pooling, VIEWS)])
        return _views(
            [
                checkpoint(
                    encode,
                    self.online,
                    micro_batch,
                    self.pooling,
                    VIEWS,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
                for micro_batch in micro_batches
            ]
        )

    @torch.no_grad()
    def _encode_target(self, micro_batches: Sequence[MicroBatch]) -> Tensor | None:
        if self.target is None:
            return None
        encoded_VBD = _views(
            [encode(self.target, micro_batch, self.pooling, VIEWS) for micro_batch in micro_batches]
        )
        return encoded_VBD if self.target_projector is None else self.target_projector(encoded_VBD).float()

    def frozen(self) -> dict[str, nn.Parameter]:
        """Name of each parameter the target follows -> the target's own parameter."""
        pairs = [("online", self.target), ("projector", self.target_projector)]
        return {
            f"{prefix}.{name}": parameter
            for prefix, module in pairs
            if module is not None
            for name, parameter in module.named_parameters()
        }


def _views(embedded: Sequence[Tensor]) -> Tensor:
    """(2 S, D) of each micro-batch -> (V, B, D)."""
    return torch.cat([views_SD.unflatten(0, (VIEWS, -1)) for views_SD in embedded], dim=1)
