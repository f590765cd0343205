"""The first error of a build's log, with the lines around it: what people are shown, and what a fix starts from.

A log comes in pieces, cut anywhere, and may have hundreds of megabytes: it is read once, in blocks, and only a few lines of it are ever kept.
What is found does not depend on where the pieces were cut. How much of it is looked at closely is bounded for the log as a whole, so that
none, however it was made, costs minutes. Nothing in a log is an instruction, and none of it is screened here: it may hold secrets, so
whoever shows or keeps the lines has them screened first.
"""

from __future__ import annotations

import copy
import heapq
import re
from collections import deque
from dataclasses import dataclass, field

from codespar.domain.logerrors import LITERALS, PASSING, Telling, is_heading, telling

WIDEST = 300  # characters of a line that is shown
_BLOCK = 16 * 1024  # bytes that are read at once
_HELD = 1500  # bytes of a line that are looked at
_TAIL = 48  # lines of the running step that are kept
_BEFORE, _FAR_BEFORE = 5, 12  # lines above the error; of which the farther ones only from a heading on
_LISTENED = 100  # lines below an error that are looked at for some that say something
_WORK = 24 * 1024**2  # what is looked at closely in a log, in bytes: about 10 seconds of processor time
_EACH = 64  # bytes that a line counts besides its own: also a short one costs time
_FRAMES = 10  # lines of a traceback that are kept

# In lower case: lines with these begin or end a step.
_MARKS = (b"##[", b"section_", b"[pipeline] {", b"post job cleanup")
_ALL = (*_MARKS, *LITERALS)
# What a test that passed says: it is not worth the time to look at such a line closely. `telling` has it alike.
_PASSING = tuple(mark.encode() for mark in PASSING)
_NOT_PASSING = (b"E  ", b"##[", b"section_", b"[Pipeline]", b"Post job", b"::error")

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_ANSI_BYTES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u200b\u2028-\u202e\u2066-\u2069]")
_TIME = re.compile(
    r"\[?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)\]? ?(?:[0-9a-f]{2}[OE][+ ]?)?"
)
_DOCKER = re.compile(r"#\d+ \d+\.\d+ ")  # BuildKit's step and seconds
_SECTION = re.compile(rb"(?<![^\nK\r])(section_(?:start|end):\d+:[^\r\n]{1,200}+)\r\x1b\[0K")
_BEGINS = re.compile(
    r"##\[group\](?P<run>Run .*)|##\[section\]Starting: (?P<azure>.*)|section_start:\d+:(?P<gitlab>[^\[\]]*)"
    r"|\[Pipeline\] \{ \((?P<jenkins>.*)\)|(?P<post>Post job cleanup\.?)$"
)
_ENDS = re.compile(
    r"##\[error\](?:Process completed with exit code|(?:Bash|PowerShell|Script|Cmd\.exe) exited with code|The operation was canceled"
    r"|The job .*exceeded the maximum execution time|The action .* has timed out)"
)
_SECTION_ENDS = re.compile(r"##\[section\]Finishing: |section_end:")
_ANNOTATION = re.compile(r"(?:##\[error\]|::error(?P<where> [^:]*(?::(?!:)[^:]*)*)?::)(?P<text>.*)")
_WHERE = re.compile(r"\b(file|line)=([^,:]+)")
_QUIET = re.compile(r"##\[(?:debug|endgroup|command|warning|notice)\]")
_GROUP = re.compile(r"##\[(?:group|section)\]|::group::")


