"""The `Screening` port: detect-secrets for tokens, pathspec for blocked paths, and our own eyes for what people would not see.

Secrets and hidden markup are taken out, internal hosts are pointed out, and a field says so. It keeps nothing of what it read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from codespar.domain.messages import Action, Attachment, Block, FieldLine, Link, NormalizedResponse
from codespar.screening import addresses, hidden
from codespar.screening.base import NOTE
from codespar.screening.change import secrets_in
from codespar.screening.hosts import Hosts
from codespar.screening.secrets import REMOVED, could_hold, detectors, kinds_in, without_secrets

EMPTIED = "[removed]"
"""What stands where nothing was left."""
_NAMED = 3  # hosts in a note


@dataclass
class _Findings:
    lines: int = 0
    credentials: int = 0
    links: int = 0
    hidden: int = 0
    shown: int = 0
    escapes: int = 0
    comments: int = 0
    hosts: dict[str, None] = field(default_factory=dict)

    def told(self) -> str:
        """One line for people; empty when nothing was found."""
        parts = [
            _told(
                self.lines,
                "line with what looks like a secret was removed",
                "lines with what looks like a secret were removed",
            ),
            _told(
                self.credentials,
                "credential in an address was removed",
                "credentials in addresses were removed",
            ),
            _told(
                self.links,
                "link that held what looks like a secret was removed",
                "links that held what looks like a secret were removed",
            ),
            _told(self.hidden, "hidden character removed", "hidden characters removed"),
            _told(self.shown, "hidden character made visible", "hidden characters made visible"),
            _told(self.escapes, "terminal escape removed", "terminal escapes removed"),
            _told(self.comments, "hidden comment removed", "hidden comments removed"),
        ]
        names = list(self.hosts)
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            what = "an internal host" if len(names) == 1 else "internal hosts"
            parts.append(f"names {what}: {', '.join(names[:_NAMED])}{more}")
        return "; ".join(part for part in parts if part)


class Screen:
    """Thread-safe: it holds only what it was made with. `own_hosts` are the server's names, internal like those that look it;
    `allowed_hosts` are never pointed out, nor is what is below them."""

    def __init__(self, *, own_hosts: Iterable[str] = (), allowed_hosts: Iterable[str] = ()) -> None:
        self._hosts = Hosts(own_hosts, allowed_hosts)

    def load(self) -> None:
        """Load the detectors now, in a thread, so that nobody waits for them later."""
        detectors()

    def problems(self, paths: list[str], diff: str, blocked_paths: tuple[str, ...]) -> list[str]:
        from pathspec import GitIgnoreSpec

        spec = GitIgnoreSpec.from_lines(blocked_paths)
        found = [f"{path} is a blocked path" for path in paths if spec.match_file(path)]
        found += [
            f"{path}: line {line} of the change holds what looks like a secret ({kind})"
            for path, line, kind in secrets_in(diff)
        ]
        return found

    def clean(self, text: str) -> str:
        return self._words(text, _Findings(), hosts=False)

    def screen_response(self, response: NormalizedResponse) -> NormalizedResponse:
        everything = "\n".join(_strings(response))
        if not (
            could_hold(everything)
            or hidden.suspicious(everything)
            or addresses.suspicious(everything)
            or self._hosts.suspicious(everything)
        ):
            return response
        found = _Findings()
        fields = tuple(self._field(one, found) for one in response.fields)
        screened = response.evolve(
            title=self._label(response.title, found),
            text=self._words(response.text, found),
            fields=fields,
            blocks=tuple(self._block(one, found) for one in response.blocks),
            links=tuple(kept for one in response.links if (kept := self._link(one, found))),
            progress=response.progress
            and response.progress.evolve(phase=self._label(response.progress.phase, found)),
            actions=tuple(self._action(one, found) for one in response.actions),
            attachments=tuple(self._attachment(one, found) for one in response.attachments),
            agent=response.agent and self._label(response.agent, found),
        )
        if any(one.name == NOTE for one in fields):
            found.hosts.clear()  # an earlier note has pointed them out
        told = found.told()
        return screened.evolve(fields=(*fields, FieldLine(name=NOTE, value=told))) if told else response

    def _words(self, text: str, found: _Findings, *, hosts: bool = True) -> str:
        """Words that people read: nothing hidden, no secret."""
        plain, escapes = hidden.without_escapes(text)
        plain, unseen = hidden.without_hidden(plain)
        plain, comments = hidden.without_comments(plain)
        found.escapes += escapes
        found.hidden += unseen
        found.comments += comments
        return self._without_secrets(plain, plain, found, code=False, hosts=hosts)

    def _label(self, text: str, found: _Findings) -> str:
        """Words that must not become none."""
        screened = self._words(text, found)
        return screened if screened.strip() or not text else EMPTIED

    def _without_secrets(
        self, bare: str, shown: str, found: _Findings, *, code: bool, hosts: bool = True
    ) -> str:
        """`shown` without the lines in which `bare`, the same text with nothing hidden in it, holds a secret."""
        if could_hold(bare):
            lines = shown.split("\n")
            kept, removed = without_secrets(bare.split("\n"))
            found.lines += removed
            shown = "\n".join(REMOVED if place is None else lines[place] for place in kept)
        shown, credentials = addresses.without_credentials(shown)
        found.credentials += credentials
        if hosts:
            found.hosts |= dict.fromkeys(self._hosts.named_in(shown, code=code))
        return shown

    def _field(self, line: FieldLine, found: _Findings) -> FieldLine:
        hosts = line.name != NOTE  # an earlier note names hosts itself
        value = self._words(line.value, found, hosts=hosts)
        return line.evolve(
            name=self._label(line.name, found),
            value=value if value.strip() or not line.value else EMPTIED,
        )

    def _block(self, block: Block, found: _Findings) -> Block:
        """In preformatted text a comment is seen, and a hidden character is shown: what is shown is what will happen."""
        text, escapes = hidden.without_escapes(block.text)
        bare, _ = hidden.without_hidden(text)
        text, unseen = hidden.with_hidden_shown(text)
        found.escapes += escapes
        found.shown += unseen
        return Block(
            language=self._words(block.language, found),
            text=self._without_secrets(bare, text, found, code=True),
            title=self._words(block.title, found),
        )

    def _link(self, link: Link, found: _Findings) -> Link | None:
        url, unseen = hidden.without_hidden(link.url)
        url, credentials = addresses.link_without_credentials(url)
        found.hidden += unseen
        found.credentials += credentials
        if kinds_in(url):
            found.links += 1
            return None
        found.hosts |= dict.fromkeys(self._hosts.named_in(url))
        return Link(label=self._label(link.label, found), url=url)

    def _action(self, action: Action, found: _Findings) -> Action:
        return action.evolve(label=self._label(action.label, found), asks=self._words(action.asks, found))

    def _attachment(self, attachment: Attachment, found: _Findings) -> Attachment:
        return attachment.evolve(name=self._label(attachment.name, found))


def _told(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}" if count else ""


def _strings(response: NormalizedResponse) -> Iterator[str]:
    """Everything that people see, but for actions' commands."""
    yield response.title
    yield response.text
    for line in response.fields:
        yield line.name
        yield line.value
    for block in response.blocks:
        yield block.language
        yield block.text
        yield block.title
    for link in response.links:
        yield link.label
        yield link.url
    if response.progress:
        yield response.progress.phase
    for action in response.actions:
        yield action.label
        yield action.asks
    for attachment in response.attachments:
        yield attachment.name
    yield response.agent or ""
