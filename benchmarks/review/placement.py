"""How many findings are placed exactly where a person would: cases with real diffs, and places that were written by hand.

`placement/cases.json` holds small pairs of trees, and the findings on them with the place each belongs to; `placement/diffs.json` what
`git diff` printed of each pair. Two peers judge too: unidiff, which reads the same diffs, must give the same lines and agree that every
place chosen is in one hunk, and that nothing went to the summary which had a place; and git itself applies every suggestion that is offered,
with the result that ours gives. `python -m benchmarks.review.placement` prints one JSON line; `--make` writes the diffs again.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from codespar.domain.diffs import Diff, FileDiff, FileStatus, Hunk, parse
from codespar.domain.placement import Placement, apply_suggestion, place
from codespar.domain.reviews import Category, Finding, Severity, Side

FOLDER = Path(__file__).resolve().with_suffix("")
CASES = FOLDER / "cases.json"
DIFFS = FOLDER / "diffs.json"
_PLACE = re.compile(r"(new|old) (.+):([0-9]+)(?:-([0-9]+))?", re.DOTALL)


def cases() -> list[dict[str, Any]]:
    return json.loads(CASES.read_text())


def content(spec: Any) -> bytes:
    """A file of a case: text; or lines `line 1`, `line 2`, … with some of them replaced, first and last inclusive."""
    if isinstance(spec, str):
        return spec.encode()
    if "base64" in spec:
        return base64.b64decode(spec["base64"])
    if "link" in spec:
        return spec["link"].encode()
    lines = [f"{spec.get('word', 'line')} {number}" for number in range(1, spec["lines"] + 1)]
    for first, last, instead in reversed(spec.get("edit", [])):
        lines[first - 1 : last] = instead
    ending = "\r\n" if spec.get("crlf") else "\n"
    text = ending.join(lines) + ("" if spec.get("open") else ending)
    return text.encode("latin-1" if spec.get("latin1") else "utf-8")


def diffs() -> dict[str, str]:
    """What git printed of each case, by name."""
    return json.loads(DIFFS.read_text())


class Scratch:
    """A bare repository that is thrown away, without any configuration of the machine."""

    def __init__(self, folder: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(folder),
            "GIT_DIR": str(folder / "scratch.git"),
            "GIT_INDEX_FILE": str(folder / "index"),
        }
        self._file = folder / "work" / "file"
        self._file.parent.mkdir()
        self.git("init", "-q", "--bare", str(folder / "scratch.git"))

    def git(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run git, and return what it prints. Raises `CalledProcessError`."""
        done = subprocess.run(
            ["git", *arguments], input=given, env=self._environment, check=True, capture_output=True
        )
        return done.stdout

    def tree(self, files: dict[str, Any]) -> str:
        """The id of a tree of these files."""
        self.git("read-tree", "--empty")
        listed: list[bytes] = []
        for path, spec in files.items():
            known: dict[str, Any] = spec if isinstance(spec, dict) else {}
            if "submodule" in known:
                mode, id = "160000", known["submodule"]
            else:
                mode = "120000" if "link" in known else known.get("mode", "100644")
                id = self.git("hash-object", "-w", "--stdin", given=content(spec)).decode().strip()
            listed.append(f"{mode} {id}\t{path}".encode())
        self.git("update-index", "-z", "--index-info", given=b"".join(line + b"\0" for line in listed))
        return self.git("write-tree").decode().strip()

    def diff(self, case: dict[str, Any]) -> str:
        config = [part for setting in case.get("config", []) for part in ("-c", setting)]
        trees = self.tree(case["old"]), self.tree(case["new"])
        options: list[str] = case.get("options", [])
        return self.git(*config, "diff", "-M", *options, *trees).decode("utf-8", "replace")

    def applied(self, before: bytes, patch: bytes) -> bytes:
        """What `git apply` makes of one file."""
        self._file.write_bytes(before)
        subprocess.run(
            ["git", "apply", "--unidiff-zero", "--whitespace=nowarn"],
            input=patch,
            cwd=self._file.parent,
            env={key: value for key, value in self._environment.items() if key.startswith(("PATH", "GIT_C"))},
            check=True,
            capture_output=True,
        )
        return self._file.read_bytes()


