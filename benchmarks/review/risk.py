"""How well the risk score separates changes that were later reverted from those that were not.

`python -m benchmarks.review.risk` reads `.cache/review/risk.csv.gz` (see the README beside it) and prints one JSON object a line: one for each
repository, one pooled, and with `--weights` the table that `codespar.domain.risk` holds. `--mine DIR…` makes that file from git histories.

A repository's figures come from weights and thresholds that were fitted on the others alone: none of its changes was seen. What programs commit (dependency and
version bumps) is left out; `with_bots` has it in. Rows that are not reverted are a sample, and each stands for `weight` changes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "src"))

from benchmarks.review.logistic import auc, fit, interval, sigmoid
from benchmarks.review.risk_features import Row, mine
from codespar.domain.pathgroups import DEFAULT_GROUPS
from codespar.domain.risk import FEATURES, RiskRules

FILE = Path(__file__).resolve().parent.parent.parent / ".cache" / "review" / "risk.csv.gz"
SAMPLE = 2_000  # rows of a repository that were not reverted
FITTED_ON = 600  # of these, to fit on: more are slower and no better
ALLOWED = 1 / 200  # share of the approved changes that may be reverted
LOW_SHARE, HIGH_SHARE = 0.5, 0.1  # of the usual changes: where the thresholds are put
FITTED = [feature for feature in FEATURES if feature.source == "fitted"]
RULES = RiskRules()
GUARDED = [group.name for group in DEFAULT_GROUPS if group.floor.rank > 0]


@dataclass(frozen=True, slots=True)
class Sample:
    """One repository's rows."""

    name: str
    xs: list[list[float]]
    ys: list[bool]
    weights: list[float]
    bots: list[bool]
    years: list[int]
    sizes: list[float]
    floored: list[bool]  # at least medium by rule, whatever the score

    def only(self, keep: Sequence[bool]) -> Sample:
        columns = [[v for v, k in zip(column, keep, strict=True) if k] for column in self._columns()]
        return Sample(self.name, *columns)  # pyright: ignore[reportArgumentType]

    def _columns(self) -> list[list[Any]]:
        return [self.xs, self.ys, self.weights, self.bots, self.years, self.sizes, self.floored]


def read(path: Path = FILE) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    with gzip.open(path, "rt", newline="") as file:
        for line in csv.DictReader(file):
            name = line["repository"]
            measures = {key: float(value) for key, value in line.items() if key not in META}
            sample = found.setdefault(name, Sample(name, [], [], [], [], [], [], []))
            sample.xs.append([feature.value(measures) for feature in FITTED])
            sample.ys.append(line["reverted"] == "1")
            sample.weights.append(float(line["weight"]))
            sample.bots.append(line["bot"] == "1")
            sample.years.append(int(line["year"]))
            sample.sizes.append(measures["changed lines"])
            large = measures["changed lines"] >= RULES.large_lines or measures["files"] >= RULES.large_files
            sample.floored.append(large or any(measures[group] for group in GUARDED))
    return found


META = ("repository", "weight", "reverted", "bot", "year")


