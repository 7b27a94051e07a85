"""Which views meet in the loss, and which network learns from it: the equations, with an encoder one can see through."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.model.dropout import ONLINE, masks_for, set_network
from unsee_dist.model.unsee import Unsee
from unsee_dist.objectives.outcome import Outcome, outcome

D, VOCABULARY = 4, 20
SENTENCES = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14, 15]]


class Rows(nn.Module):
    """Embeddings plus a shift that grows along the rows: with one sentence a row, each view of each has its own.

    Counts its passes. With `p`, dropout on what comes out.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, D)
        self.dropout, self.passes = nn.Dropout(p), 0
        self.dtype, self.config = torch.float32, SimpleNamespace(model_type="rows")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        self.passes += 1
        shift = 0.1 * torch.arange(len(input_ids))[:, None, None] * torch.arange(1, D + 1)
        return (self.dropout(self.words(input_ids) + shift),)


class Uneven(nn.Module):
    """Not symmetric in its views, so that a pair in the wrong order is seen."""

    symmetric: ClassVar[bool] = True

    def forward(self, online_VBD: Tensor, target_VBD: Tensor) -> Outcome:
        near_V = (online_VBD - 2 * target_VBD).square().mean((1, 2))
        return outcome(near=near_V.sum(), far=0.5 * online_VBD.mean((1, 2)).sum())


class OneWay(Uneven):
    symmetric: ClassVar[bool] = False


def made(*, ema: bool, both: bool, objective: nn.Module | None = None, p: float = 0.0) -> Unsee:
    torch.manual_seed(3)
    kind: Any = objective or Uneven()
    module = Unsee(Rows(p), nn.Linear(D, D), kind, pooling="mean", ema=ema, both=both)
    with torch.no_grad():  # a target that has not moved would hide which network is asked
        for frozen in module.frozen().values():
            frozen.add_(0.3 * torch.randn(frozen.shape))
    return module


def pieces(*cuts: int) -> list[MicroBatch]:
    bounds = [0, *cuts, len(SENTENCES)]
    keys = mask_keys(0, 1, np.arange(len(SENTENCES)))
    return [pack(SENTENCES[a:b], 4, 0, False, keys[a:b]) for a, b in pairwise(bounds)]


def read(encoder: nn.Module) -> tuple[Tensor, Tensor]:
    """The two views' embeddings of all sentences in one piece, written out."""
    words: Any = encoder.words
    means = torch.stack([words.weight[torch.tensor(ids)].mean(0) for ids in SENTENCES])
    shift = 0.1 * torch.arange(2 * len(SENTENCES))[:, None] * torch.arange(1, D + 1)
    return means + shift[: len(SENTENCES)], means + shift[len(SENTENCES) :]


def loss_of(a: Tensor, b: Tensor) -> Tensor:
    return (a - 2 * b).square().mean() + 0.5 * a.mean()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [Uneven, OneWay])
def test_with_a_target_each_view_meets_the_targets_other_one(kind: type[nn.Module], both: bool) -> None:
    module = made(ema=True, both=both, objective=kind())
    (o_1, o_2), (t_1, t_2) = read(module.online), read(module.target)  # type: ignore[arg-type]
    if both:
        t_1, t_2 = module.target_projector(t_1), module.target_projector(t_2)  # type: ignore[misc]
    q = module.projector
    expected = loss_of(q(o_1), t_2.detach())
    if kind is Uneven:
        expected = expected + loss_of(q(o_2), t_1.detach())
    loss, terms = module(pieces())
    torch.testing.assert_close(loss, expected)
    assert module.terms == ("near", "far")
    assert not terms.requires_grad
    assert terms.sum().item() == pytest.approx(loss.item(), rel=1e-5)
    far = 0.5 * q(o_1).mean() + (0.5 * q(o_2).mean() if kind is Uneven else 0)
    assert terms[1].item() == pytest.approx(far.item(), abs=1e-5)
    trained = [module.online.words.weight, *q.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("both", [False, True])
def test_without_a_target_the_views_meet_once_and_both_learn(both: bool) -> None:
    module = made(ema=False, both=both)
    o_1, o_2 = read(module.online)
    q = module.projector
    expected = loss_of(q(o_1), q(o_2) if both else o_2)
    loss, _ = module(pieces())
    torch.testing.assert_close(loss, expected)
    trained = [module.online.words.weight, *q.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), rtol=1e-4, atol=1e-5
    )
    assert module.target is None
    assert module.target_projector is None
    assert module.frozen() == {}


@pytest.mark.parametrize("both", [False, True])
def test_the_target_is_a_frozen_copy_under_the_online_names(both: bool) -> None:
    torch.manual_seed(1)
    online, projector = Rows(), nn.Linear(D, D)
    module = Unsee(online, projector, Uneven(), pooling="mean", ema=True, both=both)
    frozen = module.frozen()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert set(trained) == {"online.words.weight", "projector.weight", "projector.bias"}
    assert set(frozen) == (set(trained) if both else {"online.words.weight"})
    for name, parameter in frozen.items():
        assert torch.equal(parameter, trained[name])
        assert parameter is not trained[name]
        assert not parameter.requires_grad
    assert frozen["online.words.weight"] is module.target.words.weight  # type: ignore[union-attr]
    assert (module.target_projector is not None) is both
    module(pieces())[0].backward()
    assert all(p.grad is not None for p in trained.values())
    assert all(p.grad is None for p in frozen.values())


