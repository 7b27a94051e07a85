"""Crops: spans of a record by (seed, step, id, view) and by nothing else, whoever reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.config.sections import RECORD_TOKENS, DataSettings, ModelSettings, RunConfig, TrainSettings
from unsee_dist.data import Shards, Stream
from unsee_dist.data.corpus.order import GOLDEN, key
from unsee_dist.data.corpus.ragged import ragged
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.processes import run_serially
from unsee_dist.data.stream.crops import CROPS, LENGTH, Crops, around

CUT = Crops(seed=7, low=3, high=9, distance=None, prefix=(2,), suffix=(3,))
MASK = (1 << 64) - 1


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory, make_sentence: Callable[[int], str]) -> Shards:
    """300 records of 1 to 9 sentences."""
    folder = tmp_path_factory.mktemp("documents")
    lines = [" ".join(make_sentence(9 * n + k) for k in range(1 + n % 9)) for n in range(300)]
    (folder / "documents.txt").write_text("\n".join(lines) + "\n")
    prepare([str(folder / "documents.txt")], folder / "corpus", PrepareSettings(seed=5))
    return Shards(folder / "corpus")


def configured(seed: int = 3, batch: int = 24, micro_batch: int | None = None, **data: object) -> RunConfig:
    return RunConfig(
        seed=seed,
        model=ModelSettings(max_tokens=12),
        train=TrainSettings(batch=batch, micro_batch=micro_batch),
        data=DataSettings.model_validate(
            {"views": "crop", "crop_tokens": 6, "workers": 0, "pack": True} | data
        ),
    )


def mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def drawn(of: int, what: int, low: int, high: int) -> int:
    return low + ((mixed(((of ^ what) + GOLDEN) & MASK) >> 32) * (high - low + 1) >> 32)


def spans(crops: Crops, step: int, record: int, tokens: int) -> list[tuple[int, int]]:
    """(start, tokens) of both views: the definition, with Python's integers."""
    of = key(CROPS, crops.seed, step, record)
    length = drawn(of, LENGTH, min(crops.low, tokens), min(crops.high, tokens))
    last = tokens - length
    first = drawn(of, 0, 0, last)
    reach = tokens if crops.distance is None else crops.distance
    return [(first, length), (drawn(of, 1, max(first - reach, 0), min(first + reach, last)), length)]


@given(
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=30),
    step=st.integers(1, 2**40),
    seed=st.integers(0, 2**63 - 1),
    distance=st.one_of(st.none(), st.integers(0, 80)),
    data=st.data(),
)
@settings(deadline=None)
def test_spans_are_those_of_the_definition(ids, step, seed, distance, data) -> None:
    crops = replace(CUT, seed=seed, distance=distance)
    tokens = data.draw(st.lists(st.integers(0, 200), min_size=len(ids), max_size=len(ids)))
    starts, lengths = crops.places(step, np.array(ids), np.array(tokens))
    found = [list(zip(*pair, strict=True)) for pair in zip(starts.tolist(), lengths.tolist(), strict=True)]
    assert found == [spans(crops, step, *record) for record in zip(ids, tokens, strict=True)]
    assert (starts >= 0).all()
    assert (starts + lengths <= np.array(tokens)[:, None]).all()
    if distance is not None:
        assert (abs(starts[:, 1] - starts[:, 0]) <= distance).all()


def test_every_place_and_length_comes_and_as_often_as_the_others() -> None:
    """40,000 spans of 20 tokens: the counts of a length, and of the starts of one length, within five deviations."""
    ids = np.arange(40_000)
    starts, lengths = CUT.places(1, ids, np.full(len(ids), 20))
    for view in range(2):
        for values, n in ((lengths[:, view], 7), (starts[lengths[:, view] == 5, view], 16)):
            counts = np.array(list(Counter(values.tolist()).values()))
            assert len(counts) == n
            expected = len(values) / n
            assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
    seven = lengths[:, 0] == 7
    assert abs(np.corrcoef(starts[seven].T)[0, 1]) < 5 / np.sqrt(seven.sum())


def test_a_distance_of_nothing_is_one_span_for_both_views() -> None:
    starts, _ = replace(CUT, distance=0).places(4, np.arange(200), np.arange(200))
    assert (starts[:, 0] == starts[:, 1]).all()


def test_another_seed_step_or_view_is_another_span() -> None:
    """The control: what is not in the key would be the same."""
    ids, tokens = np.arange(200), np.full(200, 300)
    mine = CUT.places(4, ids, tokens)[0]
    assert np.array_equal(mine, CUT.places(4, ids, tokens)[0])
    others = (CUT.places(5, ids, tokens)[0], replace(CUT, seed=8).places(4, ids, tokens)[0], mine[:, ::-1])
    assert all((mine != other).mean() > 0.9 for other in others)


def test_the_tokens_of_a_span_are_the_record_s_inside_the_special_ones() -> None:
    records = ragged([[2, *range(10 * n, 10 * n + n), 3] for n in range(1, 40)])
    cut = CUT(6, np.arange(39), records)
    texts = np.split(cut.ids, np.cumsum(cut.lengths)[:-1])
    assert len(texts) == 78
    for n, (first, second) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        content = list(range(10 * (n + 1), 10 * (n + 1) + n + 1))
        for text, (start, length) in zip((first, second), spans(CUT, 6, n, n + 1), strict=True):
            assert text.tolist() == [2, *content[start : start + length], 3]