def write(histories: dict[str, list[Row]], path: Path = FILE) -> None:
    """The reverted rows and a sample of the others, as whole numbers."""
    names = [
        *(feature.name for feature in FITTED),
        "changed lines",
        "folders",
        "tests changed",
        "commits",
        *(group.name for group in DEFAULT_GROUPS),
    ]
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([*META, *names])
    dice = random.Random(7)
    for name, rows in sorted(histories.items()):
        others = [row for row in rows if not row.reverted]
        taken = dice.sample(others, min(SAMPLE, len(others)))
        for row, weight in [(row, 1.0) for row in rows if row.reverted] + [
            (row, len(others) / len(taken)) for row in taken
        ]:
            facts = [name, f"{weight:.6g}", int(row.reverted), int(row.bot), row.year]
            lines.writerow([*facts, *(round(row.measures[key]) for key in names)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(out.getvalue().encode(), 9, mtime=0))


def learn(samples: Sequence[Sample], start: Sequence[float] | None = None) -> list[float]:
    """Bias and weights, each repository counting the same, and in each the reverted changes as much as the others."""
    xs: list[list[float]] = []
    ys: list[bool] = []
    weights: list[float] = []
    for sample in samples:
        yes = sum(sample.ys)
        no = min(FITTED_ON, len(sample.ys) - yes)
        left = no
        for x, y in zip(sample.xs, sample.ys, strict=True):
            if y or left:
                left -= not y
                xs.append(x)
                ys.append(y)
                weights.append(0.5 / (yes if y else no) / len(samples))
    return fit(xs, ys, weights, [feature.sign for feature in FITTED], start=start)


def scored(weights: Sequence[float], sample: Sample) -> list[float]:
    bias, *rest = weights
    return [sigmoid(bias + sum(map(float.__mul__, rest, x))) for x in sample.xs]


def share_at(scores: Sequence[float], weights: Sequence[float], share: float) -> float:
    """The score below which that share of the changes lies."""
    left = share * sum(weights)
    for score, weight in sorted(zip(scores, weights, strict=True)):
        left -= weight
        if left <= 0:
            return score
    return 1.0


def approved(scores: Sequence[float], sample: Sample) -> tuple[float, float]:
    """The largest share of changes, those of lowest score first, of which at most 1 in 200 was reverted; and the score at which it ends."""
    total, seen, reverted, best = sum(sample.weights), 0.0, 0.0, (0.0, -1.0)
    rows = sorted(zip(scores, sample.ys, sample.weights, strict=True))
    for at, (score, y, weight) in enumerate(rows):
        seen, reverted = seen + weight, reverted + weight * y
        if (at + 1 == len(rows) or rows[at + 1][0] > score) and reverted <= ALLOWED * seen:
            best = seen / total, score
    return best


def in_year(scores: Sequence[float], sample: Sample) -> float:
    """The area among changes of one year, averaged by their pairs: how often a project reverts changes with time, and that is no merit of the score."""
    area = pairs = 0.0
    for year in set(sample.years):
        keep = [at for at, y in enumerate(sample.years) if y == year]
        ys, ws = [sample.ys[i] for i in keep], [sample.weights[i] for i in keep]
        count = sum(w for y, w in zip(ys, ws, strict=True) if y) * sum(
            w for y, w in zip(ys, ws, strict=True) if not y
        )
        if count:
            area, pairs = area + count * auc([scores[i] for i in keep], ys, ws), pairs + count
    return area / pairs if pairs else math.nan


def levels(
    scores: Sequence[float], sample: Sample, medium: float, high: float
) -> dict[str, dict[str, float]]:
    """For each level, its share of the changes and the share of it that was reverted. Guarded paths and what is too large are at least medium."""
    found = {level: [0.0, 0.0] for level in ("low", "medium", "high")}
    for score, y, weight, floored in zip(scores, sample.ys, sample.weights, sample.floored, strict=True):
        level = "high" if score >= high else "medium" if score >= medium or floored else "low"
        found[level][0] += weight
        found[level][1] += weight * y
    total = sum(sample.weights)
    return {
        level: {"changes": _round(n / total), "reverted": _round(y / n if n else 0)}
        for level, (n, y) in found.items()
    }


def figures(
    name: str, sample: Sample, scores: list[float], cuts: tuple[float, float, float], rounds: int = 200
) -> dict[str, Any]:
    medium, high, limit = cuts
    low, top = interval(scores, sample.ys, sample.weights, rounds)
    base = sum(w for w, y in zip(sample.weights, sample.ys, strict=True) if y) / sum(sample.weights)
    under = [(w, y) for w, y, s in zip(sample.weights, sample.ys, scores, strict=True) if s <= limit]
    weight = sum(w for w, _ in under)
    return {
        "repository": name,
        "changes": round(sum(sample.weights)),
        "reverted": sum(sample.ys),
        "base_rate": _round(base),
        "auc": _round(auc(scores, sample.ys, sample.weights)),
        "auc_95": [_round(low), _round(top)],
        "auc_same_year": _round(in_year(scores, sample)),
        "auc_size": _round(auc(sample.sizes, sample.ys, sample.weights)),
        "auto_approve": _round(approved(scores, sample)[0]),
        "auto_approve_size": _round(approved(sample.sizes, sample)[0]),
        "approved_at_others_limit": _round(weight / sum(sample.weights)),
        "reverted_of_these": _round(sum(w for w, y in under if y) / weight if weight else 0),
        "levels": levels(scores, sample, medium, high),
    }


def _round(number: float) -> float:
    return round(number, 4)


def pooled(samples: Sequence[Sample]) -> Sample:
    """All rows together, as if the repositories had equally many changes."""
    parts = [[w / sum(sample.weights) for w in sample.weights] for sample in samples]
    return Sample(
        "pooled",
        [x for sample in samples for x in sample.xs],
        [y for sample in samples for y in sample.ys],
        [w for part in parts for w in part],
        [b for sample in samples for b in sample.bots],
        [y for sample in samples for y in sample.years],
        [s for sample in samples for s in sample.sizes],
        [g for sample in samples for g in sample.floored],
    )


def thresholds(weights: Sequence[float], samples: Sequence[Sample]) -> tuple[float, float, float]:
    """The least scores of medium and high, and the score up to which at most 1 in 200 of these repositories' changes was reverted."""
    together = pooled(samples)
    scores = scored(weights, together)
    return (
        share_at(scores, together.weights, LOW_SHARE),
        share_at(scores, together.weights, 1 - HIGH_SHARE),
        approved(scores, together)[1],
    )


def evaluate(samples: dict[str, Sample]) -> list[dict[str, Any]]:
    people = {name: sample.only([not bot for bot in sample.bots]) for name, sample in samples.items()}
    everyone = learn(list(people.values()))
    rows: list[dict[str, Any]] = []
    held_out: list[float] = []
    for name, sample in people.items():
        others = [other for other in people.values() if other.name != name]
        weights = learn(others, start=everyone)
        scores = scored(weights, sample)
        held_out += scores
        row = figures(name, sample, scores, thresholds(weights, others))
        whole = samples[name]
        row["auc_with_bots"] = _round(auc(scored(weights, whole), whole.ys, whole.weights))
        rows.append(row)
    together = pooled(list(people.values()))
    total = figures("pooled", together, held_out, thresholds(everyone, list(people.values())), 60)
    del total["auc_same_year"]
    # the mean of what each repository got by thresholds from the others
    for key in ("approved_at_others_limit", "reverted_of_these"):
        total[key] = _round(statistics.mean(row[key] for row in rows))
    for level in total["levels"]:
        parts = [row["levels"][level] for row in rows]
        share = statistics.mean(part["changes"] for part in parts)
        reverted = (
            statistics.mean(part["changes"] * part["reverted"] for part in parts) / share if share else 0
        )
        total["levels"][level] = {"changes": _round(share), "reverted": _round(reverted)}
    total["changes"] = sum(row["changes"] for row in rows)
    for key in ("auc", "auc_same_year", "auc_size", "auc_with_bots"):
        total[f"mean_{key}"] = _round(statistics.mean(row[key] for row in rows))
    return [*rows, total]


def table(samples: dict[str, Sample]) -> dict[str, Any]:
    """The weights and thresholds as `codespar.domain.risk` holds them: fitted on all repositories."""
    people = [sample.only([not bot for bot in sample.bots]) for sample in samples.values()]
    weights = learn(people)
    medium, high, _ = thresholds(weights, people)
    found = {feature.name: round(weight, 3) for feature, weight in zip(FITTED, weights[1:], strict=True)}
    return {"bias": round(weights[0], 3), "weights": found, "medium": _round(medium), "high": _round(high)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.review.risk", description=__doc__)
    parser.add_argument(
        "--mine",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="git folders, each named owner+name or owner+name/…",
    )
    parser.add_argument("--file", type=Path, default=FILE, help="what is read, and what --mine writes")
    parser.add_argument("--weights", action="store_true", help="print the table of weights, fitted on all")
    given = parser.parse_args()
    if given.mine:
        histories: dict[str, list[Row]] = {}
        for folder in given.mine:
            name = next(
                (part for part in reversed(folder.resolve().parts) if "+" in part), folder.resolve().name
            )
            head, rows = mine(folder)
            histories[name.replace("+", "/")] = rows
            told = {"repository": name.replace("+", "/"), "head": head, "rows": len(rows)}
            print(json.dumps(told | {"reverted": sum(row.reverted for row in rows)}), flush=True)
        write(histories, given.file)
        return 0
    if not given.file.is_file():
        parser.error(
            f"{given.file} is not there: make it with --mine from clones of the repositories that the README names"
        )
    samples = read(given.file)
    for row in [table(samples)] if given.weights else evaluate(samples):
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
