"""The CPU's own dropout: the masks torch's would give in distribution, the same again under the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, BertConfig

from unsee_dist.model import cpu_dropout
from unsee_dist.model.cpu_dropout import Dropout, drop

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.01])
def test_drops_a_share_p_and_scales_the_rest_as_torch_does(dtype: torch.dtype, p: float) -> None:
    torch.manual_seed(3)
    ones = torch.ones(400_003, dtype=dtype)
    ours, theirs = drop(ones, p), nn.functional.dropout(ones, p)
    assert ours.dtype == dtype
    assert set(ours.unique().tolist()) == set(theirs.unique().tolist())
    deviation = (p * (1 - p) / len(ones)) ** 0.5
    assert abs((ours == 0).double().mean().item() - p) < 5 * deviation + 2**-15


def test_elements_are_dropped_independently() -> None:
    """Neighbours share 64 random bits: their masks must not."""
    torch.manual_seed(0)
    dropped = (drop(torch.ones(1_000_000, dtype=torch.bfloat16), 0.1) == 0).double()
    for distance in (1, 2, 3, 4, 5):
        covariance = torch.cov(torch.stack([dropped[:-distance], dropped[distance:]]))[0, 1]
        assert abs(covariance.item()) < 5 * 0.09 / 1_000_000**0.5


def test_masks_follow_torchs_seed_and_differ_between_calls() -> None:
    ones = torch.ones(64, 64)
    torch.manual_seed(7)
    first, second = drop(ones, 0.1), drop(ones, 0.1)
    torch.manual_seed(7)
    assert torch.equal(drop(ones, 0.1), first)
    assert not torch.equal(first, second)


def test_the_gradient_has_the_mask_of_forward_also_when_recomputed() -> None:
    x = torch.randn(50, 50, requires_grad=True)
    for run in (lambda: drop(x, 0.3), lambda: checkpoint(drop, x, 0.3, use_reentrant=False)):
        x.grad = None
        y = run()
        y.sum().backward()
        assert x.grad is not None
        assert torch.equal((x.grad == 0), (y == 0))


def test_an_encoder_without_dropout_computes_what_eager_attention_computes() -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=60, **size)
    torch.manual_seed(0)
    eager = AutoModel.from_config(config, attn_implementation="eager").eval()
    ours = AutoModel.from_config(config, attn_implementation=cpu_dropout.register()).eval()
    ours.load_state_dict(eager.state_dict())
    ids = torch.randint(5, 60, (3, 11))
    mask = (torch.arange(11) < torch.tensor([[11], [4], [7]])).long()
    expected, got = (encoder(ids, attention_mask=mask)[0] for encoder in (eager, ours))
    assert (expected - got).abs().max() < 1e-6


def test_every_dropout_of_an_encoder_is_replaced() -> None:
    encoder = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.2)), nn.Dropout(0.3))
    cpu_dropout.replace_dropout(encoder)
    kinds = [type(module) for module in encoder.modules()]
    assert kinds.count(Dropout) == 2
    assert nn.Dropout not in kinds
    x = torch.ones(5, 3)
    assert torch.equal(encoder.eval()(x), encoder(x))