def make() -> None:
    """Write the diffs of all cases."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder))
        printed = {case["name"]: scratch.diff(case) for case in cases()}
    DIFFS.write_text(json.dumps(printed, indent=0, ensure_ascii=True) + "\n")


def finding(at: str, suggestion: list[str] | None) -> Finding:
    """A finding at a place such as `new a.py:3-5`."""
    found = _PLACE.fullmatch(at)
    if found is None:
        raise ValueError(f"{at!r} is no place; a place is such as `new a.py:3-5`")
    return Finding(
        source="model:correctness",
        path=found[2],
        start_line=int(found[3]),
        end_line=int(found[4] or found[3]),
        side=Side(found[1]),
        severity=Severity.LOW,
        category=Category.CORRECTNESS,
        title="t",
        suggestion=None if suggestion is None else "".join(f"{line}\n" for line in suggestion),
    )


def written(placement: Placement) -> str:
    """A placement as the cases write it: `new a.py:3-5 +`, the plus for a suggestion that is offered; or `summary`."""
    if not placement.inline:
        return "summary"
    start = f"{placement.start_line}-" if placement.start_line is not None else ""
    kept = " +" if placement.suggestion is not None else ""
    return f"{placement.side.value} {placement.path}:{start}{placement.line}{kept}"


def judged(case: dict[str, Any], diff: Diff) -> tuple[int, list[str], list[Finding]]:
    """How many findings a case has, which are not placed as they should be, and those whose suggestion is offered."""
    misses: list[str] = []
    offered: list[Finding] = []
    hunks = sum(len(file.hunks) for file in diff.files)
    if hunks != case["hunks"] or diff.problems:
        misses.append(f"{case['name']}: {hunks} hunks, not {case['hunks']}; {diff.problems}")
    for entry in case["expect"]:
        one = finding(entry[0], entry[1] if len(entry) == 3 else None)
        placed = place(one, diff)
        if written(placed) != entry[-1]:
            misses.append(f"{case['name']}: {entry[0]} is at {written(placed)}, not {entry[-1]}")
        if placed.suggestion is not None:
            offered.append(one.evolve(suggestion=placed.suggestion))
    return len(case["expect"]), misses, offered


# ---- the peers


def _peer_lines(hunk: Any) -> list[tuple[str, int | None, int | None, str]]:
    return [
        (line.line_type, line.source_line_no, line.target_line_no, line.value.removesuffix("\n"))
        for line in hunk
        if line.line_type != "\\"
    ]


def disagreements(text: str, diff: Diff) -> list[str] | None:
    """Where unidiff reads other hunks or lines, or calls a place of ours impossible, or one possible that we did not use.

    None where it cannot read the diff."""
    try:
        peer = [file for file in PatchSet(text) if len(file)]
    except UnidiffParseError:
        return None
    ours = [file for file in diff.files if file.hunks]
    if len(peer) != len(ours):
        return [f"{len(ours)} files with hunks, and the peer has {len(peer)}"]
    found: list[str] = []
    for file, other in zip(ours, peer, strict=True):
        maps = [_peer_lines(hunk) for hunk in other]
        heads = [
            (hunk.source_start, hunk.source_length, hunk.target_start, hunk.target_length) for hunk in other
        ]
        if heads != [_numbers(hunk) for hunk in file.hunks]:
            found.append(f"{file.path}: hunks {[_numbers(hunk) for hunk in file.hunks]}, the peer {heads}")
        elif maps != [[tuple(line) for line in hunk.lines] for hunk in file.hunks]:
            found.append(f"{file.path}: other lines than the peer's")
        elif file.status is not FileStatus.SUBMODULE:
            found += _impossible(file, diff, maps)
    return found


def _numbers(hunk: Hunk) -> tuple[int, int, int, int]:
    return hunk.old_start, hunk.old_count, hunk.new_start, hunk.new_count


def _impossible(
    file: FileDiff, diff: Diff, maps: list[list[tuple[str, int | None, int | None, str]]]
) -> list[str]:
    """Every range of every side of the file, against the host's rule on the peer's numbers."""
    right = [{new for kind, _, new, _ in lines if kind != "-"} for lines in maps]
    left = [{old for kind, old, _, _ in lines if kind == "-"} for lines in maps]
    shown_old = [{old for kind, old, _, _ in lines if kind != "+"} for lines in maps]
    top = max((number or 0 for each in (*right, *shown_old) for number in each), default=0) + 2
    found: list[str] = []
    # the old path of a copy is that of the file it was copied from, which is a file of its own
    old_path = file.path if file.status is FileStatus.COPIED else file.old_path
    for side, path, could in ((Side.NEW, file.new_path, right), (Side.OLD, old_path, shown_old)):
        for start in range(1, top) if path else ():
            for end in range(start, min(start + 12, top)):
                placed = place(finding(f"{side.value} {path}:{start}-{end}", None), diff)
                holds = right if placed.side is Side.NEW else left
                ends = {placed.start_line or placed.line, placed.line}
                if not placed.inline:
                    if any(not each.isdisjoint(range(start, end + 1)) for each in could):
                        found.append(f"{side.value} {path}:{start}-{end} went to the summary and has a place")
                elif not any(ends <= each for each in holds) or (placed.start_line or 0) >= placed.line:
                    found.append(
                        f"{side.value} {path}:{start}-{end} is at {written(placed)}, which no host takes"
                    )
    return found


def spoiled(scratch: Scratch, case: dict[str, Any], diff: Diff, offered: list[Finding]) -> list[str]:
    """The suggestions that git does not apply, or applies with another result than `apply_suggestion`."""
    wrong: list[str] = []
    for one in offered:
        before = content(case["new"][one.path])
        file = diff.at(one.path)
        present = file.text_between(one.start_line, one.end_line) if file else None
        text = before.decode("utf-8", "surrogateescape")
        ours = apply_suggestion(text, one.start_line, one.end_line, one.suggestion or "")
        patch = _patch(before, (present or "").encode(), one)
        try:
            theirs = scratch.applied(before, patch)
        except subprocess.CalledProcessError as error:
            wrong.append(
                f"{case['name']}: git refuses the suggestion for line {one.start_line}: {error.stderr!r}"
            )
            continue
        if ours.encode("utf-8", "surrogateescape") != theirs:
            wrong.append(
                f"{case['name']}: the suggestion for line {one.start_line} gives {ours!r}, with git {theirs!r}"
            )
    return wrong


def _patch(before: bytes, present: bytes, one: Finding) -> bytes:
    """The patch that a suggestion means: the lines that the diff shows go, the suggested ones come, each ended as they were."""
    gone = present.split(b"\n")
    come = [line.encode() for line in (one.suggestion or "").split("\n")[:-1]]
    total = before.count(b"\n") + (not before.endswith(b"\n"))
    open_end = one.end_line == total and not before.endswith(b"\n")
    ended = (gone[:-1] if open_end else gone) or before.split(b"\n")[one.start_line - 2 : one.start_line - 1]
    if ended and all(line.endswith(b"\r") for line in ended):
        come = [line + b"\r" for line in come]
        if open_end and come:
            come[-1] = come[-1].removesuffix(b"\r")
    start = one.start_line
    if open_end and not come:  # what stood before becomes the last line, without an end as well
        start -= 1
        kept = before.split(b"\n")[start - 1]
        gone, come = [kept, *gone], [kept.removesuffix(b"\r")]
    mark = b"\\ No newline at end of file\n" if open_end else b""
    after = start if come else start - 1
    head = f"--- a/file\n+++ b/file\n@@ -{start},{len(gone)} +{after},{len(come)} @@\n".encode()
    removed = b"".join(b"-" + line + b"\n" for line in gone)
    added = b"".join(b"+" + line + b"\n" for line in come)
    return head + removed + mark + added + (mark if come else b"")


# ---- the figure


def measure() -> tuple[dict[str, Any], list[str]]:
    """The figure, and what is wrong, a line each."""
    printed = diffs()
    total = hunks = suggestions = unread = 0
    misses: list[str] = []
    peers: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder))
        for case in cases():
            text = printed[case["name"]]
            diff = parse(text)
            count, wrong, offered = judged(case, diff)
            total, hunks = total + count, hunks + sum(len(file.hunks) for file in diff.files)
            suggestions += len(offered)
            misses += wrong
            against = disagreements(text, diff)
            unread += against is None
            peers += [f"{case['name']}: {each}" for each in against or ()]
            peers += spoiled(scratch, case, diff, offered)
    right = total - len(misses)
    figure = {
        "name": "review placement",
        "value": round(100 * right / total, 2),
        "unit": "%",
        "against": f"{total} places by hand on {hunks} hunks; unidiff on every range (it cannot read {unread} of the diffs), git apply on {suggestions} suggestions",
        "ratio": round(right / total, 4),
        "goal": "100 %, and no peer disagrees",
        "ok": not misses and not peers,
    }
    return figure, misses + peers


def run() -> list[dict[str, Any]]:
    """The figure; what is wrong goes to standard error."""
    figure, wrong = measure()
    for line in wrong:
        print(line, file=sys.stderr)
    return [figure]


if __name__ == "__main__":
    if "--make" in sys.argv[1:]:
        make()
    print(json.dumps(run()[0], ensure_ascii=False))
