"""What becomes of findings: which are of this change, new, said once, said before; in which order and where they are shown.

Pure. Every rule takes findings and gives all of them back, those it decides on with a fate and the reason; a finding that has a fate is
not touched again. Nothing vanishes, and no wording of a finding decides more than whether two of them say the same.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from codespar.domain.diffs import Diff, FileDiff
from codespar.domain.placement import place
from codespar.domain.reviews import Category, Fate, Finding, ReviewRecord, ReviewState, Side

MOST_INLINE = 10
SIMILAR = 0.5  # of two titles' words that are the same
NEAR = 6  # lines: ranges up to here are about one place, so that one category is enough to call two findings the same
_FACTS = (Category.SECURITY, Category.SECRET, Category.DEPENDENCY)
_WORD = re.compile(r"[A-Za-z][a-z]+|[A-Z]+|[0-9]+|[^\W\d_]+")
_STOP = frozenset([
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "could", "does", "for", "from", "has",
    "have", "if", "in", "into", "is", "it", "its", "may", "might", "not", "of", "on", "or", "should", "so",
    "that", "the", "then", "there", "this", "to", "use", "used", "using", "was", "when", "will", "with", "would",
])  # fmt: skip


def _decided(finding: Finding, fate: Fate, reason: str) -> Finding:
    return finding.evolve(fate=fate, fate_reason=reason)


def on_changed_lines(findings: Sequence[Finding], diff: Diff) -> tuple[Finding, ...]:
    """An analyser's finding must touch a line that this change adds or removes; a model's, one that the diff shows."""
    return tuple(_of_change(finding, diff) if finding.fate is None else finding for finding in findings)


def _of_change(finding: Finding, diff: Diff) -> Finding:
    file = diff.at(finding.path, finding.side)
    if file is None:
        unread = ", or in a part of its diff that could not be read" if diff.problems else ""
        return _decided(finding, Fate.UNCHANGED, f"the file is not part of this change{unread}")
    if file.binary:
        return finding  # it has no lines, so none of them is known to be as before
    touched = range(finding.start_line, finding.end_line + 1)
    if finding.from_model:
        if any(_overlap(touched, hunk.extent(finding.side)) for hunk in file.hunks):
            return finding
        return _decided(finding, Fate.UNCHANGED, "its lines are not in the diff")
    if _touches(file.changed_lines(finding.side), touched):
        return finding
    return _decided(finding, Fate.UNCHANGED, "this change does not touch its lines")


def _overlap(one: range, other: range) -> int:
    """How many numbers are in both."""
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _touches(lines: frozenset[int], touched: range) -> bool:
    if len(touched) < len(lines):
        return any(line in lines for line in touched)
    return any(line in touched for line in lines)


def new_only(base: Sequence[Finding], head: Sequence[Finding], diff: Diff) -> tuple[Finding, ...]:
    """The head's findings; those that the base has too are NOT_NEW. `base` are an analyser's findings in the base commit's text.

    The same is: the same source, the same file (followed through renames), and the same line, as the diff maps it; or, for what is left
    then, the same text of its lines, each of the base's counted once. So code that only moved is not new, and a second copy of it is. What has
    a fate already keeps it and counts all the same: the base's finding on a line that did not change excuses no other.
    """
    exact: Counter[tuple[str, str, int]] = Counter()
    texts: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    loose: Counter[tuple[str, str, str]] = Counter()
    for finding in base:
        file = diff.at(finding.path, Side.OLD)
        path = file.path if file is not None else finding.path
        line = file.new_line(finding.start_line) if file is not None else finding.start_line
        if line is not None:
            exact[finding.source, path, line] += 1
            texts[finding.source, path, line].append(_lines_of(finding, diff, Side.OLD))
        else:
            loose[finding.source, path, _lines_of(finding, diff, Side.OLD)] += 1
    old: set[int] = set()
    for place_, finding in enumerate(head):
        key = (finding.source, finding.path, finding.start_line)
        if finding.side is Side.NEW and exact[key]:
            exact[key] -= 1
            texts[key].pop()
            old.add(place_)
    for (source, path, _), left in texts.items():
        for text in left:
            loose[source, path, text] += 1
    changed = {file.path: file.changed_lines(Side.NEW) for file in diff.files if file.new_path}
    ordered = sorted(range(len(head)), key=lambda at: head[at].start_line in changed.get(head[at].path, ()))
    for place_ in ordered:
        finding = head[place_]
        if finding.side is not Side.NEW or place_ in old:
            continue
        key = (finding.source, finding.path, _lines_of(finding, diff, Side.NEW))
        if key[2] and loose[key]:
            loose[key] -= 1
            old.add(place_)
    return tuple(
        _decided(finding, Fate.NOT_NEW, "the base has it too")
        if at in old and finding.fate is None
        else finding
        for at, finding in enumerate(head)
    )


def _lines_of(finding: Finding, diff: Diff, side: Side) -> str:
    """The text of its lines on that side. The first of several says too little: many a call begins alike."""
    if finding.end_line > finding.start_line and (file := diff.at(finding.path, side)) is not None:
        whole = file.text_between(finding.start_line, finding.end_line, side)
        if whole is not None:
            return _plain(whole)
    return _plain(finding.line_text)


def _plain(text: str) -> str:
    return " ".join(text.split())


@functools.lru_cache(maxsize=4096)
def _words(title: str) -> frozenset[str]:
    """A title's words without case, filler and a plural's s; names fall into their parts."""
    found = (word.lower() for word in _WORD.findall(title))
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in found if word not in _STOP)


def similar(one: str, other: str) -> bool:
    """Whether two titles say about the same: at least half of all their words (`SIMILAR`) are in both (Jaccard's index)."""
    first, second = _words(one), _words(other)
    if not first or not second:
        return _plain(one).lower() == _plain(other).lower()
    return len(first & second) >= SIMILAR * len(first | second)


def deduplicate(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Of findings that say the same of the same lines the weightiest stays, and the others name it.

    Two are compared where their lines overlap. From different sources they say the same when their titles are similar, or, where one of
    them is a model's and both are about the same few lines, when they have the same category. Two rules of one analyser are two things that
    are wrong, and so are two titles of one rule.
    """
    kept: dict[tuple[str, Side], list[Finding]] = defaultdict(list)
    result = list(findings)
    for at in sorted(
        (at for at, one in enumerate(findings) if one.fate is None), key=lambda at: _weight(findings[at])
    ):
        finding = findings[at]
        there = kept[finding.path, finding.side]
        twin = next(
            (
                other
                for other in there  # thousands may stand in one file, and few on the same lines
                if other.start_line <= finding.end_line
                and finding.start_line <= other.end_line
                and _same(finding, other)
            ),
            None,
        )
        if twin is None:
            there.append(finding)
        else:
            result[at] = _decided(
                finding, Fate.DUPLICATE, f"{twin.source} says it of line {twin.start_line}: {twin.title}"
            )
    return tuple(result)


def _weight(finding: Finding) -> tuple[object, ...]:
    """Sorts the weightiest first; wording only settles what is equal otherwise."""
    return (
        -finding.severity.rank,
        finding.from_model,
        finding.suggestion is None,
        not finding.failing_case,
        finding.path,
        finding.start_line,
        finding.source,
        finding.title,
    )


def _same(one: Finding, other: Finding) -> bool:
    lines, others = (range(each.start_line, each.end_line + 1) for each in (one, other))
    both = _overlap(lines, others)
    if not both:
        return False
    if _tool(one) == _tool(other) and not one.from_model:
        return one.source == other.source and _plain(one.title) == _plain(other.title)
    if similar(one.title, other.title):
        return True
    longer = max(len(lines), len(others))
    near = longer <= NEAR or 2 * both >= longer
    return (
        near
        and one.source != other.source
        and one.category is other.category
        and (one.from_model or other.from_model)
    )


def _tool(finding: Finding) -> str:
    return finding.source.partition(":")[0]


# ---- between the reviews of one pull request


def paired(ones: Sequence[Finding], others: Sequence[Finding]) -> dict[int, int]:
    """Which of `ones` are the same findings as which of `others`, by their places; each is paired once at most.

    By fingerprint, so that a line may have moved; what is left of a model's, also in other words of the same line and category.
    """
    known: dict[object, list[int]] = defaultdict(list)
    reworded: dict[object, list[int]] = defaultdict(list)
    for at, other in reversed(list(enumerate(others))):
        known[other.fingerprint].append(at)
        if other.from_model and other.line_text.strip():
            reworded[other.path, other.category, _plain(other.line_text)].append(at)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for at, one in enumerate(ones):
        if candidates := known.get(one.fingerprint):
            pairs[at] = candidates.pop()
            taken.add(pairs[at])
    for at, one in enumerate(ones):
        if at in pairs or not one.from_model:
            continue
        for candidate in reworded.get((one.path, one.category, _plain(one.line_text)), ()):
            if candidate not in taken and similar(one.title, others[candidate].title):
                pairs[at] = candidate
                taken.add(candidate)
                break
    return pairs


def spoke(record: ReviewRecord, source: str) -> bool:
    """Whether what made a finding of `source` ran in that review: only then does its silence mean that the finding is gone."""
    tool = source.partition(":")[0].lower()
    if tool == "model":
        return record.model is not None and not record.cut_short
    return any(re.split(r"[\s@:=/]", ran.lower(), maxsplit=1)[0] == tool for ran in record.analysers)


def standing(earlier: Iterable[ReviewRecord]) -> tuple[tuple[Finding, str], ...]:
    """What the posted reviews of a pull request have said and not seen gone since, with the id of the review that said it."""
    posted = sorted(
        (record for record in earlier if record.state is ReviewState.POSTED or record.posted is not None),
        key=lambda record: record.started_at,
    )
    said: list[tuple[Finding, str]] = []
    for record in posted:
        there = [one for one in record.findings if one.fate is not Fate.REFUTED]
        seen = paired([finding for finding, _ in said], there)
        said = [
            (_where_it_is(one, there[seen[at]]) if at in seen else one, id)
            for at, (one, id) in enumerate(said)
            if at in seen or not spoke(record, one.source)
        ]
        said += [(one, record.id) for one in record.findings if one.fate is not None and one.fate.shown]
    return tuple(said)


def _where_it_is(said: Finding, now: Finding) -> Finding:
    """What was said, on the lines where a later review found it again: what is pushed next is compared with that review's head."""
    return said.evolve(start_line=now.start_line, end_line=now.end_line)


def said_before(findings: Sequence[Finding], earlier: Iterable[ReviewRecord]) -> tuple[Finding, ...]:
    """Those that a posted review of this pull request has said, and that were not gone since, are SAID_BEFORE. Each counts once, and a model's as
    bad as it was said to be at its worst: what it reads may talk it into milder words, and not out of what people were told."""
    said = standing(earlier)
    open_ = [at for at, finding in enumerate(findings) if finding.fate is None]
    pairs = paired([findings[at] for at in open_], [finding for finding, _ in said])
    result = list(findings)
    for place_, which in pairs.items():
        at, (before, id) = open_[place_], said[which]
        result[at] = _decided(findings[at], Fate.SAID_BEFORE, f"{id} said it")
        if before.from_model and before.severity.rank > findings[at].severity.rank:
            result[at] = result[at].evolve(severity=before.severity)
    return tuple(result)


def overlooked(
    findings: Sequence[Finding],
    earlier: Sequence[ReviewRecord],
    diff: Diff,
    pushed: Diff | None = None,
    unlooked: Callable[[Finding], bool] = lambda finding: False,
) -> tuple[Finding, ...]:
    """What an earlier review said and this one does not, though nobody can tell that it is gone: it is SAID_BEFORE, and stands.

    A model's stands while its lines are as they were, also where the model takes it back now: it reads what the author of the change wrote. An
    analyser's stands where that one did not look at its file this time, as `unlooked` says. What is said now is in `findings`. `pushed` is as
    for `gone`, of which this is the other half.
    """
    said = [(one, id) for one, id in standing(earlier) if one.from_model or unlooked(one)]
    there = [one for one in findings if one.fate not in (Fate.REFUTED, Fate.DUPLICATE)]
    found = paired([one for one, _ in said], there)
    return tuple(
        _decided(
            _moved(one, diff, pushed),
            Fate.SAID_BEFORE,
            f"{id} said it, and its "
            + ("lines are as they were" if one.from_model else "file was not looked at this time"),
        )
        for at, (one, id) in enumerate(said)
        if at not in found and not (one.from_model and _changed_since(one, diff, pushed))
    )


def _moved(said: Finding, diff: Diff, pushed: Diff | None) -> Finding:
    """On the lines where it stands now, which did not change."""
    if said.side is Side.OLD:
        return said
    start: int | None = said.start_line
    if pushed is None:
        file, wanted = diff.at(said.path), _plain(said.line_text)
        lines = (line for hunk in file.hunks for line in hunk.walk()) if file is not None and wanted else ()
        same = (line.new for line in lines if line.new is not None and _plain(line.text) == wanted)
        start = min(same, key=lambda line: abs(line - said.start_line), default=start)
    elif (file := pushed.at(said.path, Side.OLD)) is not None:
        start = file.new_line(said.start_line)
    start = start or said.start_line
    return said.evolve(start_line=start, end_line=start + said.end_line - said.start_line)


def gone(
    earlier: Sequence[Finding],
    now: Sequence[Finding],
    diff: Diff,
    *,
    pushed: Diff | None = None,
    ran: Callable[[str], bool] = lambda source: True,
) -> tuple[Finding, ...]:
    """Those of the findings that earlier reviews showed which are to be resolved.

    An analyser's is gone when it is not found any more. A model may overlook what it saw before, so its finding is gone only when its
    lines changed as well: `pushed`, the diff from the head that was reviewed then to the one now, touches them; where that is not known,
    `diff`, the pull request's own, no longer shows the line's text in its file. `ran` says whether a source ran this time: its silence
    means nothing otherwise. A file that this change touches no more has nothing left of it.
    """
    shown = [one for one in earlier if one.fate is not None and one.fate.shown]
    found = paired(shown, [one for one in now if one.fate is not Fate.REFUTED])
    return tuple(
        finding
        for at, finding in enumerate(shown)
        if at not in found
        and ((ran(finding.source) and not finding.from_model) or _changed_since(finding, diff, pushed))
    )


def _changed_since(finding: Finding, diff: Diff, pushed: Diff | None) -> bool:
    if pushed is not None and finding.side is Side.NEW:
        file = pushed.at(finding.path, Side.OLD)
        return file is not None and _disturbed(file, finding.start_line, finding.end_line)
    if diff.problems:
        return False
    file = diff.at(finding.path, finding.side)
    if file is None:
        return True
    wanted = _plain(finding.line_text)
    kinds = " +" if finding.side is Side.NEW else "-"
    lines = (line for hunk in file.hunks for line in hunk.walk() if line.kind in kinds)
    return bool(wanted) and not any(_plain(line.text) == wanted for line in lines)


def _disturbed(file: FileDiff, start: int, end: int) -> bool:
    """Whether a diff changes one of these old lines, or puts something between them."""
    if _touches(file.changed_lines(Side.OLD), range(start, end + 1)):
        return True
    first, last = file.new_line(start), file.new_line(end)
    return first is None or last is None or last - first != end - start


# ---- what is shown


def rank_and_cap(findings: Sequence[Finding], diff: Diff, most: int = MOST_INLINE) -> tuple[Finding, ...]:
    """Every finding with a fate: the first `most` that the platform can hold are INLINE, what it cannot hold is SUMMARY, the rest FOLDED.

    The order is by severity, then by how sure the source is (an analyser on security, any analyser, a model), then by position. Those that
    are shown come first, in that order; the others follow as they came.
    """
    open_ = sorted((one for one in findings if one.fate is None), key=_order)
    shown: list[Finding] = []
    inline = 0
    for finding in open_:
        where = place(finding, diff)
        if not where.inline:
            shown.append(_decided(finding, Fate.SUMMARY, where.reason))
        elif inline < most:
            inline += 1
            on = f"stands on {where.path}:{where.line}"
            shown.append(_decided(finding, Fate.INLINE, f"{on}; {where.reason}" if where.reason else on))
        else:
            shown.append(_decided(finding, Fate.FOLDED, f"beyond the {most} that are shown on their lines"))
    return (*shown, *(one for one in findings if one.fate is not None))


def _order(finding: Finding) -> tuple[object, ...]:
    sure = 2 if finding.from_model else int(finding.category not in _FACTS)
    return (
        -finding.severity.rank,
        sure,
        finding.path,
        finding.start_line,
        finding.end_line,
        finding.source,
        finding.title,
    )
