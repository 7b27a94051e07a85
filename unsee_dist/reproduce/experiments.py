"""The experiments of `unsee reproduce`: the paper's claims, and the questions that it leaves open (arXiv 2401.15316).

objectives   non-contrastive objectives against SimCSE
target       with and without the EMA target, over learning rates and batches     figure 3
projector    none, on the online side, on both, four blocks                        figure 4
spectrum     eigenvalues and alignment with and without target and projector       open question 2
scale        more sentences, larger batches                                        open question 3
peers        sentence-transformers' SimCSE, TSDAE and Contrastive Tension in as many seconds
start        from random, given and other encoders: when it helps, when it harms
views        one span of a document in both views, or two
weights      Barlow Twins and CorInfoMax: their weight by batch
vision       with and without the EMA target on images (vision.py)                 open question 1
"""

from __future__ import annotations

from collections.abc import Sequence

from unsee_dist.bench.sentence_trainer import PEERS
from unsee_dist.metrics.names import ALIGNMENT, DISTANCE, EFFECTIVE_RANK, SPECTRUM, dev, part
from unsee_dist.reproduce import vision
from unsee_dist.reproduce.experiment import BEFORE, Arm, Chart, Claim, Experiment, Plan, against_all

# Of every experiment. No tracker: the folder has all numbers.
QUIET = ("track.mlflow=false",)
# fp32: a CPU without units for bf16 is slower with it.
SMALL = (*QUIET, "data.workers=0", "parallel.precision=fp32", "evaluate.every=0.1", "checkpoint.every=0.25")
# Documents are read in many steps: a step of 32 is 70,000 word pieces.
CROPPED = ("data.tokenise=true",)
RANK = Chart("steps", dev(EFFECTIVE_RANK))
CURVES = (Chart("steps"), Chart("arms"), RANK)


def _objectives() -> Experiment:
    names = ("unsee-vicreg", "unsee-barlow", "unsee-corinfomax", "byol")
    arms = tuple(Arm(name, name) for name in (*names, "simcse-fair"))
    claims = against_all(names, ("simcse-fair", BEFORE))
    return Experiment(
        "objectives",
        "Do non-contrastive objectives with an EMA target give better encoders than SimCSE?",
        Plan(arms, claims, (*SMALL, "train.steps=300")),
        Plan(arms, claims, QUIET),
        CURVES,
        "All five share length, pooling, batch, schedule and sentences; SimCSE has its own learning rate.",
    )


def _target() -> Experiment:
    small = [("3e-5", 32), ("1e-4", 32), ("3e-4", 32), ("1e-4", 128)]
    full = [(lr, batch) for lr in ("1e-5", "3e-5", "1e-4", "3e-4") for batch in (32, 128, 512)]
    return Experiment(
        "target",
        "Do non-contrastive objectives collapse without the EMA target, and at which learning rate and batch?",
        Plan(*_with_and_without(small), (*SMALL, "evaluate.every=0.2", "train.steps=120")),
        Plan(*_with_and_without(full), QUIET),
        (
            Chart("setting", key="train.lr", group=("target.kind", "train.batch")),
            Chart("setting", dev(EFFECTIVE_RANK), "train.lr", ("target.kind", "train.batch")),
            Chart("spectrum"),
            Chart("steps"),
            RANK,
        ),
        "Without a target the second view comes from the online encoder itself, with a projector on both sides and a gradient "
        "through both. Collapse is seen in the score, the effective rank and the spectrum of the last evaluation.",
    )


def _with_and_without(points: list[tuple[str, int]]) -> tuple[tuple[Arm, ...], tuple[Claim, ...]]:
    """For each learning rate and batch an arm with the target and one without it, which is claimed to be worse."""
    arms, claims = [], []
    for lr, batch in points:
        own = (f"train.lr={lr}", f"train.batch={batch}")
        pair = [
            Arm(f"{name}-lr{lr}-batch{batch}", preset, own)
            for name, preset in (("target", "unsee-vicreg"), ("none", "no-target"))
        ]
        arms += pair
        claims.append(Claim(pair[1].name, pair[0].name))
    return tuple(arms), tuple(claims)


def _projector() -> Experiment:
    arms = (
        Arm("online-side", "unsee-vicreg"),
        Arm("both-sides", "target-projector"),
        Arm("no-projector", "unsee-vicreg", ("projector.blocks=0",)),
        Arm("four-blocks", "released-code-vicreg"),
    )
    others = tuple(arm.name for arm in arms[1:])
    claims = against_all(others, ("online-side",))
    return Experiment(
        "projector",
        "Does a projector on the target's side harm, and does one on the online side help?",
        Plan(arms, claims, (*SMALL, "train.steps=300")),
        Plan(arms, claims, QUIET),
        CURVES,
        "four-blocks is what the released code stacks; the paper's text has one block on the online side.",
    )