class Excerpt:
    """Reads a job's log and keeps the first error of the step that failed. `step`: the name or command of that step, where it is known;
    `most`: the lines that are given at most. `work`: how much of the log is looked at closely, in bytes; one step gets three quarters of
    what those before it left. Without any left only the log's last lines are kept."""

    def __init__(self, step: str = "", most: int = 25, *, work: int = _WORK) -> None:
        self._wanted = _plain_name(step)
        self._most = max(1, most)
        self._waiting: list[bytes] = []  # pieces that make no block yet
        self._size = 0
        self._rest = b""  # the line that has not ended
        self._block = b""
        self._floor = 0  # where the step begins in the block
        self._tail: list[bytes] = []  # the step's last lines before the block
        self._left = work
        self._step = _Step(reserve=work // 4)
        self._best: _Step | None = None

    def feed(self, piece: bytes) -> None:
        """The next bytes of the log."""
        for start in range(0, len(piece), _BLOCK):
            part = piece[start : start + _BLOCK]
            self._waiting.append(part)
            self._size += len(part)
            if self._size >= _BLOCK:
                self._read()
            elif len(self._waiting) >= 512:  # a list of single bytes would be larger than they are
                self._waiting = [b"".join(self._waiting)]

    def lines(self) -> tuple[str, ...]:
        """The first error and the lines around it, each at most `WIDEST` characters; without any, the last lines of the step that failed.
        More may be fed afterwards."""
        done = copy.deepcopy(self)
        done._read()
        if done._rest:
            done._lines_of(done._rest + b"\n")
            done._rest = b""
        done._end_step()
        return done._best.shown(done._most) if done._best else ()

    # lines out of bytes

    def _read(self) -> None:
        data = b"".join((self._rest, *self._waiting))
        self._waiting, self._size = [], 0
        if self._left > 0 and b"section_" in data:
            data = _SECTION.sub(rb"\1\n", data)  # else the mark would be overwritten by what follows it
        end = data.rfind(b"\n") + 1
        self._rest = data[end:] if len(data) - end < 4 * _HELD else _shortened(data[end:])
        if end:
            self._lines_of(data[:end])

    def _lines_of(self, block: bytes) -> None:
        """Look at the lines of a block that can matter: those with one of the literals, and those below an error."""
        self._block, self._floor = block, 0
        low = block.lower()
        hits: list[tuple[int, bytes]] = []  # a heap: where each literal stands next
        sought: tuple[bytes, ...] = ()
        place, end = 0, len(block)
        while place < end and self._left > 0:
            step, start = self._step, place
            used = self._left < step.reserve
            likely = used or not step.listening
            if likely:
                wanted = _MARKS if used or step.settled else _ALL
                if wanted is not sought:
                    sought = wanted
                    hits = [(at, literal) for literal in wanted if (at := low.find(literal, place)) >= 0]
                    heapq.heapify(hits)
                while hits and hits[0][0] < place:
                    literal = hits[0][1]
                    at = low.find(literal, place)
                    if at < 0:
                        heapq.heappop(hits)
                    else:
                        heapq.heapreplace(hits, (at, literal))
                if not hits:
                    break
                start = max(place, block.rfind(b"\n", place, hits[0][0]) + 1)
            place = block.find(b"\n", start) + 1
            raw = block[start : place - 1]
            if likely and len(raw) <= _HELD and b"\r" not in raw:
                self._line(raw, start, place, likely=True)
            else:
                self._line(_held(raw), start, place)
        self._keep_tail()

    def _keep_tail(self) -> None:
        block = self._block[self._floor : -1] if self._floor < len(self._block) else b""
        if block:
            self._tail = [*self._tail, *map(_held, block.rsplit(b"\n", _TAIL)[-_TAIL:])][-_TAIL:]
        self._block, self._floor = b"", 0

    def _above(self, start: int, count: int) -> list[str]:
        """The step's lines above a place of the block."""
        lines: list[bytes] = []
        if start > self._floor:
            lines = self._block[self._floor : start - 1].rsplit(b"\n", count)[-count:]
        if len(lines) < count:
            lines = [*self._tail[len(lines) - count :], *lines]
        held = [_held(line) for line in lines]
        self._left -= sum(map(len, held)) + _EACH * len(held)
        return [_clean(line) for line in held]

    # what a line means

    def _line(self, raw: bytes, start: int, end: int, likely: bool = False) -> None:
        """Take a line up. `likely`: it holds a literal, and nothing listens to what it says else."""
        step = self._step
        self._left -= _EACH + len(raw)
        if not likely and not _has_literal(raw):
            step.hear(_clean(raw))
            return
        if likely and any(mark in raw for mark in _PASSING) and not any(mark in raw for mark in _NOT_PASSING):
            return
        text = _clean(raw)
        if begins := _BEGINS.match(text):
            self._end_step(start)
            name = next(value for value in begins.groups() if value is not None)
            self._begin_step(name, end, quiet=begins["run"] is not None)
            return
        if _SECTION_ENDS.match(text):
            self._end_step(start)
            self._begin_step("", end)
            return
        if step.quiet:  # the step's own text and inputs are shown first, and are no output
            step.quiet = not text.startswith("##[endgroup]")
            if not step.quiet:
                self._floor, self._tail = end, []
            return
        if _ENDS.match(text):
            step.failed = 2
            step.hear(text)
            self._end_step(end)
            self._begin_step("", end)
            return
        annotation = _ANNOTATION.match(text)
        if annotation:
            text = _shown_annotation(annotation)
            step.failed = max(step.failed, 1)
        step.hear(text)
        if step.settled or _QUIET.match(text):
            return
        told = max(telling(text, step.told), Telling.NAMES if annotation else Telling.NOTHING)
        if told > step.told:
            step.found(told, text, self._above(start, _FAR_BEFORE), self._most)

    def _begin_step(self, name: str, floor: int, quiet: bool = False) -> None:
        plain = _plain_name(name)
        self._step = _Step(self._left // 4, wanted=bool(plain) and plain == self._wanted, quiet=quiet)
        self._floor, self._tail = floor, []

    def _end_step(self, end: int | None = None) -> None:
        """The step is over at this place of the block: it is kept if it tells more of the failure than those before it."""
        step = self._step
        if step.told is Telling.NOTHING:
            # the outcome's own line is among the last ones
            step.tail = self._above(len(self._block) if end is None else end, _TAIL)
            if not any(line.strip() for line in step.tail):
                step.tail = []
        best = self._best
        if not (step.tail or step.told or step.failed):
            return
        if best is None or step.rank() > best.rank() or (step.says_little and step.rank() == best.rank()):
            self._best = step


@dataclass
class _Step:
    """A step of the log, as far as it was read."""

    reserve: int  # of the work that was left, what is kept for the steps after it
    wanted: bool = False  # it is the one that was asked for
    quiet: bool = False  # its own text is being shown
    failed: int = 0  # 2: its end says so; 1: something in it does
    told: Telling = Telling.NOTHING
    errors: list[_Error] = field(default_factory=list["_Error"])
    tail: list[str] = field(default_factory=list[str])

    @property
    def settled(self) -> bool:
        """Nothing in the rest of it can be more telling."""
        return self.told is Telling.CAUSE and not self.listening

    @property
    def listening(self) -> bool:
        return any(error.room > 0 for error in self.errors)

    @property
    def says_little(self) -> bool:
        return not self.told and not self.failed and bool(self.tail)

    def rank(self) -> tuple[bool, int, int]:
        """Which step is more likely the one that failed. Of those that say so themselves the first is."""
        sure = self.wanted and (self.failed > 0 or self.told >= Telling.NAMES)
        return sure, self.failed, 0 if self.failed else int(self.told) * 2 + self.wanted

    def hear(self, text: str) -> None:
        """A line that may stand below an error."""
        for error in self.errors:
            if error.room > 0:
                error.hear(text)

    def found(self, told: Telling, text: str, above: list[str], most: int) -> None:
        self.told = told
        self.errors.append(_Error(text, above, most))

    def shown(self, most: int) -> tuple[str, ...]:
        if self.errors:
            return _shown(self.errors[-1].lines(), most)
        return _shown(self.tail[-_TAIL:], most, last=True)


class _Error:
    """An error and the lines around it, as they come."""

    def __init__(self, text: str, above: list[str], most: int) -> None:
        heading = next((place for place in range(len(above) - 1, -1, -1) if is_heading(above[place])), None)
        first = len(above) - _BEFORE if heading is None else min(heading, len(above) - 1)
        kept = _useful(above[max(0, first) :])
        self.above = kept[len(kept) - min(len(kept), max(0, (most - 1) // 2)) :]
        self.text = text
        self.column = text.find("Traceback (most recent call last):")  # -1: it is none, or its end was heard
        self.frames: deque[str] = deque(maxlen=_FRAMES)
        self.missing = 0  # frames that were dropped
        self.below: list[str] = []
        self.heard = 0
        self.room = most - 1 - len(self.above)

    def hear(self, text: str) -> None:
        if self.column >= 0:
            if not text.strip() or text[self.column : self.column + 1].isspace():
                self.missing += len(self.frames) == _FRAMES
                self.frames.append(text)
                return
            self.column = -1
            kept = list(self.frames)[-max(0, min(_FRAMES, self.room - 2)) :] if self.room > 2 else []
            self.below = [*(["  ..."] if self.missing and kept else []), *kept]
            self.room = max(1, self.room - len(self.below))
        self.heard += 1
        if text.strip() and (not self.below or text != self.below[-1]):
            self.below.append(text)
            self.room -= 1
        if self.heard > _LISTENED:
            self.room = 0

    def lines(self) -> list[str]:
        unfinished = list(self.frames) if self.column >= 0 else []
        return [*self.above, self.text, *self.below, *unfinished]


def _shown(lines: list[str], most: int, last: bool = False) -> tuple[str, ...]:
    """The lines as people see them: no repeats, none too long, not too many."""
    kept: dict[str, None] = {}
    shown: list[str] = []
    for line in _useful(lines):
        cut = line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"
        if (len(cut) >= 20 and cut in kept) or (shown and shown[-1] == cut):
            continue
        kept[cut] = None
        shown.append(cut)
    return tuple(shown[-most:] if last else shown[:most])


def _useful(lines: list[str]) -> list[str]:
    """The lines that hold something, without the marks of their host."""
    found: list[str] = []
    for line in lines:
        if _QUIET.match(line) or not line.strip():
            continue
        text = _GROUP.sub("", line, count=1)
        if annotation := _ANNOTATION.match(text):
            text = _shown_annotation(annotation)
        if text.strip():
            found.append(text)
    return found


def _shown_annotation(found: re.Match[str]) -> str:
    where = dict(_WHERE.findall(found["where"] or ""))
    place = ":".join(where[part] for part in ("file", "line") if part in where)
    return f"{place}: {found['text']}" if place else found["text"]


def _plain_name(name: str) -> str:
    """A step's name to compare: a host puts `Run ` before a command that has no name."""
    first = next(iter(name.strip().splitlines()), "")
    return " ".join(first.casefold().removeprefix("run ").split())


# bytes of a line


def _has_literal(raw: bytes) -> bool:
    low = raw.lower()
    return any(literal in low for literal in _ALL)


def _held(raw: bytes) -> bytes:
    """What a line shows at its end: a carriage return takes the writer back to its beginning."""
    return (_last_state(raw) if b"\r" in raw else raw)[:_HELD]


def _shortened(raw: bytes) -> bytes:
    """A line that has not ended, cut so that `_held` of it and whatever follows is the same."""
    before, _, now = raw.rpartition(b"\r")
    return b"\r".join((_last_state(before), now[:_HELD]))


def _last_state(raw: bytes) -> bytes:
    """The last of a line's states that shows anything."""
    before, _, last = raw.rpartition(b"\r")
    if _shows(last):
        return last[:_HELD]
    states = dict.fromkeys(reversed(before.rstrip(b"\r").split(b"\r")))  # each once: thousands may be alike
    return next((part[:_HELD] for part in states if _shows(part)), b"")


def _shows(state: bytes) -> bool:
    return bool(state) and bool(_ANSI_BYTES.sub(b"", state[:_HELD]).strip())


def _clean(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    if not text.isprintable():
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        text = _CONTROLS.sub("", text)
    if stamp := _TIME.match(text):
        text = text[stamp.end() :].removeprefix("\ufeff")
    if text.startswith("#") and (prefix := _DOCKER.match(text)):
        text = text[prefix.end() :]
    return text.rstrip()
