"""The page of a run, or of several side by side: which section has what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unsee_dist.errors import UserError
from unsee_dist.evaluation.development import tfidf_baseline
from unsee_dist.files.remote import check_local
from unsee_dist.masking import published
from unsee_dist.report import curves, facts, headline
from unsee_dist.report.encoders import Encoded, before_and_after, read_sets
from unsee_dist.report.page import (
    NAME,
    Clusters,
    Commands,
    Events,
    Grid,
    Nearest,
    Page,
    PageBlock,
    PageSection,
    Plots,
    Words,
    check_target,
    write_page,
)
from unsee_dist.report.pairs import PairsView, of_pairs
from unsee_dist.report.run_files import RunFiles, open_run, tried
from unsee_dist.report.sentences import (
    all_sentences,
    map_of,
    neighbours,
    pool_of,
    sample,
    usable,
)
from unsee_dist.training.edited import check_record, check_scores

MOST_RUNS = 8  # colours
MOST_MAPS = 4


@dataclass
class Looked:
    """What both encoders of each run show, and TF-IDF's scores. problems: sentences."""

    baseline: Mapping[str, float] = field(default_factory=dict)
    pairs: list[PairsView] = field(default_factory=list)
    encoders: list[Encoded] = field(default_factory=list)  # before, then after, of all runs
    pool: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def report_runs(folders: Sequence[Path], out: Path | None) -> Path:
    """Write the page of runs; returns its path. UserError: one is no run, is given twice, or there are too many."""
    resolved = [folder.resolve() for folder in folders]
    if twice := next(
        (folder for folder, own in zip(folders, resolved, strict=True) if resolved.count(own) > 1), None
    ):
        raise UserError(f"{twice} is given twice. Leave one out.")
    if len(folders) > MOST_RUNS:
        raise UserError(
            f"{len(folders)} runs are more than {MOST_RUNS}, and nobody could tell their colours apart. Give fewer, or a sweep's "
            "folder."
        )
    if out is not None:
        check_local(out, "--out")
    runs = _named_apart([_checked(open_run(folder)) for folder in folders])
    path = out or (folders[0] / NAME if len(folders) == 1 else Path(NAME))
    check_target(path)  # the encoders may take minutes
    write_page(page_of(runs, look(runs)), path)
    return path


def report_ended(folder: Path, baseline: Mapping[str, float]) -> Path:
    """The page of a run that has just ended, without what needs its encoders: seconds, and no memory of a device."""
    run = replace(_checked(open_run(folder)), owner=None)  # which is this process
    why = f"The encoders were not opened when the run ended. This command adds pairs, neighbours and a map: unsee report {folder}"
    path = folder / NAME
    write_page(page_of([run], Looked(baseline, problems=[why])), path)
    return path


def look(runs: Sequence[RunFiles]) -> Looked:
    """Open the encoders of each run and encode the sets and a sample of the corpus of the first one."""
    sets = read_sets(runs[0])
    looked = Looked(problems=list(sets.problems))
    same = {(_evaluated_by(run), run.config is None) for run in runs}
    if len(same) == 1 and (sets.sts or sets.retrieval):
        looked.baseline = tfidf_baseline(sets.sts, sets.retrieval)
    sampled = sample(sets)
    sentences = all_sentences(sampled)
    if not sentences:
        looked.problems.append(
            "There is nothing to encode: neither the sets nor the corpus can be read here."
        )
        return looked
    looked.pool = pool_of(sampled)
    done: dict[str, Encoded] = {}
    afters = []
    for place, run in enumerate(runs):
        before, after, problems = before_and_after(run, sentences, done)
        looked.problems += [f"{run.name}: {problem}" if len(runs) > 1 else problem for problem in problems]
        if before is None or after is None:
            continue
        if not all(usable(each, sentences) for each in (before, after)):
            looked.problems.append(
                f"{run.name}: its embeddings are one point or not finite, so there is nothing to see."
            )
            continue
        looked.pairs += of_pairs(sampled, before.embeddings, after.embeddings, run.name, place)
        name = after.name if len(runs) == 1 else f"{run.name}, {after.name}"
        afters.append(Encoded(f"after: {name}", after.embeddings))
    looked.encoders = [
        Encoded(f"before: {_short(each.name)}", each.embeddings) for each in done.values()
    ] + afters
    if not afters:
        looked.encoders = []
    return looked


