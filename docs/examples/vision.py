"""Does the EMA target help outside text? The objectives of unsee_dist on scikit-learn's digits: 1,797 images of 8 x 8.

    python vision.py --out DIR [--seeds N] [--steps N]

An example of the package from outside: the objectives, the rule that the target follows, the projector, the schedule, the
effective rank and Student's intervals are unsee_dist's, by their public names; encoder, views, loop and evaluation are here.

    dropout   both views are the image, under two dropout masks, as in text
    shifts    each view is moved by up to a pixel first
    ema       L = l(q(o1), t2) + l(q(o2), t1), the target an average of the online encoder     as `unsee-vicreg`
    online    L = l(q(o1), q(o2)), gradient through both: no target                            as `no-target`

Two thirds of the digits train, without their labels. Judges of the others: the digit of the 5 nearest training digits, and a
linear probe on 8 labelled digits of each kind, mean of 5 draws. A seed is a split, weights, masks, order and draws; all
arms of a seed begin with the same encoder.

DIR/runs/ARM-SEED.json has a run: what is there is not run again. DIR/vision.json and vision.png are made of all of them, and
`unsee reproduce vision` makes its page of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.evaluation.intervals import half_width, over_seeds
from unsee_dist.metrics.geometry import geometry, moments
from unsee_dist.model.projector import Projector
from unsee_dist.model.target import follow
from unsee_dist.objectives import OBJECTIVES, Stateful
from unsee_dist.training.schedule import learning_rate

VIEWS, TARGETS = ("dropout", "shifts"), ("ema", "online")
SEEDS, STEPS, EVALUATIONS = 5, 200, 2
BATCH, LR, WARMUP, DECAY, DROPOUT = 128, 1e-3, 0.1, 0.99, 0.1
HIDDEN, WIDTH, FACTOR = 128, 64, 4  # of the encoder, of its embeddings, of the projector
NEIGHBOURS, LABELLED, DRAWS = "digits: 5 nearest", 8, 5
PROBE = "digits: probe of 8 labels"
RANK = "effective_rank"


class Arm(NamedTuple):
    views: str
    objective: str
    target: str

    @property
    def name(self) -> str:
        return "-".join(self).replace("_", "")


ARMS = tuple(
    Arm(views, objective, target) for views in VIEWS for objective in OBJECTIVES for target in TARGETS
)


class Digits(NamedTuple):
    """(N, 1, 8, 8) pixels from 0 to 1, and (N,) digits: of the training images, and of the others."""

    train: Tensor
    train_digits: np.ndarray
    test: Tensor
    test_digits: np.ndarray


def digits(seed: int) -> Digits:
    pixels, kinds = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train, test, train_kinds, test_kinds = train_test_split(
        images, kinds, test_size=1 / 3, stratify=kinds, random_state=seed
    )
    return Digits(torch.from_numpy(train), train_kinds, torch.from_numpy(test), test_kinds)


def make_encoder() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(DROPOUT), nn.Linear(64, HIDDEN), nn.ReLU(),
        nn.Dropout(DROPOUT), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Dropout(DROPOUT), nn.Linear(HIDDEN, WIDTH),
    )  # fmt: skip


class Siamese(nn.Module):
    """Online encoder and projector, the frozen target, and an objective."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.online, reduction = make_encoder(), Reduction()  # of one process
        self.target = copy.deepcopy(self.online).requires_grad_(False) if arm.target == "ema" else None
        self.projector = Projector(WIDTH, 1, FACTOR, reduction)
        self.objective = OBJECTIVES[arm.objective](WIDTH, reduction)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Of two views of a batch. The target has dropout masks of its own."""
        both = torch.cat([first, second])
        online_VBD = self.online(both).unflatten(0, (2, -1))
        projected_VBD = self.projector(online_VBD)
        if self.target is None:
            loss: Tensor = self.objective(*projected_VBD).loss
            return loss
        with torch.no_grad():
            target_VBD = self.target(both).unflatten(0, (2, -1))
        pairs = 2 if self.objective.symmetric else 1
        symmetric: Tensor = self.objective(projected_VBD[:pairs], target_VBD.flip(0)[:pairs]).loss
        return symmetric

    def moved(self) -> None:
        """After a step of the optimizer."""
        if isinstance(self.objective, Stateful):
            self.objective.commit()
        if self.target is not None:
            follow(list(self.target.parameters()), list(self.online.parameters()), DECAY)


def view(images: Tensor, kind: str) -> Tensor:
    """Each image as it is, or moved by -1, 0 or 1 pixels in both directions, with black behind it."""
    if kind == "dropout":
        return images
    rows_N1, columns_N1 = (torch.randint(0, 3, (len(images), 1)) + torch.arange(8) for _ in range(2))
    padded = nn.functional.pad(images[:, 0], (1, 1, 1, 1))
    places = torch.arange(len(images))[:, None, None]
    return padded[places, rows_N1[:, :, None], columns_N1[:, None, :]][:, None]


def batches(number: int, steps: int) -> Iterator[Tensor]:
    """The places of each step's images: all of them in a new order before any of them again."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(number)])
        yield order[:BATCH]
        order = order[BATCH:]


