"""The commands of `codespar`, and what their endings mean: 0 ok, 1 the work failed, 2 usage, 3 no server answers.

Only this module and `doctor` look at the settings; everything else about projects and tasks is asked of the server.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from codespar import __version__
from codespar.domain.base import CodesparError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespar.cli.client import Server

OK, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="codespar",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
audit = typer.Typer(no_args_is_help=True, help="The record of who did what.")
app.add_typer(audit, name="audit")
build = typer.Typer(no_args_is_help=True, help="Builds of projects whose code host is the embedded one.")
app.add_typer(build, name="build")


def _told_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def program(
    told: Annotated[
        bool,
        typer.Option("--version", callback=_told_version, is_eager=True, help="The version of this program."),
    ] = False,
) -> None:
    """Persistent agents for your projects, in your terminal. `codespar up` starts the server, `codespar chat` talks to it."""


ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", help="The server's address; else CODESPAR_URL, else the settings.", metavar="URL"
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The settings file; else CODESPAR_CONFIG, else ./codespar.yaml.", metavar="FILE"
    ),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="The project; needed when several are linked.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command()
def up(config: ConfigOption = None) -> None:
    """Run the server until SIGTERM or Ctrl-C."""
    gc.disable()  # what is imported stays; the server switches it on again
    from codespar.app.server import serve
    from codespar.config import load_settings

    settings = load_settings(config, os.environ)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))


@app.command()
def chat(server: ServerOption = None, config: ConfigOption = None, project: ProjectOption = None) -> None:
    """Talk to a project's agent: history, completion, live progress. Reads lines when its input is piped."""
    from codespar.cli.chat import run_chat

    raise typer.Exit(asyncio.run(run_chat(_server(server, config), project)))


@app.command()
def send(
    message: Annotated[str, typer.Argument(help='What to say, such as "instruct add a health endpoint".')],
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow what this starts until it ends: tasks, a review, a merge.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 7200,
    json: JsonOption = False,
    project: ProjectOption = None,
    server: ServerOption = None,
    config: ConfigOption = None,
) -> None:
    """Send one message and print the answers. Ends with 0 only if nothing failed."""
    from codespar.cli.talk import send_message

    if not message.strip():
        _stop('there is nothing to send; `codespar send "help"` lists the commands', USAGE)
    where = _server(server, config)
    try:
        ok = asyncio.run(
            send_message(where, message, project=project, wait=wait, timeout=timeout, as_json=json)
        )
    except KeyboardInterrupt:
        if wait:
            told = 'no longer waiting. What was begun goes on: `codespar status` shows it, `codespar send "cancel <id>"` ends a task'
            _stop(told, INTERRUPTED)
        raise
    raise typer.Exit(OK if ok else FAILED)


@app.command()
def link(
    repository: Annotated[
        str, typer.Argument(help="`owner/name` at GitHub, a URL that git understands, or a path.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The project's name; else that of the repository.")
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="URL",
            help="Register a webhook to this address of the server, with a generated secret. Nothing is registered without it.",
        ),
    ] = None,
    json: JsonOption = False,
    server: ServerOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a repository a project, and say how its news will reach the server."""
    from codespar.cli.talk import link_repository

    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", name):
        _stop(f"--name {name} must be lower-case letters, digits and dashes, 61 at most", USAGE)
    asyncio.run(link_repository(_server(server, config), repository, name, webhook, as_json=json))


@app.command()
def status(
    json: JsonOption = False,
    project: ProjectOption = None,
    server: ServerOption = None,
    config: ConfigOption = None,
) -> None:
    """The server, its projects, and what runs, waits and is asked."""
    from codespar.cli.talk import show_status

    asyncio.run(show_status(_server(server, config), project=project, as_json=json))


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What to look for: names, words, parts of them.")],
    json: JsonOption = False,
    project: ProjectOption = None,
    server: ServerOption = None,
    config: ConfigOption = None,
) -> None:
    """Places in a project's code, best first."""
    from codespar.cli.talk import show_hits

    found = asyncio.run(show_hits(_server(server, config), " ".join(words), project=project, as_json=json))
    raise typer.Exit(OK if found else FAILED)


@build.command("report")
def build_report(
    project: Annotated[str, typer.Argument(help="The project; its code host must be the embedded one.")],
    workflow: Annotated[str, typer.Option(help="What was run, such as `tests`.")],
    commit: Annotated[str, typer.Option(help="The commit's full id.")],
    branch: Annotated[str, typer.Option(help="The branch it was run for.")],
    conclusion: Annotated[
        str | None,
        typer.Option(help="How it ended: success, failure, cancelled, …; without it, it is under way."),
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="The job that is reported; else the workflow's name.")
    ] = None,
    step: Annotated[str, typer.Option(help="The job's step that failed.")] = "",
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="The job's log; `-` reads standard input.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The run's id, the same for each of its attempts; else a new one."),
    ] = None,
    attempt: Annotated[int, typer.Option(min=1, help="Which attempt of the run it is.")] = 1,
    url: Annotated[str, typer.Option(help="Where people see the run.")] = "",
    json: JsonOption = False,
    server: ServerOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell a project's agent how a build stands."""
    from codespar.cli.builds import CONCLUSIONS, Report, report_build

    if conclusion is not None and conclusion not in CONCLUSIONS:
        _stop(f"--conclusion {conclusion} is none of: {', '.join(CONCLUSIONS)}", USAGE)
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        _stop(f"--commit {commit} is no commit's full id; `git rev-parse HEAD` prints one", USAGE)
    report = Report(
        workflow=workflow,
        commit=commit,
        branch=branch,
        conclusion=conclusion,
        job=job or workflow,
        step=step,
        run=run,
        attempt=attempt,
        url=url,
    )
    asyncio.run(report_build(_server(server, config), project, report, log, as_json=json))


