"""The forms: what may stand behind each command's word, and the typed arguments it gives.

Pure, and knows neither projects nor permissions: that is `commands`. A form refuses what it does not know instead of leaving it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from codespar.domain.base import CROCKFORD, Value
from codespar.domain.people import Role


class CommandArgs(Value):
    """What a command was given; only the fields of its own form are set."""

    text: str | None = None  # as written: instruction, issue, question, words
    id: str | None = None  # task-abc123
    number: int | None = None  # of a pull request
    target: str | None = None  # a branch, a repository
    name: str | None = None  # of a person or an alias
    role: Role | None = None
    method: str | None = None  # squash | rebase | merge
    token: str | None = None
    code: str | None = None  # a one-time code, in its written form
    reason: str | None = None
    scope: str | None = None  # of status: build, agent, all; of audit: verify; of scan: what to look for
    state: str | None = None  # open | closed | merged | all | stale
    count: int | None = None
    level: int | None = None
    environment: str | None = None
    ref: str | None = None
    chain: tuple[str, ...] = ()  # deploy: one after another


class MalformedCommand(Exception):
    """The command is known, its arguments are not right. `parse` turns it into an answer."""


_ID = re.compile(
    r"(?:task|review|deploy|incident|plan|lens|agent|coordinator)-[a-z0-9][a-z0-9_-]{0,99}",
    re.IGNORECASE | re.ASCII,
)
_BARE_ID = re.compile(f"[{CROCKFORD}]{{6}}", re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(r"(dp|rb|tk|mg|sg|bg|pl|cf)-([0-9a-z]{6})", re.IGNORECASE | re.ASCII)
_CODE = re.compile(r"([0-9a-z]{4})-([0-9a-z]{4})", re.ASCII)
_PULL = re.compile(r"(?:pr\s*)?#?\s*([0-9]{1,9})(?![\w-])\s*(.*)", re.IGNORECASE | re.DOTALL)
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}", re.IGNORECASE | re.ASCII)
_LOOKALIKES = str.maketrans("ilo", "110")  # letters Crockford's alphabet leaves out, as people read them
_QUOTED = 40  # characters of a person's word in an answer


def environment(name: str) -> str:
    """The environment's full name: `prod` is production everywhere."""
    lowered = name.lower()
    return "production" if lowered == "prod" else lowered


def split(text: str) -> tuple[str, str]:
    parts = text.split(None, 1)
    return (parts[0] if parts else "", parts[1] if len(parts) > 1 else "")


def bare(word: str) -> str:
    return word.lower().rstrip(":,")


def cut(word: str) -> str:
    return word if len(word) <= _QUOTED else word[:_QUOTED] + "…"


def _surplus(rest: str) -> NoReturn:
    raise MalformedCommand(f"`{cut(rest)}` does not belong there.")


def _nothing(rest: str) -> CommandArgs:
    if rest:
        _surplus(rest)
    return CommandArgs()


def _text(rest: str) -> CommandArgs:
    if not rest:
        raise MalformedCommand("It does not say what to do.")
    return CommandArgs(text=rest)


def _optional_name(rest: str) -> CommandArgs:
    return CommandArgs(text=rest.lower() or None)


def _one_of(*words: str) -> Callable[[str], CommandArgs]:
    def form(rest: str) -> CommandArgs:
        if rest.lower() not in ("", *words):
            _surplus(rest)
        return CommandArgs(scope=rest.lower() or None)

    return form


def _status(rest: str) -> CommandArgs:
    scope, id = None, None
    for word in rest.split():
        if word.lower() in ("build", "agent", "all") and scope is None:
            scope = word.lower()
        elif id is None and (found := _as_id(word)):
            id = found
        else:
            raise MalformedCommand(f"`{cut(word)}` is neither an id nor a project that is known here.")
    return CommandArgs(scope=scope, id=id)


def _count(rest: str) -> CommandArgs:
    if not rest:
        return CommandArgs()
    if not re.fullmatch(r"[0-9]{1,6}", rest) or int(rest) == 0:
        raise MalformedCommand(f"`{cut(rest)}` is not a number of entries.")
    return CommandArgs(count=min(int(rest), 1000))


def _audit(rest: str) -> CommandArgs:
    return CommandArgs(scope="verify") if rest.lower() == "verify" else _count(rest)


def _diff(rest: str) -> CommandArgs:
    if (found := _PULL.fullmatch(rest)) and not found[2]:
        return CommandArgs(number=_pull(rest)[0])
    if len(rest.split()) > 1:
        raise MalformedCommand(f"`{cut(rest)}` is not one branch, pull request or task.")
    return CommandArgs(target=rest.lower() if _ID.fullmatch(rest) else rest or None)


def _pulls(rest: str) -> CommandArgs:
    if rest.lower() not in ("", "open", "closed", "merged", "all", "stale"):
        _surplus(rest)
    return CommandArgs(state=rest.lower() or None)


def _as_id(word: str) -> str | None:
    if _ID.fullmatch(word):
        return word.lower()
    return f"task-{word.lower()}" if _BARE_ID.fullmatch(word) else None


def _id(rest: str) -> CommandArgs:
    id = _as_id(rest)
    if id is None:
        raise MalformedCommand("It needs one id, such as `task-abc123`.")
    return CommandArgs(id=id)


def _pull(rest: str) -> tuple[int, str]:
    found = _PULL.fullmatch(rest)
    if found is None or int(found[1]) == 0:
        raise MalformedCommand("It needs a pull request's number, such as `PR #12`.")
    return int(found[1]), found[2]