def train(arm: Arm, seed: int, steps: int) -> list[dict[str, float]]:
    """The scores before the first step, at regular steps, and after the last."""
    torch.manual_seed(seed)
    data, model = digits(seed), Siamese(arm)
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=LR, weight_decay=0.01
    )
    scores = [{"step": 0.0} | evaluated(model.online, data, seed)]
    for step, places in enumerate(batches(len(data.train), steps), start=1):
        images = data.train[places]
        loss = model.loss(view(images, arm.views), view(images, arm.views))
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, LR, WARMUP)
        optimizer.step()
        model.moved()
        if step % math.ceil(steps / EVALUATIONS) == 0 or step == steps:
            scores.append({"step": float(step)} | evaluated(model.online, data, seed))
    return scores


def evaluated(encoder: nn.Module, data: Digits, seed: int) -> dict[str, float]:
    """Accuracies x 100 of the images that did not train, and the geometry of their embeddings (effective rank, spectrum)."""
    train_ND, test_ND = embedded(encoder, data.train), embedded(encoder, data.test)
    nearest = KNeighborsClassifier(5, metric="cosine").fit(train_ND, data.train_digits)
    return {
        NEIGHBOURS: 100 * float(nearest.score(test_ND, data.test_digits)),
        PROBE: 100 * float(np.mean([probed(train_ND, test_ND, data, [seed, draw]) for draw in range(DRAWS)])),
    } | geometry(moments(test_ND))


def probed(train_ND: np.ndarray, test_ND: np.ndarray, data: Digits, seed: Sequence[int]) -> float:
    """The accuracy of a logistic regression on a few digits of each kind."""
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(data.train_digits == kind), LABELLED, replace=False) for kind in range(10)]
    )
    mean, deviation = train_ND.mean(axis=0), train_ND.std(axis=0) + 1e-6
    probe = LogisticRegression(max_iter=1000).fit(
        (train_ND[chosen] - mean) / deviation, data.train_digits[chosen]
    )
    return float(probe.score((test_ND - mean) / deviation, data.test_digits))


@torch.no_grad()
def embedded(encoder: nn.Module, images: Tensor) -> np.ndarray:
    """(N, D), dropout off."""
    encoder.eval()
    embeddings: np.ndarray = encoder(images).numpy()
    encoder.train()
    return embeddings


def run_all(out: Path, seeds: int, steps: int) -> dict[str, list[Any]]:
    """The runs of each arm by its name, seed by seed."""
    (out / "runs").mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Any]] = {arm.name: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:
            runs[arm.name].append(run(out / "runs" / f"{arm.name}-{seed}.json", arm, seed, steps))
    return runs


def run(path: Path, arm: Arm, seed: int, steps: int) -> Any:
    """A run, from its file where that has one of so many steps."""
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["steps"] == steps:
            return found
    made = {"arm": arm.name, "seed": seed, "steps": steps, "evaluations": train(arm, seed, steps)}
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(made), encoding="utf-8")
    unfinished.replace(path)
    return made


def differences(runs: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Of each objective with and without the target: the last score of both, and what the target gives, seed by seed."""
    found = {}
    for ema, online in zip(ARMS[::2], ARMS[1::2], strict=True):
        for score in (NEIGHBOURS, PROBE, RANK):
            with_target, without = (
                [each["evaluations"][-1][score] for each in runs[arm.name]] for arm in (ema, online)
            )
            gap = over_seeds(np.subtract(with_target, without).tolist())
            found[f"{ema.views} {ema.objective} {score}"] = {
                "ema": with_target,
                "online": without,
                "difference": gap and list(gap),
                "verdict": gap.verdict if gap else "one seed claims nothing",
            }
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """A line a comparison, for people: mean ± half of the interval of each, and of their difference."""
    lines = []
    for name, each in found.items():
        cells = [f"{key} {np.mean(each[key]):.2f}{_half(each[key])}" for key in ("ema", "online")]
        lines.append(f"{name}: {', '.join(cells)}: with a target, {each['verdict']}")
    return "\n".join(lines)


def _half(values: Sequence[float]) -> str:
    return f" ± {half_width(values):.2f}" if len(values) > 1 else ""


def draw(runs: dict[str, list[Any]], path: Path) -> None:
    """The probe over the steps: a panel a kind of view and target, a line an objective, the mean over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for arm in ARMS:
        panel = panels[VIEWS.index(arm.views)][TARGETS.index(arm.target)]
        lines = np.array([[each[PROBE] for each in run["evaluations"]] for run in runs[arm.name]])
        steps = [each["step"] for each in runs[arm.name][0]["evaluations"]]
        panel.plot(steps, lines.mean(axis=0), label=arm.objective)
        panel.set_title(f"{arm.views}, {'EMA target' if arm.target == 'ema' else 'no target'}")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy x 100 of the probe")
    for panel in panels[1]:
        panel.set_xlabel("step")
    panels[0][0].legend()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder of runs and results"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N")
    given = parser.parse_args(arguments)
    runs = run_all(given.out, given.seeds, given.steps)
    found = differences(runs)
    (given.out / "vision.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(runs, given.out / "vision.png")
    print(table(found))


if __name__ == "__main__":
    main()