def test_special_tokens_are_found(tokenizer) -> None:
    assert around(tokenizer) == ((2,), (3,))


def texts(batch) -> dict[tuple[int, int], list[int]]:
    """The tokens of each (record, view) of a batch."""
    found, ids = {}, iter(batch.ids)
    for micro_batch in batch.micro_batches:
        own = [next(ids) for _ in range(micro_batch.sentences)]
        assert micro_batch.views == 2
        for segment in range(2 * len(own)):
            inside = micro_batch.segment_ids == segment
            view, place = divmod(segment, len(own))
            assert micro_batch.position_ids[inside].tolist() == list(range(int(inside.sum())))
            found[own[place], view] = micro_batch.input_ids[inside].tolist()
    return found


def whole(documents, tokenizer, config, rank=0, ranks=1, steps=(1, 3)):
    return list(Stream(documents, tokenizer, config, rank, ranks).batches(*steps))


@pytest.mark.parametrize(
    ("ranks", "workers", "micro_batch", "pack"),
    [(1, 0, 5, True), (2, 0, None, True), (3, 0, 3, False), (4, 0, 1, True), (1, 2, None, True), (2, 1, 4, False)],
)  # fmt: skip
def test_every_layout_reads_the_same_spans(documents, tokenizer, ranks, workers, micro_batch, pack) -> None:
    alone = whole(documents, tokenizer, configured())
    config = configured(micro_batch=micro_batch, workers=workers, pack=pack)
    parts = [whole(documents, tokenizer, config, rank, ranks) for rank in range(ranks)]
    for step, batch in enumerate(alone):
        found: dict[tuple[int, int], list[int]] = {}
        for part in parts:
            found |= texts(part[step])
        assert found == texts(batch)
        assert batch.micro_batches[0].keys.tolist() == [
            k for part in parts for micro_batch in part[step].micro_batches for k in micro_batch.keys.tolist()
        ]


def test_they_are_spans_of_the_records(documents, tokenizer) -> None:
    batches = whole(documents, tokenizer, configured(crop_distance=4))
    crops = Crops.of(configured(crop_distance=4), tokenizer)
    assert (crops.low, crops.high) == (4, 10)
    for batch in batches:
        for (record, view), tokens in texts(batch).items():
            content = tokenizer(documents.sentence(record), add_special_tokens=False)["input_ids"]
            start, length = spans(crops, batch.step, record, len(content))[view]
            assert tokens == [2, *content[start : start + length], 3]
        assert batch.tokens == sum(map(len, texts(batch).values())) // 2


def test_asking_for_a_step_is_resuming_at_it(documents, tokenizer) -> None:
    expected = {
        batch.step: texts(batch) for batch in whole(documents, tokenizer, configured(), steps=(1, 30))
    }
    resumed = whole(documents, tokenizer, configured(workers=2), steps=(27, 30))
    assert {batch.step: texts(batch) for batch in resumed} == {step: expected[step] for step in range(27, 31)}


def test_spans_that_are_keyed_by_rank_break_the_law(documents, tokenizer, monkeypatch) -> None:
    """The control: the place in the rank's part in place of the id, as a generator of the rank would have it."""
    given = Crops.places
    monkeypatch.setattr(Crops, "places", lambda self, step, ids, n: given(self, step, np.arange(len(ids)), n))
    (alone,) = whole(documents, tokenizer, configured(), steps=(1, 1))
    found: dict[tuple[int, int], list[int]] = {}
    for rank in range(2):
        found |= texts(whole(documents, tokenizer, configured(), rank, 2, (1, 1))[0])
    assert found.keys() == texts(alone).keys()
    assert found != texts(alone)


def test_prepared_tokens_give_the_same_spans(documents, tokenizer, tmp_path: Path) -> None:
    """Those of whole records; a corpus that is prepared for model.max_tokens is tokenised while it is read."""
    alone = whole(documents, tokenizer, configured())
    for file in documents.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for most in (12, RECORD_TOKENS):
        tokenise(tmp_path, tokenizer, most, run_serially)
        publish(tmp_path, tokenizer, most)
        copied = Shards(tmp_path)
        assert list(map(texts, whole(copied, tokenizer, configured()))) == list(map(texts, alone))
    assert Stream(copied, tokenizer, configured())._loader.dataset.tokens is not None


def test_records_that_are_too_short_are_refused(corpus, tokenizer) -> None:
    with pytest.raises(
        ValueError, match=r"data.views = crop needs records of at least 16 word pieces, two crops"
    ) as said:
        Stream(corpus, tokenizer, configured(crop_tokens=8))
    assert "64 of the first 64 of" in str(said.value)
    assert "--split" in str(said.value)
    Stream(corpus, tokenizer, configured(crop_tokens=6))  # 10 to 14 tokens: most hold two


def test_the_sample_is_the_beginning_of_the_records(documents, tokenizer) -> None:
    sample = Stream(documents, tokenizer, configured()).sample(40)
    head = documents.head(40)
    assert sample == [text[: 16 * 12] for text in head]
    assert sample != head
    both = (tokenizer(each, truncation=True, max_length=12)["input_ids"] for each in (sample, head))
    assert next(both) == next(both)
