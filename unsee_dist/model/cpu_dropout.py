"""Dropout for a CPU: bits of one fast generator instead of one Bernoulli draw for each element.

    y = x · m        m = 1 / (1 - p) with probability 1 - p, else 0, of x's own dtype

torch draws every element separately, which took 17% of a training step. Here one draw of 64 bits serves four
bf16 elements: 3.3 ms -> 0.7 ms for (32, 64, 256). Each call's generator is seeded from torch's, so the masks are
a function of torch's seed, and `torch.utils.checkpoint` repeats them. p is rounded to 2^-15 (bf16) or 2^-31.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

NAME = "unsee_cpu"  # of the attention, in transformers' table
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def drop(x: Tensor, p: float) -> Tensor:
    """Like torch.nn.functional.dropout in training, for bf16, fp16 and fp32 tensors on a CPU. 0 <= p < 1."""
    return x * _multiplier(x, p) if p > 0 else x


def _multiplier(x: Tensor, p: float) -> Tensor:
    """0 or 1 / (1 - p) for every element, by integer arithmetic on random bits, in place."""
    integer = BITS[x.dtype]
    info = torch.iinfo(integer)
    words = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_())).random_raw(
        -(-x.numel() * x.element_size() // 8)
    )
    drawn = torch.from_numpy(words).view(integer)[: x.numel()].bitwise_and_(info.max)  # uniform in 0..max
    dropped = round(p * (info.max + 1))
    # the sign of (dropped - 1 - drawn) is set where drawn >= dropped: all ones after the shift, kept
    kept = drawn.neg_().add_(dropped - 1).bitwise_right_shift_(info.bits - 1)
    scale = torch.tensor(1 / (1 - p), dtype=x.dtype).view(integer).item()
    return kept.bitwise_and_(int(scale)).view(x.dtype).view(x.shape)


class Dropout(nn.Module):
    """Replaces torch.nn.Dropout."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def replace_dropout(encoder: nn.Module) -> None:
    """Replace every torch.nn.Dropout of an encoder."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))


def register() -> str:
    """Register eager attention with this dropout in transformers. Returns the name for `attn_implementation`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def attention(  # noqa: PLR0913  (transformers calls it so)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d + mask) under dropout, times v. query, key, value: (R, heads, T, d) -> (R, T, heads, d)."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = drop(scores.softmax(-1), dropout if module.training else 0.0)
    return (weights @ value).transpose(1, 2).contiguous(), weights