def _spectrum() -> Experiment:
    arms = (
        Arm("target-projector", "unsee-vicreg"),
        Arm("target-only", "unsee-vicreg", ("projector.blocks=0",)),
        Arm("projector-only", "no-target"),
        Arm("neither", "no-target", ("projector.blocks=0",)),
    )
    claims = against_all(tuple(arm.name for arm in arms[1:]), (arms[0].name,))
    largest = tuple(Chart("steps", dev(part(SPECTRUM, k))) for k in (1, 16, 128))
    return Experiment(
        "spectrum",
        "What do target and projector do to the eigenvalues and to the alignment of the embeddings?",
        Plan(arms, claims, (*SMALL, "train.steps=300")),
        Plan(arms, claims, QUIET),
        (
            Chart("spectrum"),
            *largest,
            RANK,
            Chart("steps", dev(ALIGNMENT)),
            Chart("steps", dev(DISTANCE)),
            Chart("steps"),
        ),
        "Eigenvalues are of the covariance of unit embeddings of the corpus's first sentences. Alignment is the distance of pairs "
        "that people call alike; it needs evaluate.sts. The distance of online and target is that of their weights.",
    )


def _scale() -> Experiment:
    small = [(3_000, 32), (12_000, 32), (24_000, 128)]
    full = [(12_000, 32), (48_000, 32), (200_000, 32), (900_000, 32), (200_000, 256), (900_000, 256)]
    full += [(900_000, 1024)]
    return Experiment(
        "scale",
        "Do more sentences and larger batches give a better encoder?",
        Plan(*_scaled(small), (*SMALL, "evaluate.every=0.2")),
        Plan(*_scaled(full), QUIET),
        (Chart("setting", key="train.steps", group=("objective.name", "train.batch")), *CURVES),
        "Each sentence is read once. By rule of thumb the learning rate grows with the root of the batch, and the target forgets "
        "as much over as many sentences: decay 0.999 to the power batch / 32.",
    )


def _scaled(points: list[tuple[int, int]]) -> tuple[tuple[Arm, ...], tuple[Claim, ...]]:
    """VICReg and SimCSE at each size; each size is compared with the smallest, and the two with each other."""
    arms, claims = [], []
    for name, preset, lr in (("vicreg", "unsee-vicreg", 1e-4), ("simcse", "simcse-fair", 3e-5)):
        row = []
        for sentences, batch in points:
            own = [f"train.batch={batch}", f"train.steps={sentences // batch}"]
            own.append(f"train.lr={lr * (batch / 32) ** 0.5:.3g}")
            if name == "vicreg":
                own.append(f"target.decay={0.999 ** (batch / 32):.6g}")
            row.append(Arm(f"{name}-{sentences // 1000}k-batch{batch}", preset, tuple(own)))
        arms += row
        claims += [Claim(arm.name, row[0].name) for arm in row[1:]]
    count = len(points)
    claims += [Claim(ours.name, theirs.name) for ours, theirs in zip(arms[:count], arms[count:], strict=True)]
    return tuple(arms), tuple(claims)


def _peers() -> Experiment:
    ours = "unsee-vicreg"
    arms = (
        Arm(ours, ours),
        *(
            Arm(f"st-{name}", "base", peer.settings, trainer=name, as_long_as=ours)
            for name, peer in PEERS.items()
        ),
    )
    claims = (*against_all((ours,), tuple(arm.name for arm in arms[1:])), *(Claim(arm.name) for arm in arms))
    return Experiment(
        "peers",
        "Does UNSEE give a better encoder than what sentence-transformers offers, on the same sentences, encoder and time?",
        Plan(arms, claims, (*SMALL, "evaluate.every=0.2", "train.steps=200")),
        Plan(arms, claims, QUIET),
        CURVES,
        "The peers are trained by sentence-transformers' own trainer, with the batch, rate, pooling and length of its documentation, "
        "for as many seconds as our run of the same seed: those of its steps, without loading, evaluations and saves. They are "
        "evaluated as often, and best/ is chosen by the same score. Their rate falls with the clock; tsdae's is constant. A sentence has at "
        "most 32 word pieces for simcse, and at most 75 or model.max_tokens for the others. tsdae reads [CLS], as its authors do, "
        "a disadvantage for an encoder that was never trained for it: tsdae-mean is the same with the mean.",
    )


