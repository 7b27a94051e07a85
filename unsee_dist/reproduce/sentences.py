"""What the results of an experiment say, one sentence a claim; a difference inside the noise is called that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from unsee_dist.evaluation.intervals import ScoreDifference
from unsee_dist.metrics.names import COLLAPSED, dev
from unsee_dist.metrics.verdict import collapse
from unsee_dist.reproduce.differences import Difference, Finding, difference
from unsee_dist.reproduce.experiment import Claim
from unsee_dist.reproduce.results import Results, arms_of, digits, name_of

EFFECTS = {  # of an arm on its start
    "helps": "training helps with",
    "harms": "it harms with",
    "both": "it helps on some scores and harms on others with",
    "noise": "no difference can be seen with",
    "unknown": "there is nothing to claim with",
}
WORDS: dict[Finding, str] = {
    "better": "better on",
    "worse": "worse on",
    "noise": "inside the noise on",
    "one seed": "nothing to claim from one seed on",
    "no score": "no score on",
}


def sentences(results: Results) -> list[str]:
    """Of each start, of all claims, then what went wrong, then what the reader should know."""
    claims = [claimed(results, claim) for claim in results.plan.claims]
    return [*by_start(results), *claims, *troubles(results), *notes(results)]


def by_start(results: Results) -> list[str]:
    """For each encoder that arms begin with: which of them help, which harm, and whether a setting turns harm into gain."""
    return [
        of_start(results, start) for start in dict.fromkeys(arm.start for arm in results.plan.arms) if start
    ]


def of_start(results: Results, start: str) -> str:
    """An arm helps where it is better than the start on some score and worse on none, and harms the other way round."""
    groups: dict[str, list[str]] = {effect: [] for effect in EFFECTS}
    for arm in (arm for arm in results.plan.arms if arm.start == start):
        found = {difference(results, Claim(arm.name), score).finding for score in results.claimed}
        groups[_effect(found)].append(arm.name.removeprefix(f"{start}-"))
    said = "; ".join(f"{EFFECTS[effect]} {', '.join(arms)}" for effect, arms in groups.items() if arms)
    return f"From {start}: {said}. {_turned(groups)}".rstrip()


def _effect(findings: Set[Finding]) -> str:
    if findings <= {"one seed", "no score"}:
        return "unknown"
    better, worse = "better" in findings, "worse" in findings
    return "both" if better and worse else "helps" if better else "harms" if worse else "noise"


def _turned(groups: Mapping[str, Sequence[str]]) -> str:
    """Of harm that the preset's own settings do."""
    if "default" not in (*groups["harms"], *groups["both"]):
        return ""
    if groups["helps"]:
        return f"Harm is turned into gain by {', '.join(groups['helps'])}."
    if groups["noise"]:
        return f"No setting that was tried turns harm into gain; {', '.join(groups['noise'])} does no harm that can be seen."
    return "No setting that was tried turns harm into gain."


def claimed(results: Results, claim: Claim) -> str:
    """One claim on all scores it is about, what it shows first."""
    differences = [difference(results, claim, score) for score in results.claimed]
    groups = [
        f"{words} {', '.join(_one(each) for each in differences if each.finding == finding)}"
        for finding, words in WORDS.items()
        if any(each.finding == finding for each in differences)
    ]
    return f"{claim.arm} against {claim.against}: {'; '.join(groups) or 'no score to compare'}."


def _one(of: Difference) -> str:
    if of.finding == "no score":
        return name_of(of.score)
    places = digits(of.score)
    inside = [f"{of.value:+.{places}f}"]
    inside += [f"{len(of.gaps)} seeds {_interval(of.seeds, places)}"] if of.seeds else []
    inside += [f"{of.pairs:,} pairs {_interval(of.of_pairs, places)}"] if of.of_pairs else []
    return f"{name_of(of.score)} ({', '.join(inside)})"


def _interval(of: ScoreDifference, places: int) -> str:
    return f"{of.low:+.{places}f} to {of.high:+.{places}f}"


def troubles(results: Results) -> list[str]:
    """Collapses, and runs that ended early."""
    sentences = []
    for arm in arms_of(results):
        units = results.of(arm)
        fallen = [each for each in units if each.last.get(dev(COLLAPSED))]
        if fallen:
            how = collapse(fallen[0].last)
            sentences.append(f"{arm} has collapsed at its end in {len(fallen)} of {len(units)} seeds: {how}.")
        sentences += [f"{each.unit.name}: {each.why}" for each in units if each.why]
    return sentences


def notes(results: Results) -> list[str]:
    """On the reading of the numbers."""
    sentences = []
    intervals = [
        each
        for claim in results.plan.claims
        for score in results.claimed
        if (each := difference(results, claim, score)).seeds is not None
    ]
    if intervals:
        sentences.append(
            "Intervals are 95%, each on its own: over seeds by Student's t, over pairs by the bootstrap. A difference is called "
            f"better or worse where all of its intervals leave out 0. There are {len(intervals)}; of equal arms, one in 20 would by chance."
        )
    if results.deciding and not results.tasks:
        sentences.append(
            f"{results.deciding} also chose best/ in each run, so every arm's value there is high by that choice. At the end nothing "
            "was chosen, and --tasks DIR scores best/ by tasks that chose nothing."
        )
    return sentences


def headline(results: Results) -> str:
    """How many of the claims hold, or that none can be made."""
    findings = [
        difference(results, claim, score).finding
        for claim in results.plan.claims
        for score in results.claimed
    ]
    if not findings or set(findings) <= {"no score"}:
        return "Nothing to compare yet"
    if set(findings) <= {"one seed", "no score"}:
        return "One seed: numbers, and no claim"
    counts = [(word, findings.count(word)) for word in ("better", "worse", "noise")]
    return f"Of {sum(n for _, n in counts)} comparisons: {_counted(counts)}"


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    words = {"better": "better", "worse": "worse", "noise": "inside the noise"}
    return ", ".join(f"{count} {words[name]}" for name, count in counts if count)
