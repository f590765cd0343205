"""A review as Markdown for a code host: the summary and the body of each inline comment.

Everything that comes from a change, an analyser or a model is data here. In the text it can neither make HTML nor a link, call a person,
refer to an issue, open a suggestion, nor end the frame around it; control characters are shown as U+FFFD. Every text has an end: what does
not fit is counted and said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import quote, urlsplit

from codespar.domain.diffs import Diff
from codespar.domain.placement import Placement
from codespar.domain.reviews import Fate, Finding, Gate, ReviewRecord, ReviewVerdict, Severity, Side

MOST_CHARACTERS = 65_536  # of one body, at GitHub
NO_MODEL = "no model review"
MOST_LISTED = 20  # gates, problems and such
_LONG, _SHORT = 4_000, 600  # characters of a text by others
_LIST = 5_000  # characters of a list
_NOTE_SPACE = 400  # for the words that say what was cut
_MARKS = {
    Severity.CRITICAL: "🛑 Critical",
    Severity.HIGH: "🔴 High",
    Severity.MEDIUM: "🟠 Medium",
    Severity.LOW: "🟡 Low",
    Severity.INFO: "🔵 Info",
}
_VERDICTS = {
    ReviewVerdict.APPROVE: "✅ **Approved**",
    ReviewVerdict.REQUEST_CHANGES: "❌ **Changes requested**",
    ReviewVerdict.COMMENT: "🔍 **Reviewed, without an approval**",
}
_UNSHOWN = {
    Fate.UNCHANGED: "not on lines of this change",
    Fate.NOT_NEW: "in the base too",
    Fate.DUPLICATE: "said by another finding",
    Fate.REFUTED: "refuted on a second look",
    Fate.SAID_BEFORE: "said in an earlier review",
    Fate.OVERRULED: "left out by the repository's rules",
}
_APART = "\u200b"  # keeps a sign from the name behind it
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SPAN = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]{1,300})(?<!`)\1(?!`)")
_FENCE = re.compile(r" {0,3}(?:`{3,}|~{3,})\s*([\w+-]{0,20})")
_ESCAPES = str.maketrans(
    {sign: f"\\{sign}" for sign in r"\*_[]~|$"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "`": "&#96;", "@": f"@{_APART}", "#": f"#{_APART}"}
)
_LINKED = re.compile(
    r"(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=\bgh)(?=-[0-9])|(?<=\bmailto)(?=:)|(?<=\bxmpp)(?=:)", re.IGNORECASE
)
_BLOCK = re.compile(r"(?m)^[ \t]*(?:([-+=])|([0-9]{1,9})([.)]))")


# ---- texts by others


def _clean(text: str) -> str:
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _plain(text: str) -> str:
    """Text in which no sign means anything to Markdown or the host."""
    apart = _LINKED.sub(_APART, text)
    escaped = apart.translate(_ESCAPES)
    return _BLOCK.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", escaped)


def code(text: str, most: int = _SHORT) -> str:
    """A code span that shows the text whatever stands in it."""
    line = " ".join(_clipped(_clean(text), most).split())
    if not line:
        return ""
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def inline(text: str, most: int = _SHORT) -> str:
    """One line of prose; its code spans stay code."""
    line = " ".join(_clipped(_clean(text), most).split())
    parts: list[str] = []
    place = 0
    for found in _SPAN.finditer(line):
        parts += [_plain(line[place : found.start()]), code(found[2])]
        place = found.end()
    return "".join([*parts, _plain(line[place:])])


def fenced(text: str, language: str = "", most: int = _LONG) -> str:
    """A code block that shows the text whatever stands in it. Clipped to `most` characters."""
    shown = _clipped(_clean(text).strip("\n"), most)
    ticks = "`" * max(3, _longest_run(shown) + 1)
    return f"{ticks}{language}\n{shown}\n{ticks}"


def prose(text: str, most: int = _LONG) -> str:
    """Paragraphs and code blocks. Code blocks are closed where they were not, and never are suggestions."""
    blocks: list[str] = []
    lines: list[str] = []  # of the paragraph or the code block that is being read
    language = mark = ""  # `mark`: the sign that fences a code block; empty outside of one

    def close() -> None:
        if mark:
            blocks.append(fenced("\n".join(lines), language, most))
        elif lines:
            blocks.append("\n".join(inline(line, most) for line in lines))
        lines.clear()

    for line in _clipped(_clean(text).strip(), most).split("\n"):
        fence = _FENCE.match(line)
        if mark and not (fence and not line.strip().strip(mark)):
            lines.append(line)
        elif mark or fence:
            close()
            language = "" if mark or not fence or fence[1].lower() == "suggestion" else fence[1]
            mark = "" if mark else line.strip()[0]
        elif line.strip():
            lines.append(line)
        else:
            close()
    close()
    return "\n\n".join(blocks)


# ---- one finding


def inline_body(finding: Finding, placement: Placement) -> str:
    """The Markdown of the comment on a finding's lines, with the suggestion that `placement` leaves it."""
    parts = [f"**{_MARKS[finding.severity]}** · {finding.category.value}: **{inline(finding.title)}**"]
    if finding.why.strip():
        parts.append(prose(finding.why))
    parts += _failing(finding)
    if placement.suggestion is not None:
        ticks = "`" * max(3, _longest_run(placement.suggestion) + 1)
        if len(placement.suggestion) <= MOST_CHARACTERS // 2:
            parts.append(f"{ticks}suggestion\n{placement.suggestion}{ticks}")
        else:
            parts.append("_The suggestion is too long to be shown here._")
    source = f"Source: {code(finding.source)}"
    parts.append(f"{source} · {_plain(_clean(placement.reason))}" if placement.reason else source)
    return "\n\n".join(parts)