def _start() -> Experiment:
    """Each arm changes one thing of the preset that might turn harm into gain."""
    preset = "unsee-vicreg"
    small = (
        Arm("default", preset),
        Arm("third-of-rate", preset, ("train.lr=3.3e-5",)),
        Arm("tenth-of-rate", preset, ("train.lr=1e-5",)),
        Arm("faster-target", preset, ("target.decay=0.99",)),
        Arm("no-projector", preset, ("projector.blocks=0",)),
        Arm("projector-first", preset, ("train.projector_first=0.25",)),
    )
    more = (
        Arm("slower-target", preset, ("target.decay=0.9999",)),
        Arm("third-of-variance", preset, ("objective.variance=8",)),
    )
    return Experiment(
        "start",
        "From which encoders does training help, from which does it harm, and which setting turns harm into gain?",
        Plan(small, _of_all(small), (*SMALL, "evaluate.every=0.5", "train.steps=80")),
        Plan((*small, *more), _of_all((*small, *more)), QUIET),
        CURVES,
        "Each arm is trained from each start: random is the given encoder's architecture with random weights (the same ones under each "
        "seed), given is model.encoder, and others are those of --start NAME=FOLDER. What counts is the difference to the start "
        "itself. projector-first trains the projector alone for a quarter of the steps, then both.",
        starts=True,
    )


def _of_all(arms: tuple[Arm, ...]) -> tuple[Claim, ...]:
    return tuple(Claim(arm.name) for arm in arms)


def _views() -> Experiment:
    spans = {"dropout": 0, "near": 64, "any": "null"}
    pairs = [("vicreg", "unsee-vicreg"), ("simcse", "simcse-fair")]
    arms = tuple(
        Arm(f"{name}-{kind}", preset, ("data.views=crop", f"data.crop_distance={distance}"))
        for name, preset in pairs
        for kind, distance in spans.items()
    )
    claims = tuple(
        Claim(f"{name}-{kind}", against)
        for name, _ in pairs
        for kind in ("near", "any")
        for against in (f"{name}-dropout", BEFORE)
    )
    return Experiment(
        "views",
        "Are two spans of one document better views than one span under two dropout masks?",
        Plan(arms, (*claims, Claim("vicreg-near", "simcse-near")), (*SMALL, *CROPPED, "train.steps=200")),
        Plan(arms, (*claims, Claim("vicreg-near", "simcse-near")), (*QUIET, *CROPPED)),
        CURVES,
        "data.shards holds whole documents. In every arm a view is a span of one and its dropout is on: dropout has the same span in "
        "both views, near two that begin at most 64 word pieces apart, any two of the whole document.",
    )


def _weights() -> Experiment:
    """The authors' weight against one that fits the batch: of Barlow Twins batch / width², for a width of 256."""
    small = [(32, 200, (0.0051, 0.0005), (0.2, 0.8)), (128, 50, (0.0051, 0.002), (0.2, 0.8))]
    full = [
        (32, 1500, (0.0051, 0.0005, 0.00015), (0.2, 0.05, 0.8)),
        (128, 1500, (0.0051, 0.002, 0.0005), (0.2, 0.05, 0.8)),
        (1024, 1500, (0.0051, 0.0015, 0.0005), (0.2, 0.05, 0.8)),
    ]
    return Experiment(
        "weights",
        "At which batch does which weight of Barlow Twins and of CorInfoMax give the better encoder?",
        Plan(*_weighted(small), SMALL),
        Plan(*_weighted(full), QUIET),
        CURVES,
        "The first weight of a row is its authors'. Barlow Twins' sums the squares of off-diagonal correlations, which are mostly "
        "sampling noise where the batch is smaller than the width; CorInfoMax's is that of the log determinants. By rule of thumb "
        "the learning rate grows with the root of the batch. A best evaluation hides a fall after it: the curves show it.",
    )


def _weighted(
    points: Sequence[tuple[int, int, tuple[float, ...], tuple[float, ...]]],
) -> tuple[tuple[Arm, ...], tuple[Claim, ...]]:
    """At each batch, over so many steps: an arm for each weight of both objectives, compared with the first and with the start."""
    arms, claims = [], []
    for batch, steps, barlow, corinfomax in points:
        own = (f"train.batch={batch}", f"train.steps={steps}", f"train.lr={1e-4 * (batch / 32) ** 0.5:.3g}")
        for preset, setting, weights in (
            ("unsee-barlow", "objective.weight", barlow),
            ("unsee-corinfomax", "objective.covariance", corinfomax),
        ):
            short = preset.removeprefix("unsee-")
            row = [
                Arm(f"{short}-{weight}-batch{batch}", preset, (f"{setting}={weight}", *own))
                for weight in weights
            ]
            arms += row
            claims += [Claim(arm.name, row[0].name) for arm in row[1:]]
            claims += [Claim(arm.name) for arm in row]
    return tuple(arms), tuple(claims)


EXPERIMENTS = {
    each.name: each
    for each in (
        _objectives(),
        _target(),
        _projector(),
        _spectrum(),
        _scale(),
        _peers(),
        _start(),
        _views(),
        _weights(),
        vision.experiment(),
    )
}