def test_pieces_of_a_batch_are_put_together_view_by_view() -> None:
    """A sentence's embedding depends here on its row in its piece, so the expected one is of the pieces, too."""
    module = made(ema=True, both=False)
    cut = pieces(1, 3)
    halves = [
        [views.chunk(2) for views in (_encoded(network, piece) for piece in cut)]
        for network in (module.online, module.target)
    ]
    (o_1, o_2), (t_1, t_2) = (
        [torch.cat([pair[view] for pair in each]) for view in (0, 1)] for each in halves
    )
    expected = loss_of(module.projector(o_1), t_2) + loss_of(module.projector(o_2), t_1)
    torch.testing.assert_close(module(cut)[0], expected)


def _encoded(encoder: Any, piece: MicroBatch) -> Tensor:
    with masks_for(encoder, piece, 2):
        hidden = encoder(piece.input_ids.repeat(2, 1), None)[0]
    kept = (piece.segment_ids >= 0).repeat(2, 1)[:, :, None]
    return (hidden * kept).sum(1) / kept.sum(1)


@pytest.mark.parametrize(("cuts", "passes"), [((), 1), ((2,), 4)])
def test_pieces_are_read_again_in_backward_and_under_the_same_masks(
    cuts: tuple[int, ...], passes: int
) -> None:
    """One piece is kept; of several only the embeddings are, and each is encoded again when its gradient is asked for."""
    module = made(ema=False, both=False, p=0.5)
    cut = pieces(*cuts)
    loss, _ = module(cut)
    loss.backward()
    assert module.online.passes == passes
    embedded = [_encoded(module.online, piece).chunk(2) for piece in cut]
    o_1, o_2 = (torch.cat([pair[view] for pair in embedded]) for view in (0, 1))
    expected = loss_of(module.projector(o_1), o_2)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(expected, [module.online.words.weight])
    torch.testing.assert_close(module.online.words.weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_target_drops_under_masks_of_its_own() -> None:
    """Before it has moved, only its masks tell the target from the online encoder."""
    module = made(ema=True, both=False, p=0.5)
    assert module.target is not None
    module.target.load_state_dict(module.online.state_dict())
    online_VBD, target_VBD = module._encode_online(pieces()), module._encode_target(pieces())
    assert not torch.isclose(online_VBD, target_VBD).all(-1).any()
    set_network(module.target, ONLINE)  # with the online encoder's masks it gives the same
    torch.testing.assert_close(module._encode_target(pieces()), online_VBD)


def test_the_target_is_read_once_and_keeps_nothing() -> None:
    module = made(ema=True, both=True)
    module(pieces(2))[0].backward()
    assert module.target.passes == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("ema", [False, True])
def test_embeddings_are_the_online_networks_first_view_in_the_order_of_the_sentences(ema: bool) -> None:
    module = made(ema=ema, both=False)
    embedded = module(pieces(), embed=True)
    torch.testing.assert_close(embedded, read(module.online)[0])
    assert module(pieces(1, 2), embed=True).shape == (len(SENTENCES), D)
    assert module(pieces(3), embed=True)[3].tolist() == pytest.approx(
        module.online.words.weight[[14, 15]].mean(0).tolist()
    )


def test_embeddings_reach_the_objective_in_fp32() -> None:
    """Projectors compute in bf16; an objective refuses anything below fp32."""
    seen: list[torch.dtype] = []

    class Looks(Uneven):
        def forward(self, online_VBD: Tensor, target_VBD: Tensor) -> Outcome:
            seen.extend((online_VBD.dtype, target_VBD.dtype))
            return super().forward(online_VBD, target_VBD)

    class Low(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(D, D).bfloat16()

        def forward(self, z_BD: Tensor) -> Tensor:
            return self.linear(z_BD.bfloat16())

    for ema, both in ((True, True), (True, False), (False, True), (False, False)):
        module = Unsee(Rows(), Low(), Looks(), pooling="mean", ema=ema, both=both)
        module(pieces())
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_the_one_asked_for(pooling: Any) -> None:
    torch.manual_seed(0)
    module = Unsee(Rows(), nn.Identity(), Uneven(), pooling=pooling, ema=False, both=True)
    whole = module(pieces(), embed=True)
    first = module.online.words.weight[[ids[0] for ids in SENTENCES]]
    shift = 0.1 * torch.arange(len(SENTENCES))[:, None] * torch.arange(1, D + 1)
    assert torch.allclose(whole, first + shift) is (pooling == "cls")


@pytest.mark.parametrize("cuts", [(), (2,)])
@pytest.mark.parametrize("ema", [False, True])
def test_training_pools_as_reading_does(cuts: tuple[int, ...], ema: bool) -> None:
    """With "cls" a loss sees the first token of a sentence and no other."""
    torch.manual_seed(0)
    module = Unsee(Rows(), nn.Identity(), Uneven(), pooling="cls", ema=ema, both=False)
    module(pieces(*cuts))[0].backward()
    seen = module.online.words.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert seen == [ids[0] for ids in SENTENCES]
    if ema:
        with torch.no_grad():
            before, _ = module(pieces(*cuts))
            others = sorted(set(range(VOCABULARY)) - set(seen))
            module.target.words.weight[others] += 1  # type: ignore[union-attr, index]
            assert module(pieces(*cuts))[0] == before