def page_of(runs: Sequence[RunFiles], looked: Looked) -> Page:
    one = runs[0] if len(runs) == 1 else None
    summary = (
        headline.verdict(one, looked.baseline, looked.pairs)
        if one
        else headline.comparison(runs, looked.baseline)
    )
    sections = [] if one else [PageSection("Runs", [Grid(facts.overview(runs, looked.baseline))])]
    for group in curves.groups(runs, looked.baseline):
        blocks: list[PageBlock] = [Plots(group.plots) if group.plots else Words([group.empty])]
        if group.title == "Scores" and group.plots:
            blocks += [
                Grid(facts.evaluations(run), f"All evaluations as numbers{'' if one else f': {run.name}'}")
                for run in runs
            ]
        sections.append(PageSection(group.title, blocks))
    sections += [*_of_sentences(looked), *_of_records(runs)]
    title = one.name if one else " · ".join(run.name for run in runs)
    subtitle = str(one.folder.absolute()) if one else f"{len(runs)} runs"
    legend = [] if one else [(place, run.name) for place, run in enumerate(runs)]
    return Page(title, subtitle, summary, sections, legend)


def _of_sentences(looked: Looked) -> list[PageSection]:
    problems: list[PageBlock] = [Words(looked.problems)] if looked.problems else []
    if not looked.encoders:
        return [PageSection("Pairs, neighbours, a map", problems)]
    pairs: list[PageBlock] = [Plots([view.plot for view in looked.pairs])] if looked.pairs else []
    nothing: list[PageBlock] = [
        Words(["No pairs: neither evaluate.sts nor evaluate.retrieval could be read."])
    ]
    rows = neighbours(looked.pool, looked.encoders)
    head = [encoder.name for encoder in looked.encoders]
    maps = [looked.encoders[0], *looked.encoders[1:][-MOST_MAPS:]]
    shown = map_of(looked.pool, maps)
    return [
        PageSection(
            "Gold pairs before and after",
            [*(pairs or nothing), *problems],
            "Grey: before training; coloured: after. A box holds the middle half of the pairs, its line is the median, whiskers "
            "go from the 5th to the 95th percentile. Boxes that rise from left to right, apart from each other, are good.",
        ),
        PageSection(
            "Nearest neighbours",
            [Nearest(head, rows)],
            f"Of {len(rows)} sentences drawn by chance, the nearest among {len(looked.pool)} others, with their cosine. A bar on the "
            "left: not among the nearest before training.",
        ),
        PageSection(
            "A map",
            [Plots(shown.plots), Clusters(shown.clusters)],
            "t-SNE keeps neighbours together; distances between far groups mean nothing. A colour is a cluster (k-means) of the "
            "last encoder, with the words that are frequent in it, in every map.",
        ),
    ]


def _of_records(runs: Sequence[RunFiles]) -> list[PageSection]:
    different, every = facts.settings(runs)
    note = (
        "What differs from base.yaml."
        if len(runs) == 1
        else "What differs between the runs. A run's name, folder and seed differ, too, where they are listed."
    )
    same: PageBlock = Words(["No setting differs."])
    sections = [
        PageSection(
            "Settings",
            [
                Grid(different, codes=True) if different.rows else same,
                Grid(every, "All settings", codes=True),
            ],
            note,
            narrow=True,
        )
        if every.rows
        else PageSection("Settings", [Words(["The settings cannot be read."])])
    ]
    environment = facts.environment(runs)
    kept: PageBlock = (
        Grid(environment)
        if environment
        else Words(["It was not recorded: the run was started by an earlier version."])
    )
    sections.append(PageSection("Environment", [kept], "Of the last start.", narrow=True))
    for run in runs:
        title = "History" if len(runs) == 1 else f"History of {run.name}"
        sections.append(PageSection(title, [Events(facts.history(run))], narrow=True))
    return [*sections, PageSection("Next", [Commands(facts.next_steps(runs))], narrow=True)]


def _evaluated_by(run: RunFiles) -> str:
    return str(run.config and (run.config.evaluate.sts, run.config.evaluate.retrieval))


def _checked(run: RunFiles) -> RunFiles:
    """The run with what was edited in its records as a problem."""
    problems = list(run.problems)
    if run.config is not None:
        tried(problems, lambda: check_record(run.folder), None)
        tried(problems, lambda: check_scores(run.folder), None)
    return replace(run, problems=tuple(dict.fromkeys(problems)))


def _named_apart(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Two runs of one name get their folders as names."""
    names = [run.name for run in runs]
    return [
        replace(run, label=published(str(run.folder))) if names.count(run.name) > 1 else run for run in runs
    ]


def _short(name: str) -> str:
    """The last part of a path; a name on the Hub as it is."""
    return Path(name).name if Path(name).is_absolute() or Path(name).exists() else name
