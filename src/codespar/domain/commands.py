"""The commands: one table, and the parser that turns text into one of them. Pure; no text makes it raise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from codespar.domain.autonomy import Risk
from codespar.domain.base import Value
from codespar.domain.people import Permission

P = Permission
_MENTION = re.compile(r"^\s*<?@codespar>?[\s,:]*", re.IGNORECASE)
_ID = re.compile(r"^(?:task|review|deploy|incident|plan|lens|agent|coordinator)-[\w-]+$", re.IGNORECASE)
_TOKEN = re.compile(r"^(?:dp|rb|tk|mg|sg|bg|pl|cf)-[0-9a-z]{6}$", re.IGNORECASE)
_PULL = re.compile(r"^(?:pr\s*)?#?\s*(\d{1,9})\b\s*(.*)$", re.IGNORECASE | re.DOTALL)


class CommandSpec(Value):
    """A row of the table. `brought_by` says what is still to come, for commands this release only recognizes."""

    name: str
    usage: str
    summary: str
    risk: Risk
    permission: Permission | None
    brought_by: str = ""


def _row(name: str, usage: str, summary: str, risk: str, permission: Permission | None, brought_by: str = "") -> CommandSpec:
    return CommandSpec(name=name, usage=usage, summary=summary, risk=Risk(risk), permission=permission, brought_by=brought_by)


COMMANDS: tuple[CommandSpec, ...] = (
    _row("status", "status [build|agent|all] [<id>]", "what runs, waits and is asked", "low", P.VIEW_STATUS),
    _row("queue", "queue", "the task slots and the queue", "low", P.VIEW_STATUS),
    _row("help", "help [<command>]", "the commands", "low", None),
    _row("whoami", "whoami", "who you are here and what you may do", "low", None),
    _row("logs", "logs [n]", "the project's last activity", "low", P.VIEW_ACTIVITY_LOG),
    _row("diff", "diff [<branch>|PR #n|task-…]", "what a pull request changes", "low", P.VIEW_DIFFS),
    _row("prs", "prs [open|closed|all]", "the pull requests", "low", P.VIEW_DIFFS),
    _row("search", "search <words>", "places in the code", "low", P.VIEW_DIFFS),
    _row("instruct", "instruct <task>", "a coding task, ending in a pull request", "medium", P.INSTRUCT_AGENT),
    _row("fix", "fix <issue>", "a coding task that mends something", "medium", P.APPLY_FIX),
    _row("plan", "plan <feature>", "ordered steps with approval", "medium", P.INSTRUCT_AGENT, "the Planning Agent brings it"),
    _row("cancel", "cancel <id>", "stop a task; its work so far is kept", "medium", P.INSTRUCT_AGENT),
    _row("retry", "retry <id>", "the same task again, on the newest commit", "medium", P.INSTRUCT_AGENT),
    _row("review", "review PR #n", "a review with inline comments", "low", P.VIEW_DIFFS, "the Review Agent brings it"),
    _row("merge", "merge PR #n [squash|rebase|merge]", "merge a pull request", "medium", P.MERGE_PR),
    _row("deploy", "deploy [<env>] [<ref>]", "deploy, watched", "high", P.DEPLOY_STAGING, "the Deploy Agent brings it"),
    _row("rollback", "rollback [<env>]", "go back to the last good deploy", "critical", P.DEPLOY_STAGING, "the Deploy Agent brings it"),
    _row("approve", "approve [<token>]", "say yes to what waits", "low", P.VIEW_STATUS),
    _row("reject", "reject <token> [reason]", "say no to what waits", "low", P.VIEW_STATUS),
    _row("investigate", "investigate <what>", "find a cause", "low", P.VIEW_STATUS, "the Incident Agent brings it"),
    _row("lens", "lens <question>", "answers about the code, with citations", "low", P.VIEW_STATUS, "the Lens Agent brings it; `search` works now"),
    _row("scan", "scan [debt|security|quality|all]", "a look over the code", "low", P.VIEW_STATUS, "the Lens Agent brings it"),
    _row("autonomy", "autonomy [L0–L5]", "what the agent may do by itself", "medium", P.SET_AUTONOMY),
    _row("link", "link <repo>", "link a repository", "medium", P.LINK_CHANNEL, "projects are linked in codespar.yaml"),
    _row("unlink", "unlink", "unlink this channel", "medium", P.LINK_CHANNEL, "projects are linked in codespar.yaml"),
    _row("alias", "alias <name> <repo>", "a short name for a project", "medium", P.LINK_CHANNEL, "aliases are set in codespar.yaml"),
    _row("list projects", "list projects", "the linked projects", "low", P.VIEW_STATUS),
    _row("register", "register <name>", "make yourself known", "medium", P.INVITE_MEMBERS, "people are set in codespar.yaml"),
    _row("invite", "invite <name> <role>", "invite a person", "medium", P.INVITE_MEMBERS, "people are set in codespar.yaml"),
    _row("policy", "policy [show]", "the rules in force", "low", P.VIEW_AUDIT, "organization policies bring it"),
    _row("audit", "audit [n] | audit verify", "the audit chain", "low", P.VIEW_AUDIT),
    _row("memory", "memory", "what the agent knows", "low", P.VIEW_STATUS),
    _row("kill", "kill", "stop everything now", "critical", P.KILL_SWITCH, "the kill switch comes with policies; `cancel` stops a task"),
    _row("resume", "resume", "bring a stopped project back", "critical", P.KILL_SWITCH, "the kill switch comes with policies"),
)
BY_NAME: dict[str, CommandSpec] = {spec.name: spec for spec in COMMANDS}
_SYNONYMS = {"context": "memory", "projects": "list projects"}


class CommandArgs(Value):
    """What a command was given; only the fields of its own form are set."""

    text: str | None = None
    id: str | None = None
    number: int | None = None
    target: str | None = None
    method: str | None = None
    token: str | None = None
    reason: str | None = None
    scope: str | None = None
    state: str | None = None
    count: int | None = None
    level: int | None = None
    environment: str | None = None
    ref: str | None = None
    chain: tuple[str, ...] = ()


class Command(Value):
    name: str
    project: str | None = None  # named by alias or name; None: the conversation's own
    args: CommandArgs = CommandArgs()

    @property
    def spec(self) -> CommandSpec:
        return BY_NAME[self.name]


class NotUnderstood(Value):
    text: str
    why: str
    suggestions: tuple[str, ...] = ()


class _Malformed(Exception):
    """The command is known, its arguments are not right."""


def parse(text: str, *, aliases: Mapping[str, str]) -> Command | NotUnderstood:
    """Understand one message. `aliases` maps lower-case short names (and the projects' own) to project names."""
    rest = _MENTION.sub("", text, count=1).strip()
    if not rest:
        return NotUnderstood(text=text, why="The message is empty.", suggestions=("help", "status"))
    project: str | None = None
    word, after = _split(rest)
    if word.lower() in aliases and after and _known(*_split(after)):
        project = aliases[word.lower()]
        word, after = _split(after)
    name = _known(word, after)
    if name is None:
        near = difflib.get_close_matches(word.lower(), [*BY_NAME, *_SYNONYMS], n=3, cutoff=0.5)
        return NotUnderstood(text=text, why=f"There is no command `{word[:40]}`.", suggestions=tuple(near))
    if name == "list projects":
        after = _split(after)[1]
    elif name == "status" and word.lower() == "all":
        return Command(name="status", project=project, args=CommandArgs(scope="all"))
    try:
        args = _FORMS.get(name, _no_arguments)(after.strip())
    except _Malformed as error:
        return NotUnderstood(text=text, why=f"{error} Usage: `{BY_NAME[name].usage}`", suggestions=(f"help {name}",))
    if name in ("status", "queue", "prs", "logs") and args.target and args.target.lower() in aliases:
        project, args = aliases[args.target.lower()], args.evolve(target=None)
    elif name in ("status", "queue", "prs", "logs") and args.target:
        return NotUnderstood(text=text, why=f"`{args.target}` is not known here. Usage: `{BY_NAME[name].usage}`", suggestions=(f"help {name}",))
    return Command(name=name, project=project, args=args)


def _split(text: str) -> tuple[str, str]:
    parts = text.split(None, 1)
    return (parts[0] if parts else "", parts[1] if len(parts) > 1 else "")


def _known(word: str, after: str) -> str | None:
    lowered, following = word.lower(), _split(after)[0].lower()
    if lowered == "list" and following == "projects":
        return "list projects"
    if lowered == "all" and following == "status":
        return "status"
    lowered = _SYNONYMS.get(lowered, lowered)
    return lowered if lowered in BY_NAME else None


def environment(name: str) -> str:
    """The environment's full name: `prod` is production everywhere."""
    return {"prod": "production", "stage": "staging"}.get(name.lower(), name.lower())


def _no_arguments(rest: str) -> CommandArgs:
    return CommandArgs()


def _text(rest: str) -> CommandArgs:
    if not rest:
        raise _Malformed("It says not what to do.")
    return CommandArgs(text=rest)


def _optional_text(rest: str) -> CommandArgs:
    return CommandArgs(text=rest.lower() or None)


def _status(rest: str) -> CommandArgs:
    scope, id, target = None, None, None
    for word in rest.split():
        lowered = word.lower()
        if lowered in ("build", "agent", "all") and scope is None:
            scope = lowered
        elif _ID.match(word):
            id = lowered
        else:
            target = word
    return CommandArgs(scope=scope, id=id, target=target)


def _named(rest: str) -> CommandArgs:
    return CommandArgs(target=rest or None)


def _count(rest: str) -> CommandArgs:
    word, more = _split(rest)
    if word.isdecimal() and len(word) <= 6 and int(word) > 0:
        return CommandArgs(count=min(int(word), 1000), target=more or None)
    return CommandArgs(target=rest or None)


def _audit(rest: str) -> CommandArgs:
    if rest.lower() == "verify":
        return CommandArgs(scope="verify")
    args = _count(rest)
    if args.target:
        raise _Malformed(f"`{rest[:40]}` is neither a number nor `verify`.")
    return args


def _diff(rest: str) -> CommandArgs:
    if found := _PULL.match(rest):
        return CommandArgs(number=int(found[1]))
    return CommandArgs(target=rest.lower() if _ID.match(rest) else rest or None)


def _pulls(rest: str) -> CommandArgs:
    state, target = None, None
    for word in rest.split():
        if word.lower() in ("open", "closed", "merged", "all"):
            state = word.lower()
        else:
            target = word
    return CommandArgs(state=state, target=target)


def _id(rest: str) -> CommandArgs:
    word, more = _split(rest)
    if not word or more:
        raise _Malformed("It needs one id, such as `task-abc123`.")
    return CommandArgs(id=word.lower() if _ID.match(word) else f"task-{word.lower()}")


def _pull(rest: str) -> CommandArgs:
    found = _PULL.match(rest)
    if found is None:
        raise _Malformed("It needs a pull request's number, such as `PR #12`.")
    return CommandArgs(number=int(found[1]), target=found[2].strip() or None)


def _merge(rest: str) -> CommandArgs:
    args = _pull(rest)
    method = (args.target or "").lower()
    if method not in ("", "squash", "rebase", "merge"):
        raise _Malformed(f"`{method[:40]}` is not a way to merge.")
    return CommandArgs(number=args.number, method=method or None)


def _deploy(rest: str) -> CommandArgs:
    words = re.sub(r"^to\s+", "", rest, flags=re.IGNORECASE)
    if re.search(r"\bthen\b", words, re.IGNORECASE):
        body, _, to = (words.rpartition(" to ") if " to " in words.lower() else (words, "", ""))
        services = [part.strip() for part in re.split(r"\s+then\s+", body or words, flags=re.IGNORECASE)]
        return CommandArgs(chain=tuple(services), environment=environment(to) if to else None)
    first, ref = _split(words)
    return CommandArgs(environment=environment(first) if first else None, ref=ref or None)


def _token(rest: str) -> CommandArgs:
    if not rest:
        return CommandArgs()
    word, reason = _split(rest)
    if not _TOKEN.match(word):
        raise _Malformed(f"`{word[:40]}` is not an approval's token.")
    return CommandArgs(token=word.lower(), reason=reason or None)


def _reject(rest: str) -> CommandArgs:
    if not rest:
        raise _Malformed("It needs the token of what is rejected.")
    return _token(rest)


def _level(rest: str) -> CommandArgs:
    if not rest:
        return CommandArgs()
    found = re.fullmatch(r"[lL]?([0-5])", rest)
    if found is None:
        raise _Malformed("A level is one of L0 to L5.")
    return CommandArgs(level=int(found[1]))


_FORMS: dict[str, Callable[[str], CommandArgs]] = {
    "status": _status,
    "queue": _named,
    "help": _optional_text,
    "logs": _count,
    "diff": _diff,
    "prs": _pulls,
    "search": _text,
    "instruct": _text,
    "fix": _text,
    "plan": _text,
    "cancel": _id,
    "retry": _id,
    "review": _pull,
    "merge": _merge,
    "deploy": _deploy,
    "rollback": _deploy,
    "approve": _token,
    "reject": _reject,
    "investigate": _text,
    "lens": _text,
    "scan": _optional_text,
    "autonomy": _level,
    "link": _text,
    "alias": _text,
    "register": _text,
    "invite": _text,
    "audit": _audit,
}
