"""The commands: one table, and the parser that turns text into one of them.

Pure. No text makes `parse` raise, and what people write for an agent (an instruction, a question, a reason) is kept as they wrote it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from codespar.domain.autonomy import Risk
from codespar.domain.base import Value
from codespar.domain.commandforms import FORMS, CommandArgs, MalformedCommand, bare, cut, environment, split
from codespar.domain.people import Permission

P = Permission


class CommandSpec(Value):
    """A row of the table. `brought_by` says what later work brings it, for a command that this release only recognizes.

    `permissions` are all it can need, the least one first; which one a given command needs, `Command.permission` says.
    """

    name: str
    usage: str
    summary: str
    risk: Risk
    permissions: tuple[Permission, ...] = ()
    by_the_action: bool = False  # a vote: risk and permission are those of what is voted on
    brought_by: str = ""

    @property
    def permission(self) -> Permission | None:
        """The least permission it can need; None: anyone may."""
        return self.permissions[0] if self.permissions else None

    @property
    def available(self) -> bool:
        """Whether this release carries it out."""
        return not self.brought_by


def _row(
    name: str,
    usage: str,
    summary: str,
    risk: Risk,
    *permissions: Permission,
    brought_by: str = "",
    by_the_action: bool = False,
) -> CommandSpec:
    return CommandSpec(
        name=name,
        usage=usage,
        summary=summary,
        risk=risk,
        permissions=permissions,
        brought_by=brought_by,
        by_the_action=by_the_action,
    )


_LOW, _MEDIUM, _HIGH, _CRITICAL = Risk.LOW, Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL
_DEPLOY = "deploy [<env>] [<ref>] | deploy to <env> | deploy a then b then c [to <env>]"

COMMANDS: tuple[CommandSpec, ...] = (
    _row(
        "status",
        "status [build|agent|all] [<id>]",
        "what runs, waits and is asked; `all status` for all projects",
        _LOW,
        P.VIEW_STATUS,
    ),
    _row("queue", "queue", "the task slots and the queue", _LOW, P.VIEW_STATUS),
    _row("help", "help [<command>]", "the commands", _LOW),
    _row("whoami", "whoami", "who you are here and what you may do", _LOW),
    _row("logs", "logs [n]", "the project's last activity", _LOW, P.VIEW_ACTIVITY_LOG),
    _row("diff", "diff [<branch>|PR #n|task-…]", "what a pull request changes", _LOW, P.VIEW_DIFFS),
    _row(
        "prs",
        "prs [open|closed|merged|all|stale]",
        "the pull requests; `stale`: the open ones nobody touched for a week",
        _LOW,
        P.VIEW_DIFFS,
    ),
    _row("search", "search <words>", "places in the code", _LOW, P.VIEW_DIFFS),
    _row("instruct", "instruct <task>", "a coding task, ending in a pull request", _MEDIUM, P.INSTRUCT_AGENT),
    _row(
        "fix",
        "fix <issue> | fix build [<workflow>]",
        "a coding task that mends something; `fix build`: what broke the build, with its log",
        _MEDIUM,
        P.APPLY_FIX,
    ),
    _row(
        "plan",
        "plan <feature>",
        "ordered steps with approval",
        _MEDIUM,
        P.INSTRUCT_AGENT,
        brought_by="the Planning Agent brings it",
    ),
    _row("cancel", "cancel <id>", "stop a task; its work so far is kept", _MEDIUM, P.INSTRUCT_AGENT),
    _row("retry", "retry <id>", "the same task again, on the newest commit", _MEDIUM, P.INSTRUCT_AGENT),
    _row(
        "review",
        "review PR #n",
        "a review with inline comments",
        _LOW,
        P.VIEW_DIFFS,
    ),
    _row("merge", "merge PR #n [squash|rebase|merge]", "merge a pull request", _MEDIUM, P.MERGE_PR),
    _row(
        "deploy",
        _DEPLOY,
        "deploy, watched",
        _HIGH,
        P.DEPLOY_STAGING,
        P.DEPLOY_PRODUCTION,
        brought_by="the Deploy Agent brings it",
    ),
    _row(
        "rollback",
        "rollback [<env>]",
        "go back to the last good deploy",
        _CRITICAL,
        P.DEPLOY_STAGING,
        P.DEPLOY_PRODUCTION,
        brought_by="the Deploy Agent brings it",
    ),
    _row(
        "approve",
        "approve [<token>] | approve PR #n",
        "say yes to what waits, or to a pull request",
        _LOW,
        P.VIEW_STATUS,
        P.APPROVE_PR,
        by_the_action=True,
    ),
    _row(
        "reject", "reject <token> [reason]", "say no to what waits", _LOW, P.VIEW_STATUS, by_the_action=True
    ),
    _row(
        "investigate",
        "investigate <what>",
        "find a cause",
        _LOW,
        P.VIEW_STATUS,
        brought_by="the Incident Agent brings it",
    ),
    _row(
        "lens",
        "lens <question>",
        "answers about the code, with citations",
        _LOW,
        P.VIEW_STATUS,
        brought_by="the Lens Agent brings it; `search` works now",
    ),
    _row(
        "scan",
        "scan [debt|security|quality|all]",
        "a look over the code",
        _LOW,
        P.VIEW_STATUS,
        brought_by="the Lens Agent brings it",
    ),
    _row("autonomy", "autonomy [L0–L5]", "what the agent may do by itself", _MEDIUM, P.SET_AUTONOMY),
    _row(
        "link", "link <project|repository>", "have this conversation serve a project", _MEDIUM, P.LINK_CHANNEL
    ),
    _row("unlink", "unlink", "have this conversation serve no project", _MEDIUM, P.LINK_CHANNEL),
    _row("alias", "alias <name> <project>", "a short name for a project", _MEDIUM, P.LINK_CHANNEL),
    _row("list projects", "list projects", "the linked projects", _LOW, P.VIEW_STATUS),
    _row(
        "register",
        "register [<code>|<name>]",
        "link yourself on another platform by a one-time code; a name makes somebody known, read-only",
        _MEDIUM,
        P.INVITE_MEMBERS,
    ),
    _row("invite", "invite <name> <role>", "a one-time code for a new person", _MEDIUM, P.INVITE_MEMBERS),
    _row("policy", "policy [show]", "the rules in force", _LOW, P.VIEW_AUDIT),
    _row("audit", "audit [n] | audit verify", "the audit chain", _LOW, P.VIEW_AUDIT),
    _row("memory", "memory | context", "what the agent knows", _LOW, P.VIEW_STATUS),
    _row(
        "remember",
        "remember <text>",
        "a convention for the agent to keep in mind",
        _MEDIUM,
        P.INSTRUCT_AGENT,
    ),
    _row("forget", "forget <id>", "take back what was to be remembered", _MEDIUM, P.INSTRUCT_AGENT),
    _row("kill", "kill [all]", "stop everything of the project, or of all, now", _CRITICAL, P.KILL_SWITCH),
    _row("resume", "resume [all]", "bring a stopped project back", _CRITICAL, P.KILL_SWITCH),
)
BY_NAME: dict[str, CommandSpec] = {spec.name: spec for spec in COMMANDS}
_SYNONYMS = {"context": "memory", "projects": "list projects"}
_OBJECTS = frozenset(
    {
        "status",
        "queue",
        "logs",
        "prs",
        "deploy",
        "rollback",
        "scan",
        "autonomy",
        "policy",
        "audit",
        "memory",
        "kill",
        "resume",
    }
)
"""The commands whose object may be a project: `status gw`."""
_OTHER_WORDS = "list all build agent open closed merged debt security quality stale show verify staging production prod to then pr"
_TAKEN = frozenset({*BY_NAME, *_SYNONYMS, *_OTHER_WORDS.split()})


def taken(word: str) -> bool:
    """Whether a word means something in a command already, so that no project may be called by it."""
    return word.lower() in _TAKEN or re.fullmatch(r"l?[0-9]+", word.lower()) is not None


class Command(Value):
    name: str
    project: str | None = None  # named by alias or name; None: the conversation's own
    args: CommandArgs = CommandArgs()

    @property
    def spec(self) -> CommandSpec:
        return BY_NAME[self.name]

    @property
    def written(self) -> str:
        """The command as people write it, on one line, with its project in front where it names one."""
        args = self.args
        number = f"PR #{args.number}" if args.number is not None else None
        chain = " then ".join(args.chain) or None
        to = f"to {args.environment}" if args.environment and (args.chain or args.ref) else args.environment
        level = f"L{args.level}" if args.level is not None else None
        words = (
            args.scope,
            number,
            args.id,
            args.state,
            args.name,
            args.role,
            args.target,
            args.method,
            chain,
            args.ref if to and args.ref else None,
            to,
            level,
            args.token,
            args.code,
            str(args.count) if args.count is not None else None,
            args.reason,
            " ".join(args.text.split()) if args.text else None,
        )
        return " ".join([*([self.project] if self.project else []), self.name, *(str(w) for w in words if w)])

    @property
    def permission(self) -> Permission | None:
        """What this very command needs; None: anyone may.

        An environment that is not staging counts as production; `deploy` alone means staging. To link oneself by a code takes nothing
        but the code.
        """
        if self.name == "register" and self.args.name is None:
            return None
        if self.name == "approve" and self.args.number is not None:
            return Permission.APPROVE_PR
        if self.name not in ("deploy", "rollback"):
            return self.spec.permission
        staging = self.args.environment == "staging" or (
            self.name == "deploy" and self.args.environment is None
        )
        return Permission.DEPLOY_STAGING if staging else Permission.DEPLOY_PRODUCTION


class NotUnderstood(Value):
    """`why` is for the person. `command` is set when the command is known and only its arguments are not right."""

    text: str
    why: str
    suggestions: tuple[str, ...] = ()
    command: str | None = None


Aliases = Mapping[str, str]  # lower-case short names, and the projects' own, to project names
_MENTION = re.compile(r"<?@codespar(?![\w-])>?[\s,:]*", re.IGNORECASE)


def parse(text: str, *, aliases: Aliases) -> Command | NotUnderstood:
    """Understand one message. `aliases` maps lower-case short names (and the projects' own) to project names."""
    rest = text.strip()
    if mention := _MENTION.match(rest):
        rest = rest[mention.end() :].strip()
    if not rest:
        return NotUnderstood(text=text, why="The message is empty.", suggestions=("help", "status"))
    project: str | None = None
    word, after = split(rest)
    name, arguments = _command(word, after)
    if name is None and (found := aliases.get(bare(word))):
        if not after:
            return NotUnderstood(
                text=text,
                why=f"`{cut(word)}` is a project; what about it?",
                suggestions=(f"{bare(word)} status", "help"),
            )
        project = found
        word, after = split(after)
        name, arguments = _command(word, after)
    if name is None:
        return NotUnderstood(text=text, why=f"There is no command `{cut(word)}`.", suggestions=_nearest(word))
    try:
        return _understand(name, project, arguments.strip(), aliases)
    except MalformedCommand as error:
        why = f"{error} Usage: `{BY_NAME[name].usage}`"
        return NotUnderstood(text=text, why=why, suggestions=(f"help {name}",), command=name)


def _command(word: str, after: str) -> tuple[str | None, str]:
    """The command that two words begin, and what follows it."""
    lowered = bare(word)
    following, rest = split(after)
    if lowered == "list" and following.lower() == "projects":
        return "list projects", rest
    if lowered == "all" and following.lower() == "status":
        return "status", f"all {rest}"
    lowered = _SYNONYMS.get(lowered, lowered)
    return (lowered, after) if lowered in BY_NAME else (None, after)


def _understand(name: str, project: str | None, arguments: str, aliases: Aliases) -> Command:
    if name in _OBJECTS and project is None:
        project, arguments = _object(arguments, aliases, anywhere=name not in ("deploy", "rollback"))
    args = FORMS[name](arguments)
    if name == "help" and args.text:
        wanted, surplus = _command(*split(args.text))
        if wanted is None or surplus.strip():
            raise MalformedCommand(f"There is no command `{cut(args.text)}`.")
        return Command(name=name, args=CommandArgs(text=wanted))
    if args.chain:
        args = args.evolve(chain=tuple(aliases.get(step.lower(), step) for step in args.chain))
    return Command(name=name, project=project, args=args)


def _object(arguments: str, aliases: Aliases, *, anywhere: bool) -> tuple[str | None, str]:
    """A project named among the arguments, as a whole word, and the arguments without it."""
    words = arguments.split()
    if "then" in [word.lower() for word in words]:
        return None, arguments
    for place, word in enumerate(words if anywhere else words[:1]):
        if (found := aliases.get(word.lower())) and not taken(word):
            return found, " ".join([*words[:place], *words[place + 1 :]])
    return None, arguments


def _nearest(word: str) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(bare(word)[:40], [*BY_NAME, *_SYNONYMS], n=3, cutoff=0.5))


__all__ = [
    "BY_NAME",
    "COMMANDS",
    "Command",
    "CommandArgs",
    "CommandSpec",
    "NotUnderstood",
    "environment",
    "parse",
    "taken",
]
