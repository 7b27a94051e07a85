"""STS, retrieval and geometry on 3 ranks equal those on 1 rank, through a real encoder and a real gather."""

import random
from functools import reduce

import numpy as np
import torch
from processes import run

WORDS = [f"word{i}" for i in range(60)]


def _tasks():
    from unsee_dist.metrics.retrieval import make_questions
    from unsee_dist.metrics.sts import Pairs

    rng = random.Random(0)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(2, 11))) for _ in range(100)]
    sets = {
        name: Pairs(
            rng.choices(made, k=40), rng.choices(made, k=40), np.array([rng.random() for _ in range(40)])
        )
        for name in ("one", "two")
    }
    questions = make_questions([(made[i], " ".join(rng.choices(WORDS, k=5))) for i in range(30)], "made")
    return sets, {"made": questions}, made[:50]


def _encode():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = BertModel(
        BertConfig(vocab_size=64, max_position_embeddings=16, **size), add_pooling_layer=False
    ).eval()

    def encode(sentences):
        ids = [[int(word.removeprefix("word")) + 1 for word in sentence.split()] for sentence in sentences]
        padded = torch.tensor([row + [0] * (12 - len(row)) for row in ids])
        mask = (padded > 0).long()
        with torch.no_grad():
            hidden = model(input_ids=padded, attention_mask=mask)[0]
        return ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()

    return encode


def _score(rank, size, shuffled):
    from unsee_dist.distributed.world import World, gather_rows
    from unsee_dist.evaluation.development import Development
    from unsee_dist.metrics.geometry import geometry, moments

    world = World(rank, size, rank, torch.device("cpu"))

    def gather(rows):
        whole = gather_rows(world, torch.from_numpy(rows)).numpy()
        return np.roll(whole, 1, axis=0) if shuffled else whole

    encode = _encode()
    mine = [sentence for i, sentence in enumerate(_tasks()[2]) if i % size == rank]
    parts = [None] * size
    torch.distributed.all_gather_object(parts, moments(encode(mine)))
    return Development(*_tasks(), rank, size, gather)(encode), geometry(reduce(lambda a, b: a + b, parts))


def test_three_ranks_score_what_one_scores_and_rows_in_another_order_do_not():
    from unsee_dist.evaluation.development import Development

    alone = Development(*_tasks())(_encode())
    for scores, summed in run(_score, 3, False):
        assert scores.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(scores[name], value, rtol=1e-5, err_msg=name)
        for name, value in summed.items():
            np.testing.assert_allclose(alone[f"dev/{name}"], value, rtol=1e-5, err_msg=name)
    wrong = run(_score, 3, True)[0][0]
    assert abs(wrong["dev/sts"] - alone["dev/sts"]) > 1