def _review(rest: str) -> CommandArgs:
    number, surplus = _pull(rest)
    if surplus:
        _surplus(surplus)
    return CommandArgs(number=number)


def _merge(rest: str) -> CommandArgs:
    number, method = _pull(rest)
    if method.lower() not in ("", "squash", "rebase", "merge"):
        raise MalformedCommand(f"`{cut(method)}` is not a way to merge.")
    return CommandArgs(number=number, method=method.lower() or None)


def _environment(word: str) -> str:
    if not _ENVIRONMENT.fullmatch(word):
        raise MalformedCommand(f"`{cut(word)}` is not an environment's name.")
    return environment(word)


def _deploy(rest: str) -> CommandArgs:
    words = rest.split()
    lowered = [word.lower() for word in words]
    to: str | None = None
    if len(words) >= 2 and lowered[-2] == "to":
        to = _environment(words[-1])
        words, lowered = words[:-2], lowered[:-2]
    if "then" in lowered:
        if len(words) % 2 == 0 or any(
            (word == "then") != (place % 2 == 1) for place, word in enumerate(lowered)
        ):
            raise MalformedCommand("A chain is single names with `then` between them.")
        return CommandArgs(chain=tuple(words[::2]), environment=to)
    if len(words) > (2 if to is None else 1) or "to" in lowered:
        _surplus(rest)
    if to is not None:
        return CommandArgs(environment=to, ref=words[0] if words else None)
    return CommandArgs(
        environment=_environment(words[0]) if words else None, ref=words[1] if len(words) > 1 else None
    )


def _rollback(rest: str) -> CommandArgs:
    words = rest.split()
    if words and words[0].lower() == "to":
        words = words[1:] or _surplus(rest)
    if len(words) > 1:
        _surplus(rest)
    return CommandArgs(environment=_environment(words[0]) if words else None)


def _approve(rest: str) -> CommandArgs:
    if found := re.fullmatch(r"pr\s*#?\s*([0-9]{1,9})|#([0-9]{1,9})", rest, re.IGNORECASE):
        return CommandArgs(number=_pull(found[1] or found[2])[0])
    return _reject(rest) if rest else CommandArgs()


def _reject(rest: str) -> CommandArgs:
    word, reason = split(rest)
    found = _TOKEN.fullmatch(word)
    if found is None:
        raise MalformedCommand(
            f"`{cut(word)}` is not an approval's token, such as `bg-7k2m9q`."
            if word
            else "It needs the token of what is rejected."
        )
    return CommandArgs(
        token=f"{found[1].lower()}-{found[2].lower().translate(_LOOKALIKES)}", reason=reason or None
    )


def _level(rest: str) -> CommandArgs:
    if not rest:
        return CommandArgs()
    found = re.fullmatch(r"[lL]?([0-5])", rest)
    if found is None:
        raise MalformedCommand("A level is one of L0 to L5.")
    return CommandArgs(level=int(found[1]))


def _link(rest: str) -> CommandArgs:
    if not rest:
        raise MalformedCommand("It needs a project's name, or a repository's address.")
    return CommandArgs(target=rest)


def _alias(rest: str) -> CommandArgs:
    name, target = split(rest)
    if not target:
        raise MalformedCommand("It needs a short name and a project.")
    return CommandArgs(name=name, target=target)


def _register(rest: str) -> CommandArgs:
    if code := one_time_code(rest):
        return CommandArgs(code=code)
    return CommandArgs(name=rest or None)


def one_time_code(text: str) -> str | None:
    """The written form (`K7QM-2X9D`) of what may be a one-time code, or None."""
    found = _CODE.fullmatch(text.strip().lower())
    return f"{found[1]}-{found[2]}".translate(_LOOKALIKES).upper() if found else None


def _invite(rest: str) -> CommandArgs:
    name, _, role = rest.rpartition(" ")
    known = {found.value.replace("-", "_"): found for found in Role}
    wanted = known.get(role.lower().replace("-", "_"))
    if not name.strip() or wanted is None:
        raise MalformedCommand(
            f"It needs a name and one of the roles {', '.join(found.value for found in Role)}."
        )
    return CommandArgs(name=name.strip(), role=wanted)


def _memory(rest: str) -> CommandArgs:
    if not re.fullmatch(f"m-[{CROCKFORD}]{{6}}", rest.lower()):
        raise MalformedCommand(
            "It needs the id of what was remembered, such as `m-7k2m9q`; `memory` shows them."
        )
    return CommandArgs(id=rest.lower())


FORMS: dict[str, Callable[[str], CommandArgs]] = {
    "status": _status,
    "queue": _nothing,
    "help": _optional_name,
    "whoami": _nothing,
    "logs": _count,
    "diff": _diff,
    "prs": _pulls,
    "search": _text,
    "instruct": _text,
    "fix": _text,
    "plan": _text,
    "cancel": _id,
    "retry": _id,
    "review": _review,
    "merge": _merge,
    "deploy": _deploy,
    "rollback": _rollback,
    "approve": _approve,
    "reject": _reject,
    "investigate": _text,
    "lens": _text,
    "scan": _one_of("debt", "security", "quality", "all"),
    "autonomy": _level,
    "link": _link,
    "unlink": _nothing,
    "alias": _alias,
    "list projects": _nothing,
    "register": _register,
    "invite": _invite,
    "policy": _one_of("show"),
    "audit": _audit,
    "memory": _nothing,
    "remember": _text,
    "forget": _memory,
    "kill": _one_of("all"),
    "resume": _one_of("all"),
}