def _failing(finding: Finding) -> list[str]:
    if not finding.failing_case.strip():
        return []
    return [f"**Failing case**\n\n{fenced(finding.failing_case, most=_LONG // 2)}"]


def _where(finding: Finding, link: Callable[[str, int], str]) -> str:
    lines = (
        f"{finding.start_line}"
        if finding.start_line == finding.end_line
        else f"{finding.start_line}–{finding.end_line}"
    )
    if finding.side is Side.OLD:
        return f"{code(finding.path)} line {lines} of the old text"
    shown = f"{code(finding.path)} line {lines}"
    url = _url(link(finding.path, finding.start_line))
    return f"[{shown}](<{url}>)" if url else shown


def _url(url: str) -> str:
    """The address as it may stand in a link, or nothing where it is none of the web's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return ""
    return quote(url, safe="%/:?#@!$&*+,;=~-._", errors="replace")


def _listed(finding: Finding, link: Callable[[str, int], str]) -> str:
    """A finding in one line of a list."""
    mark = f"**{_MARKS[finding.severity]}** · {finding.category.value}: {inline(finding.title)}"
    return f"- {mark} · {_where(finding, link)} · {code(finding.source)}"


def _told(finding: Finding, link: Callable[[str, int], str]) -> str:
    """A finding in full, where it cannot stand on its lines."""
    parts = [_listed(finding, link)]
    parts += [prose(finding.why)] if finding.why.strip() else []
    parts += _failing(finding)
    if finding.suggestion:
        parts.append(f"**Suggested**\n\n{fenced(finding.suggestion)}")
    if finding.fate_reason:
        parts.append(f"Not on its lines: {_plain(_clean(finding.fate_reason))}")
    body = "\n\n".join(parts[1:])
    return parts[0] + (
        "\n\n" + "\n".join(f"  {line}" if line else "" for line in body.split("\n")) if body else ""
    )


# ---- the whole review


def summary(
    record: ReviewRecord,
    link: Callable[[str, int], str],
    *,
    changed: Diff | None = None,
    unavailable: Sequence[str] = (),
    resolved: int = 0,
    most: int = MOST_CHARACTERS,
) -> str:
    """The body of a review in at most `most` characters.

    `link` gives the web address of a line of the head commit, or an empty text. `changed` is the pull request's diff, for what changed in
    numbers; `unavailable` are the analysers that could not run, with the reason; `resolved` is how many earlier findings are gone.
    """
    head = _head(record, changed, unavailable, resolved)
    shown = [finding for finding in record.findings if finding.fate is not None and finding.fate.shown]
    by_fate = {
        fate: [one for one in shown if one.fate is fate] for fate in (Fate.SUMMARY, Fate.INLINE, Fate.FOLDED)
    }
    text, dropped = _filled("", "", [partial(str, f"{part}\n") for part in head], "", most)
    text, cut = text.strip("\n"), 0
    for fate, title, tell in (
        (Fate.INLINE, "On their lines", _listed),
        (Fate.SUMMARY, "Not on a line of the diff", _told),
    ):
        text, missing = _filled(
            text, f"\n\n### {title}\n", [partial(tell, one, link) for one in by_fate[fate]], "", most
        )
        cut += missing
    folded = by_fate[Fate.FOLDED]
    opening = f"\n\n<details>\n<summary>{len(folded)} more</summary>\n"
    text, missing = _filled(
        text, opening, [partial(_listed, one, link) for one in folded], "\n\n</details>", most
    )
    cut += missing
    if dropped:
        text += f"\n\n✂️ {dropped} parts of the summary did not fit."
    if cut:
        text += f"\n\n✂️ {cut} findings are not shown here: the text would be longer than {most:,} characters. All are kept in the review {code(record.id)}."
    return text


def _filled(
    text: str, opening: str, items: Sequence[Callable[[], str]], closing: str, most: int
) -> tuple[str, int]:
    """The text with as many whole items as fit, and how many did not."""
    pieces: list[str] = []
    room = most - _NOTE_SPACE - len(text) - len(opening) - len(closing)
    for item in items:
        piece = f"\n{item()}"
        if len(piece) > room:
            break
        pieces.append(piece)
        room -= len(piece)
    cut = len(items) - len(pieces)
    if not pieces:
        return text, cut
    return f"{text}{opening}{''.join(pieces)}{closing}", cut


def _head(record: ReviewRecord, changed: Diff | None, unavailable: Sequence[str], resolved: int) -> list[str]:
    """The parts that are always there: verdict, what changed, risk, gates, what was found, who looked, and what could not be done."""
    counts = Counter(finding.fate for finding in record.findings)
    shown = [finding for finding in record.findings if finding.fate is not None and finding.fate.shown]
    parts = [
        f"{_VERDICTS[record.verdict or ReviewVerdict.COMMENT]} · {code(record.id)} · commit {code(record.head_commit[:12])}"
    ]
    if changed is not None:
        files = f"{len(changed.files):,} {'file' if len(changed.files) == 1 else 'files'}"
        parts.append(
            f"Changed: {files}, +{changed.additions:,} −{changed.deletions:,}{_most_changed(changed)}"
        )
    if record.risk is not None:
        parts.append(f"**Risk: {record.risk.level.value}**{_bullets(record.risk.reasons)}")
    failed = [gate for gate in record.gates if not gate.passed]
    if failed and record.verdict is not ReviewVerdict.APPROVE:
        parts.append(f"Not approved because{_bullets([_gate(gate) for gate in failed])}")
    parts.append(_found(shown, counts, resolved))
    parts += _open(record)
    looked = [code(analyser, 100) for analyser in record.analysers[:MOST_LISTED]]
    parts.append(f"Analysers: {', '.join(looked) if looked else 'none ran'}")
    if unavailable:
        parts.append(f"Could not run{_bullets(unavailable)}")
    parts.append(f"Model: {code(record.model, 100)}" if record.model else f"Model: {NO_MODEL}")
    if record.cut_short:
        parts.append(f"⚠️ The model's review was cut short: {inline(record.cut_short)}")
    if record.problems:
        parts.append(f"⚠️ Could not be done{_bullets(record.problems)}")
    return parts


def _bullets(lines: Sequence[str]) -> str:
    """A list that never grows beyond `_LIST` characters, however much its texts grow when they are made harmless."""
    listed: list[str] = []
    for line in lines[:MOST_LISTED]:
        item = f"- {inline(line)}"
        if listed and sum(map(len, listed)) + len(item) > _LIST:
            break
        listed.append(item)
    if len(lines) > len(listed):
        listed.append(f"- and {len(lines) - len(listed)} more")
    return "".join(["\n", *(f"\n{line}" for line in listed)]) if listed else ""


def _gate(gate: Gate) -> str:
    return f"{gate.name}: {gate.reason}"


def _most_changed(diff: Diff) -> str:
    """The files with the most changed lines, by name."""
    top = sorted(diff.files, key=lambda file: (-(file.additions + file.deletions), file.path))[:5]
    listed = [
        f"{code(file.path, 200)} ({file.status.value}, +{file.additions:,} −{file.deletions:,})"
        for file in top
    ]
    return "".join(["\n", *(f"\n- {line}" for line in listed)]) + (
        f"\n- and {len(diff.files) - 5:,} more" if len(diff.files) > 5 else ""
    )


def _open(record: ReviewRecord) -> list[str]:
    """What earlier reviews said and still holds the pull request up, and how it is settled: no model takes it back."""
    said = [
        one for one in record.findings if one.fate is Fate.SAID_BEFORE and one.severity is not Severity.INFO
    ]
    if not said:
        return []
    lines = [
        f"{_MARKS[one.severity]} · `{one.path}` line {one.start_line}: {one.title}"
        for one in sorted(said, key=lambda one: -one.severity.rank)
    ]
    how = "Settled by a change of their lines. Where another change has settled one, a person who may approve says so: "
    return [
        f"**Still open from earlier reviews**{_bullets(lines)}\n\n{how}{code(f'approve PR #{record.number}')}"
    ]


def _found(shown: Sequence[Finding], counts: Counter[Fate | None], resolved: int) -> str:
    """How much was found, where it is shown, and why the rest is not."""
    if shown:
        by = Counter(finding.severity for finding in shown)
        worst = ", ".join(
            f"{by[severity]} {severity.value}" for severity in reversed(Severity) if by[severity]
        )
        text = f"**Found {len(shown)}**: {worst}"
    else:
        text = "**Found nothing to say**"
    hidden = [f"{counts[fate]} {why}" for fate, why in _UNSHOWN.items() if counts[fate]]
    text += f"\n\nNot shown: {', '.join(hidden)}" if hidden else ""
    return text + (f"\n\nResolved since the last review: {resolved}" if resolved else "")
