"""How well the risk score separates changes that were later reverted from those that were not.

`python -m benchmarks.review.risk` reads `.cache/review/risk.csv.gz` (see the README beside it) and prints one JSON object a line: one for each
repository, one pooled, and with `--weights` the table that `codespar.domain.risk` holds. `--mine DIR…` makes that file from git histories.

A repository's figures come from weights and thresholds that were fitted on the others alone: none of its changes was seen. What programs commit (dependency and
version bumps) is left out; `with_bots` has it in. Rows that are not reverted are a sample, and each stands for `weight` changes. `shipped` has the levels that
the product's own weights and thresholds give, which were fitted on an earlier reading of these repositories: those are not out of sample.
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
from codespar.domain.risk import BIAS, FEATURES, RiskRules

FILE = Path(__file__).resolve().parent.parent.parent / ".cache" / "review" / "risk.csv.gz"
SAMPLE = 2_000  # rows of a repository that were not reverted
FITTED_ON = 600  # of these, to fit on: more are slower and no better
ALLOWED = 1 / 200  # share of the approved changes that may be reverted
LOW_SHARE, HIGH_SHARE = 0.5, 0.1  # of the usual changes: where the thresholds are put
FITTED = [feature for feature in FEATURES if feature.source == "fitted"]
RULES = RiskRules()
ROUNDS, CUTS = 500, 100  # of drawing repositories again, and the cuts that are tried
SHIPPED = [BIAS, *(feature.weight for feature in FITTED)]
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


def shares_at(scores: Sequence[float], weights: Sequence[float], shares: Sequence[float]) -> list[float]:
    """For each share, in rising order, the score below which that share of the changes lies."""
    total, seen, found = sum(weights), 0.0, list[float]()
    for score, weight in sorted(zip(scores, weights, strict=True)):
        seen += weight
        while len(found) < len(shares) and seen >= shares[len(found)] * total:
            found.append(score)
    return found + [1.0] * (len(shares) - len(found))


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
    name: str, sample: Sample, scores: list[float], cuts: tuple[float, float, float, float], rounds: int = 200
) -> dict[str, Any]:
    medium, high, limit, sure = cuts
    low, top = interval(scores, sample.ys, sample.weights, rounds)
    base = sum(w for w, y in zip(sample.weights, sample.ys, strict=True) if y) / sum(sample.weights)
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
        "under_others_limit": levels(scores, sample, limit, 1.0)["low"],
        "under_sure_limit": levels(scores, sample, sure, 1.0)["low"],
        "levels": levels(scores, sample, medium, high),
        "shipped": levels(scored(SHIPPED, sample), sample, RULES.medium, RULES.high),
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


def below(scores: Sequence[float], sample: Sample, cuts: Sequence[float]) -> list[tuple[float, float]]:
    """For each cut, in rising order, the share of the changes that are low there and the share of all that are low and were reverted."""
    total = sum(sample.weights)
    rows = sorted(
        (score, weight / total, y)
        for score, weight, y, floored in zip(scores, sample.weights, sample.ys, sample.floored, strict=True)
        if not floored
    )
    found: list[tuple[float, float]] = []
    at, share, reverted = 0, 0.0, 0.0
    for cut in cuts:
        while at < len(rows) and rows[at][0] < cut:
            share, reverted, at = share + rows[at][1], reverted + rows[at][1] * rows[at][2], at + 1
        found.append((share, reverted))
    return found


def limits(weights: Sequence[float], samples: Sequence[Sample]) -> tuple[float, float]:
    """Two scores, the largest of those tried below which at most 1 in 200 low changes was reverted: as it was in these repositories, each counting the
    same, and in 95 of 100 draws of as many of them with replacement. A new project is one more draw, so repositories are what is drawn, not changes
    (the cluster bootstrap of Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8)."""
    together = pooled(samples)
    scores = scored(weights, together)
    cuts = sorted(set(shares_at(scores, together.weights, [(at + 1) / CUTS for at in range(CUTS)])))
    each = [below(scored(weights, sample), sample, cuts) for sample in samples]
    dice = random.Random(7)
    draws = [dice.choices(range(len(each)), k=len(each)) for _ in range(ROUNDS)]
    plain = sure = 0.0
    for at, cut in enumerate(cuts):
        here = [one[at] for one in each]
        if sum(y for _, y in here) <= ALLOWED * sum(n for n, _ in here):
            plain = cut
        held = sum(sum(here[i][1] for i in draw) <= ALLOWED * sum(here[i][0] for i in draw) for draw in draws)
        if held >= 0.95 * ROUNDS:
            sure = cut
    return plain, sure


def thresholds(weights: Sequence[float], samples: Sequence[Sample]) -> tuple[float, float, float, float]:
    """The least scores of medium and high, and the `limits`."""
    together = pooled(samples)
    medium, high = shares_at(scored(weights, together), together.weights, (LOW_SHARE, 1 - HIGH_SHARE))
    return medium, high, *limits(weights, samples)


def together_of(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    share = statistics.mean(part["changes"] for part in parts)
    reverted = statistics.mean(part["changes"] * part["reverted"] for part in parts)
    return {"changes": _round(share), "reverted": _round(reverted / share if share else 0)}


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
    # what the repositories got by thresholds from the others, each counting the same
    for key in ("under_others_limit", "under_sure_limit"):
        total[key] = together_of([row[key] for row in rows])
    for key in ("levels", "shipped"):
        total[key] = {level: together_of([row[key][level] for row in rows]) for level in total[key]}
    total["changes"] = sum(row["changes"] for row in rows)
    for key in ("auc", "auc_same_year", "auc_size", "auc_with_bots"):
        total[f"mean_{key}"] = _round(statistics.mean(row[key] for row in rows))
    return [*rows, total]


def table(samples: dict[str, Sample]) -> dict[str, Any]:
    """The weights and thresholds as `codespar.domain.risk` holds them: fitted on all repositories."""
    people = [sample.only([not bot for bot in sample.bots]) for sample in samples.values()]
    weights = learn(people)
    medium, high, *_ = thresholds(weights, people)
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