@audit.command("verify")
def audit_verify(json: JsonOption = False, server: ServerOption = None, config: ConfigOption = None) -> None:
    """Check that nothing in the record was edited, removed or reordered."""
    from codespar.cli.talk import verify_audit

    whole = asyncio.run(verify_audit(_server(server, config), as_json=json))
    raise typer.Exit(OK if whole else FAILED)


@app.command()
def doctor(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Say what is missing on this machine and how to get it."""
    from codespar.cli.doctor import examine, report

    checks = asyncio.run(examine(config, os.environ))
    raise typer.Exit(OK if report(checks, as_json=json) else FAILED)


@app.command()
def clean(
    older: Annotated[
        str, typer.Option("--older-than", help="Not used for so long, such as 14d or 12h.")
    ] = "14d",
    config: ConfigOption = None,
) -> None:
    """Pack our repositories, and remove our container images that nobody uses any more. A server does so by itself, once a day."""
    from datetime import timedelta

    from codespar.app.housekeeping import remove_unused_images
    from codespar.app.packing import pack_repositories
    from codespar.config import load_settings
    from codespar.config.units import duration
    from codespar.domain.tasks import counted

    try:
        seconds = duration(older)
    except ValueError as error:
        _stop(f"--older-than {error}", USAGE)
    if seconds < 3600:
        _stop("--older-than must be at least 1h: a task may be about to start from what was just made", USAGE)
    settings = load_settings(config, os.environ)
    files, freed = asyncio.run(pack_repositories(settings.data_dir.resolve() / "repos"))
    typer.echo(f"Packed our repositories: {counted(files, 'file')} fewer, about {freed / 1024**2:.0f} MiB.")
    typer.echo(
        f"Removing images of ours that nobody has used for {older}. With many this takes minutes; Ctrl-C ends it.",
        err=True,
    )
    removed, freed = asyncio.run(remove_unused_images(settings, timedelta(seconds=seconds)))
    typer.echo(f"Removed {counted(removed, 'image')}, about {freed / 1024**2:.0f} MiB.")


@app.command()
def init(
    force: Annotated[
        bool, typer.Option("--force", help="Write a new one even so; the old file is kept beside it.")
    ] = False,
) -> None:
    """Write a commented codespar.yaml here. An existing one is never overwritten."""
    from codespar.cli.init import NEXT, write_example

    written, kept = write_example(Path("codespar.yaml"), force=force)
    if kept:
        typer.echo(f"The old file is kept as {kept}.")
    typer.echo(f"Wrote {written}. {NEXT}")


@app.command()
def demo(
    json: JsonOption = False,
    repo: Annotated[
        str | None, typer.Option(help="Your own repository instead of the sample: a path or a URL.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="What to do there; may be given several times.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", envvar="KEEP", help="Leave the server up at the end.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Where the demo keeps its data.", metavar="FOLDER")] = Path(
        ".codespar/demo"
    ),
    timeout: Annotated[float, typer.Option(min=10, help="Seconds for the whole demo at most.")] = 3600,
) -> None:
    """Four coding tasks at once, from message to pull request, on a server of its own."""
    from codespar.cli.demo import Plan, run_demo

    if repo and not task:
        _stop("--repo says where; say what to do there with --task", USAGE)
    plan = Plan(
        repository=repo,
        tasks=tuple(task or ()),
        keep=keep,
        data=data.resolve(),
        seconds=timeout,
        as_json=json,
    )
    raise typer.Exit(OK if asyncio.run(run_demo(plan, os.environ)) else FAILED)


@app.command()
def version() -> None:
    """The version of this program."""
    typer.echo(f"codespar {__version__}")


def main() -> None:
    """The `codespar` program."""
    from codespar.cli.client import ServerUnreachable

    for stream in (sys.stdout, sys.stderr):  # a terminal without our marks shows `?` for them
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except ServerUnreachable as error:
        _stop(str(error), UNREACHABLE)
    except CodesparError as error:
        _stop(str(error), FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _server(server: str | None, config: Path | None) -> Server:
    from codespar.cli.client import locate

    return locate(server, config, os.environ)


def _stop(message: str, code: int) -> NoReturn:
    from codespar.channels.cli import clean

    typer.echo(f"codespar: {clean(message)}", err=True)
    raise SystemExit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop
