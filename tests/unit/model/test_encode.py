"""Rows of tokens to embeddings: pooling against its definition, the order of views, masks and positions as given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unsee_dist.data.stream.packing import pack
from unsee_dist.model import encoder
from unsee_dist.model.encoder import encode, pool

SENTENCES = [[11, 12, 13], [21, 22], [31, 32, 33, 34], [41]]


class Seen:
    """An encoder whose hidden state is its input: token id, position, row. Keeps what it was called with."""

    def __init__(self, dtype: torch.dtype = torch.float32, kind: str = "bert", pad_token_id: int = 1) -> None:
        self.dtype, self.config = dtype, SimpleNamespace(model_type=kind, pad_token_id=pad_token_id)
        self.given: dict[str, Tensor] = {}

    def __call__(self, **given: Tensor) -> tuple[Tensor]:
        self.given = given
        ids = given["input_ids"]
        rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
        positions = given.get("position_ids", torch.zeros_like(ids))
        return (torch.stack([ids, positions, rows], -1).to(self.dtype),)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padded_sentences_view_by_view(pooling: Any) -> None:
    encoder = Seen()
    embedded = encode(encoder, pack(SENTENCES, 4, 0, False), pooling, views=3)
    assert embedded.dtype == torch.float32
    tokens = [sum(ids) / len(ids) if pooling == "mean" else ids[0] for ids in SENTENCES]
    assert embedded[:, 0].tolist() == pytest.approx(tokens * 3)
    assert embedded[:, 2].tolist() == list(range(12))
    assert set(encoder.given) == {"input_ids", "attention_mask"}
    mask = [[1] * len(ids) + [0] * (4 - len(ids)) for ids in SENTENCES]
    assert encoder.given["attention_mask"].tolist() == mask * 3
    assert not encoder.given["attention_mask"].is_floating_point()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(
    ("kind", "first"),
    [("bert", 0), ("roberta", 2), ("xlm-roberta", 2), ("camembert", 2), ("mpnet", 2), ("electra", 0)],
)
def test_packed_sentences_have_their_own_positions_and_no_neighbours(
    pooling: Any, kind: str, first: int
) -> None:
    micro_batch = pack(SENTENCES, 6, 0, True)
    assert len(micro_batch.input_ids) < len(SENTENCES)
    encoder = Seen(kind=kind)
    embedded = encode(encoder, micro_batch, pooling, views=2)
    tokens = [sum(ids) / len(ids) if pooling == "mean" else ids[0] for ids in SENTENCES]
    assert embedded[:, 0].tolist() == pytest.approx(tokens * 2)
    middles = [first + ((len(ids) - 1) / 2 if pooling == "mean" else 0) for ids in SENTENCES]
    assert embedded[:, 1].tolist() == pytest.approx(middles * 2)
    rows = [int(micro_batch.segment_ids.eq(number).any(1).nonzero()) for number in range(len(SENTENCES))]
    assert embedded[:, 2].tolist() == [*rows, *(row + len(micro_batch.input_ids) for row in rows)]
    segments = micro_batch.segment_ids.repeat(2, 1)
    together = segments[:, None, :, None] == segments[:, None, None, :]
    mask = encoder.given["attention_mask"]
    assert torch.equal(mask == 0, together)
    assert torch.equal(mask == torch.finfo(torch.float32).min, ~together)


def test_the_mask_has_the_encoders_dtype() -> None:
    encoder = Seen(torch.bfloat16)
    embedded = encode(encoder, pack(SENTENCES, 6, 0, True), "mean", views=1)
    assert encoder.given["attention_mask"].dtype == torch.bfloat16
    assert encoder.given["attention_mask"].min() == torch.finfo(torch.bfloat16).min
    assert embedded.dtype == torch.float32


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("share", [False, True])
def test_nothing_is_made_on_another_device_than_the_batch(pooling: Any, share: bool) -> None:
    """torch's default device is one whose tensors hold nothing here."""
    micro_batch = pack(SENTENCES, 6, 0, share)
    expected = encode(Seen(), micro_batch, pooling, views=2)
    with torch.device("meta"):
        embedded = encode(Seen(), micro_batch, pooling, views=2)
    assert torch.equal(embedded, expected)


def test_a_batch_of_one_sentence_in_one_row_is_not_packed() -> None:
    encoder = Seen()
    encode(encoder, pack([[5, 6]], 6, 0, True), "mean", views=1)
    assert encoder.given["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_against_its_definition(pooling: Any, dtype: torch.dtype) -> None:
    """Sentences in any order and in pieces of rows, padding anywhere; sums in fp32 whatever the encoder computes in."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(3, 40, 5, generator=generator).to(dtype)
    sentences = torch.randint(-1, 6, (3, 40), generator=generator)
    pooled = pool(hidden, sentences, 6, pooling)
    assert pooled.dtype == torch.float32
    assert pooled.shape == (6, 5)
    for number in range(6):
        own = hidden[sentences == number].double()
        expected = own.mean(0) if pooling == "mean" else own[0]
        torch.testing.assert_close(pooled[number].double(), expected, rtol=1e-6, atol=1e-6)


def test_padding_has_no_gradient_and_no_say() -> None:
    hidden = torch.ones(1, 4, 2, requires_grad=True)
    sentences = torch.tensor([[0, 0, -1, 1]])
    pool(hidden, sentences, 2, "mean").sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0, :, 0].tolist() == [0.5, 0.5, 0.0, 1.0]
    wild = torch.tensor([[[1.0], [3.0], [torch.nan], [5.0]]])
    assert pool(wild, sentences, 2, "mean").tolist() == [[2.0], [5.0]]
    assert pool(wild, sentences, 2, "cls").tolist() == [[1.0], [5.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [[0, 1, 1, 3, 4, 0, 1], [1, 1], [3, 0, 4]])
def test_sums_of_a_gpu_are_those_of_a_cpu(dtype: torch.dtype, order: list[int]) -> None:
    """Both orders of summing run on a CPU. Segment 2 has no token, and 4 is padding."""
    segment_N = torch.tensor(order)
    x_ND = torch.randn(len(order), 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    for one, other in zip(
        encoder._added(x_ND, segment_N, 4), encoder._reduced(x_ND, segment_N, 4), strict=True
    ):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("share", [False, True])
def test_rows_that_hold_a_text_for_each_view(pooling: Any, share: bool) -> None:
    """Two sentences, two texts each, one after the other in the input: embeddings come view by view, and no row twice."""
    micro_batch = pack(SENTENCES, 6, 0, share, views=2)
    assert (micro_batch.sentences, micro_batch.views, micro_batch.segments) == (2, 2, 4)
    encoder = Seen()
    embedded = encode(encoder, micro_batch, pooling, views=2)
    assert len(encoder.given["input_ids"]) == len(micro_batch.input_ids)
    tokens = [sum(ids) / len(ids) if pooling == "mean" else ids[0] for ids in SENTENCES]
    assert embedded[:, 0].tolist() == pytest.approx([tokens[0], tokens[2], tokens[1], tokens[3]])
