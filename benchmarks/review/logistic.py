"""A logistic regression and the area under the curve, in plain Python: few enough rows that nothing more is needed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a system of linear equations, by Gaussian elimination with pivots."""
    n = len(right)
    rows = [[*matrix[i], right[i]] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(i + 1, n):
            if factor := rows[r][i] / rows[i][i]:
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    found = [0.0] * n
    for i in reversed(range(n)):
        found[i] = (rows[i][n] - sum(rows[i][j] * found[j] for j in range(i + 1, n))) / rows[i][i]
    return found


def fit(
    xs: Matrix,
    ys: Sequence[bool],
    weights: Sequence[float],
    signs: Sequence[int],
    *,
    ridge: float = 1e-3,
    start: Sequence[float] | None = None,
) -> list[float]:
    """The bias and one coefficient a column, by Newton's method (iteratively reweighted least squares) with a ridge penalty.

    `weights` should add up to 1. `signs` says for each column whether its coefficient must be positive (1), negative (-1) or may be either (0); of those that come
    out wrong the largest is left at 0 and the others are fitted again, until all are right.
    """
    width = len(signs)
    left_out: set[int] = set()
    found = list(start) if start is not None else [0.0] * (width + 1)
    while True:
        used = [i for i in range(width) if i not in left_out]
        found = _newton(xs, ys, weights, used, ridge, found)
        wrong = {i for i in used if signs[i] and found[i + 1] * signs[i] < 0}
        if not wrong:
            return found
        worst = max(wrong, key=lambda i: abs(found[i + 1]))
        left_out.add(worst)
        found[worst + 1] = 0.0


def _newton(
    xs: Matrix,
    ys: Sequence[bool],
    weights: Sequence[float],
    used: list[int],
    ridge: float,
    start: list[float],
) -> list[float]:
    found = list(start)
    n = len(used) + 1
    rows = [[1.0, *(x[i] for i in used)] for x in xs]
    places = [0, *(i + 1 for i in used)]
    for _ in range(20):
        beta = [found[p] for p in places]
        gradient = [-ridge * b if i else 0.0 for i, b in enumerate(beta)]
        hessian = [[ridge if i == j and i else 0.0 for j in range(n)] for i in range(n)]
        for row, y, weight in zip(rows, ys, weights, strict=True):
            p = sigmoid(sum(map(float.__mul__, row, beta)))
            slope, curve = weight * (y - p), weight * p * (1 - p)
            for i, x in enumerate(row):
                if x:
                    gradient[i] += slope * x
                    line, factor = hessian[i], curve * x
                    for j in range(i, n):
                        line[j] += factor * row[j]
        for i in range(n):
            for j in range(i):
                hessian[i][j] = hessian[j][i]
        step = solve(hessian, gradient)
        longest = max(map(abs, step))
        for place, change in zip(places, step, strict=True):
            found[place] += change / max(1.0, longest)  # a longer one can miss, and then miss by more
        if longest < 5e-3:
            break
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def auc(scores: Sequence[float], ys: Sequence[bool], weights: Sequence[float]) -> float:
    """The chance that a reverted change scores above another one (Mann and Whitney's U); a tie counts one half. NaN without both sorts."""
    below = wins = total = 0.0
    pairs = sorted(zip(scores, ys, weights, strict=True))
    at = 0
    while at < len(pairs):
        end, yes, no = at, 0.0, 0.0
        while end < len(pairs) and pairs[end][0] == pairs[at][0]:
            yes, no = yes + pairs[end][2] * pairs[end][1], no + pairs[end][2] * (not pairs[end][1])
            end += 1
        wins += yes * (below + no / 2)
        below, total, at = below + no, total + yes, end
    return wins / (below * total) if below and total else math.nan


def interval(
    scores: Sequence[float], ys: Sequence[bool], weights: Sequence[float], rounds: int = 200, seed: int = 7
) -> tuple[float, float]:
    """The 95 % interval of the area, by drawing the reverted and the other changes again, each with replacement (bootstrap percentiles)."""
    dice = random.Random(seed)
    rows = list(zip(scores, ys, weights, strict=True))
    yes, no = [row for row in rows if row[1]], [row for row in rows if not row[1]]
    found = sorted(
        auc(*zip(*(dice.choices(yes, k=len(yes)) + dice.choices(no, k=len(no))), strict=True))
        for _ in range(rounds)
    )
    return found[round(rounds * 0.025)], found[round(rounds * 0.975) - 1]
