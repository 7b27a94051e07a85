"""What MLflow draws of a run: loss and score in the first section, nothing that never moves, every other number once."""

import math
import random

from unsee_dist.metrics.names import DECAY, TIME, dev
from unsee_dist.tracking.mlflow_charts import FIRST, STEADY, Charts


def _points(lines, newest=()):
    charts = Charts(dict(newest))
    return [point for line in lines for point in charts.points(line, 1000)], charts


def test_the_section_of_loss_and_score_sorts_before_all_others():
    line = {"step": 3, "loss": 1.0, "lr": 0.5, "time": 9.0}
    evaluation = {"step": 3, dev("sts"): 70.0, dev("mrr"): 0.5, dev("std"): math.nan, "time": 9.0}
    points, _ = _points([line, evaluation])
    named = {point.key: point.value for point in points}
    assert named == {
        "loss": 1.0, "lr": 0.5, "dev/sts": 70.0, "dev/mrr": 0.5, f"{FIRST}/loss": 1.0, f"{FIRST}/sts": 70.0,
    }  # fmt: skip
    sections = {key.rpartition("/")[0] for key in named} - {""}
    assert sorted(sections)[0] == FIRST  # MLflow's own order; numbers without a section come last
    assert all(point.step == 3 and point.at_ms == 1000 for point in points)


def test_a_collapsed_encoder_has_no_score_in_the_first_section():
    points, _ = _points([{"step": 1, dev("sts"): 70.0, dev("collapsed"): 1.0}])
    assert {point.key for point in points} == {"dev/sts"}


def test_what_never_moves_is_no_chart_and_what_moves_late_has_its_first_point():
    lines = [{"step": step, "loss": 1.0, DECAY: 0.999, "skipped": float(step > 6)} for step in range(1, 10)]
    points, charts = _points(lines)
    assert [point.step for point in points if point.key == "loss"] == list(range(1, 10))
    assert not [point for point in points if point.key == DECAY]
    assert charts.constants == {DECAY: 0.999}
    assert [(point.step, point.value) for point in points if point.key == "skipped"] == [
        (1, 0.0), (7, 1.0), (8, 1.0), (9, 1.0),
    ]  # fmt: skip


def test_whenever_the_sender_starts_again_no_point_is_sent_twice_and_none_is_lost():
    rng = random.Random(7)
    lines = [
        {
            "step": step,
            TIME: 1.0,
            "loss": rng.random(),
            DECAY: float(step // 20),
            "skipped": 0,
            dev("mrr"): rng.random(),
        }
        for step in range(1, 60)
    ]
    whole, charts = _points(lines)
    for _ in range(50):
        sent, known = [], {}
        for _ in range(rng.randrange(1, 5)):
            part, _ = _points(lines[: rng.randrange(1, 60)], known)
            sent += part
            known = {point.key: max(point.step, known.get(point.key, 0)) for point in sent}
        part, last = _points(lines, known)
        assert sorted(sent + part) == sorted(whole)
        assert last.constants == charts.constants == {"skipped": 0.0}
    assert set(charts.constants) <= STEADY
