"""Statistics of the dropout masks at length: the table of docs/explanation/masks.md.

    python tests/torture/mask_statistics.py [--repeats 24] [--out statistics.json]

For each pair of masks that must know nothing of each other: the largest |r| over `repeats` pairs of other seeds, and what
independent masks give at most once in a hundred such tables. Shares: 10^8 draws a site.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from unit.model import test_mask_statistics as masks  # noqa: E402  (after sys.path)

SITES = (0, 7, 40, 199)  # of the embeddings, and of early and late layers
DRAWS = 10**8


def shares() -> list[dict[str, object]]:
    """By site: the share of what was dropped, and how many standard deviations that is from p."""
    rows: list[dict[str, object]] = []
    p = round(masks.P * 2**15) / 2**15
    for kind, draw in (("hidden states", masks.hidden), ("attention weights", masks.attended)):
        for site in SITES:
            count, total, step = 0, 0, 0
            while total < DRAWS:
                mask = draw(site, step=step)
                count, total, step = count + int(mask.sum()), total + mask.numel(), step + 1
            deviations = (count / total - p) / (p * (1 - p) / total) ** 0.5
            rows.append({"of": kind, "site": site, "share": count / total, "deviations": deviations})
    return rows


def correlations(repeats: int) -> list[dict[str, object]]:
    """By pair: its largest |r| over seeds, in standard deviations of independent masks."""
    rows: list[dict[str, object]] = []
    for name, pair in masks.PAIRS.items():
        largest, drawn = 0.0, 0
        for seed in range(repeats):
            masks.SEED = seed
            first, second = pair()
            drawn = first.numel()
            r = np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]
            largest = max(largest, abs(float(r)))
        rows.append({"pair": name, "draws": drawn, "largest_r": largest, "deviations": largest * drawn**0.5})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("statistics.json"))
    options = parser.parse_args()
    results = {"shares": shares(), "correlations": correlations(options.repeats)}
    trials = options.repeats * len(masks.PAIRS)
    results["bound"] = [{"tables": 100, "deviations": float(norm.isf(0.01 / (2 * trials)))}]
    for rows in results.values():
        for row in rows:
            print(
                " | ".join(
                    f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()
                )
            )
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
