"""The HTTP API: what the command line, scripts and later the dashboard talk to.

Every route under /api asks for a bearer token, and shows only what its person may see. Errors are
`{"error": {"code", "message", "next"}}`. Nothing is acknowledged before it is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import Field
from starlette.types import ASGIApp

from codespar import __version__
from codespar.channels.base import HttpRequest
from codespar.domain.autonomy import Action, AuthorizationVerdict, Context, Resource, Risk, authorize
from codespar.domain.base import Value
from codespar.domain.messages import Channel
from codespar.domain.people import Permission, Person
from codespar.forges.base import PullRequest, PullState
from codespar.store.base import Notice, Unit
from codespar.web.base import ApiError, House
from codespar.web.builds import PostedRun, take_build
from codespar.web.edge import (
    READINESS,
    Edge,
    PostedMessage,
    choose_project,
    message_view,
    readiness,
    take_delivery,
    take_message,
    verify_delivery,
)
from codespar.web.errors import handle_errors
from codespar.web.gate import Gate
from codespar.web.stream import cursor_of, may_read, stream, task_view


class PostedProject(Value):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    repository: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")


class PostedWebhook(Value):
    url: str = Field(max_length=1000, pattern=r"^https?://[^\s/]+(/\S*)?$")


async def authenticated(request: Request, authorization: Annotated[str | None, Header()] = None) -> Person:
    """The person whose bearer token the request carries. Raises `ApiError` (401)."""
    scheme, _, token = (authorization or "").partition(" ")
    house: House = request.app.state.house
    found = house.person_of(token.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise ApiError(
            401,
            "unauthorized",
            "this needs a valid bearer token",
            "the command line's own is in <data_dir>/cli-token; others are set in codespar.yaml",
        )
    return found


Caller = Annotated[Person, Depends(authenticated)]


def create_app(house: House, clock: Callable[[], datetime]) -> ASGIApp:
    """What the server serves: the API behind the edge."""
    return Edge(create_api(house, clock), house, clock)


def create_api(house: House, clock: Callable[[], datetime]) -> FastAPI:
    """The ASGI app over a running house."""
    app = FastAPI(
        title="CodeSpar", version=__version__, description=__doc__ or "", docs_url=None, redoc_url=None
    )

    def chosen(name: str | None) -> str:
        return choose_project(house, name)

    def needs(caller: Person, permission: Permission, project: str | None = None) -> None:
        """Raise `ApiError` (403) unless the caller may: the same question as for a command."""
        decision = authorize(
            caller,
            Action(name=permission.value, permission=permission, risk=Risk.LOW),
            Resource(project=project or "", autonomy=0),
            Context(at=clock(), policy=house.policy(), channel=Channel.WEB),
        )
        if decision.verdict is not AuthorizationVerdict.ALLOW:
            able = ", ".join(decision.who_could)
            told = f"ask one of: {able}" if able else "see docs/permissions.md"
            raise ApiError(403, "forbidden", f"{decision.reason} Rule: {decision.rule}.", told)

    app.state.house = house
    handle_errors(app)
    app.add_middleware(Gate)

    # health

    @app.get("/healthz", tags=["health"])
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get(READINESS, tags=["health"])
    async def readyz() -> JSONResponse:
        status, body = readiness(house)
        return JSONResponse(body, status)

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        return Response(house.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/v1/version", tags=["health"])
    async def version(caller: Caller) -> JSONResponse:
        return JSONResponse(
            {"version": __version__, "id": caller.id, "person": caller.name, "role": caller.role.value}
        )

    # messages

    @app.post("/api/v1/messages", tags=["messages"])
    async def post_message(posted: PostedMessage, caller: Caller) -> JSONResponse:
        """Say something as the token's person. The answers come back, or with `"wait": false` just the news that it is committed (202)."""
        status, answer = await take_message(house, clock, caller, posted)
        return JSONResponse(answer, status)

    @app.get("/api/v1/messages", tags=["messages"])
    async def get_messages(
        caller: Caller,
        thread: Annotated[str | None, Query(max_length=300)] = None,
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> JSONResponse:
        """Messages after a cursor, oldest first. `cursor` is where to go on; it is `after` itself when there is nothing more."""
        needs(caller, Permission.VIEW_STATUS)
        found = await house.store.read(lambda unit: unit.messages(thread, after, limit))
        shown = [message_view(sent) for sent in found if may_read(caller, sent)]
        return JSONResponse({"messages": shown, "cursor": found[-1].seq if found else after})

    @app.get("/api/v1/events", tags=["messages"])
    async def events(
        caller: Caller,
        project: str | None = None,
        after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        needs(caller, Permission.VIEW_STATUS)
        cursor = cursor_of(last_event_id) if last_event_id else after
        return StreamingResponse(
            stream(house, caller, project, cursor),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    # what there is

    @app.get("/api/v1/channels", tags=["channels"])
    async def channels(caller: Caller) -> JSONResponse:
        """The chat platforms that are set up, and which conversation serves which project."""
        needs(caller, Permission.VIEW_ACTIVITY_LOG)
        routes = await house.store.read(lambda unit: unit.routes())
        return JSONResponse(
            {"channels": house.channel_states(), "routes": [route.wire() for route in routes]}
        )

    @app.get("/api/v1/projects", tags=["projects"])
    async def projects(caller: Caller) -> JSONResponse:
        needs(caller, Permission.VIEW_STATUS)

        def read(unit: Unit) -> list[dict[str, Any]]:
            """Each with why its repository cannot be read, which is empty where it can."""
            return [one.wire() | {"problem": unit.problem(one.name)} for one in unit.projects()]

        return JSONResponse({"projects": await house.store.read(read)})

    @app.post("/api/v1/projects", tags=["projects"], status_code=201)
    async def link_project(posted: PostedProject, caller: Caller) -> JSONResponse:
        needs(caller, Permission.LINK_CHANNEL, posted.name)
        linked = await house.link(posted.name, posted.repository, caller)
        return JSONResponse(linked.wire() | {"watched": house.how_watched(linked.name)}, 201)

    @app.post("/api/v1/projects/{name}/webhook", tags=["projects"], status_code=201)
    async def register_webhook(name: str, posted: PostedWebhook, caller: Caller) -> JSONResponse:
        """Have the project's code host send its webhooks to this server, at the address by which the host reaches it."""
        needs(caller, Permission.LINK_CHANNEL, name)
        return JSONResponse({"done": await house.register_webhook(name, posted.url)}, 201)

    @app.post("/api/v1/projects/{name}/builds", tags=["projects"], status_code=201)
    async def report_build(name: str, posted: PostedRun, caller: Caller) -> JSONResponse:
        """Say how a run of a continuous integration stands. Only a project of the embedded forge is told so (409): another host knows its own."""
        project = chosen(name)
        needs(caller, Permission.INSTRUCT_AGENT, project)
        taken = await take_build(house.forge(project), posted, clock())
        house.bus.publish([Notice(kind="published", key=posted.id, project=project)])  # it is looked at now
        return JSONResponse(taken, 201)

    @app.get("/api/v1/agents", tags=["projects"])
    async def agents(caller: Caller, project: str | None = None, ended: bool = False) -> JSONResponse:
        needs(caller, Permission.VIEW_STATUS)
        found = await house.store.read(lambda unit: unit.agents(project, live_only=not ended))
        return JSONResponse({"agents": [agent.wire() for agent in found]})

    @app.get("/api/v1/tasks", tags=["tasks"])
    async def tasks(
        caller: Caller,
        project: str | None = None,
        status: str | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> JSONResponse:
        needs(caller, Permission.VIEW_STATUS)

        def read(unit: Any) -> list[dict[str, Any]]:
            return [
                task_view(task, unit.open_tasks(task.project)) for task in unit.tasks(project, status, limit)
            ]

        return JSONResponse({"tasks": await house.store.read(read)})

    @app.get("/api/v1/tasks/{task_id}", tags=["tasks"])
    async def task(task_id: str, caller: Caller) -> JSONResponse:
        needs(caller, Permission.VIEW_STATUS)

        def read(unit: Any) -> dict[str, Any] | None:
            found = unit.task(task_id)
            return task_view(found, unit.open_tasks(found.project)) if found else None

        if (found := await house.store.read(read)) is None:
            raise ApiError(404, "no_such_task", f"there is no task {task_id}", "GET /api/v1/tasks lists them")
        return JSONResponse(found)

    @app.get("/api/v1/prs", tags=["prs"])
    async def pulls(
        caller: Caller, project: str | None = None, state: PullState | None = None
    ) -> JSONResponse:
        needs(caller, Permission.VIEW_DIFFS, project)
        found = await house.forge(chosen(project)).list_pulls(state)
        return JSONResponse({"prs": [_pull(pull) for pull in found]})

    @app.get("/api/v1/prs/{project}/{number}", tags=["prs"])
    async def pull(project: str, number: int, caller: Caller) -> JSONResponse:
        needs(caller, Permission.VIEW_DIFFS, project)
        return JSONResponse(_pull(await house.forge(chosen(project)).get_pull(number)))

    @app.get("/api/v1/prs/{project}/{number}/diff", tags=["prs"])
    async def pull_diff(project: str, number: int, caller: Caller) -> PlainTextResponse:
        needs(caller, Permission.VIEW_DIFFS, project)
        forge = house.forge(chosen(project))
        found = await forge.get_pull(number)
        return PlainTextResponse(await forge.diff(found.base_commit, found.head_commit))

    @app.get("/api/v1/approvals", tags=["approvals"])
    async def approvals(caller: Caller, project: str | None = None, state: str | None = None) -> JSONResponse:
        needs(caller, Permission.VIEW_STATUS)
        found = await house.store.read(lambda unit: unit.approvals(project, state))
        return JSONResponse({"approvals": [approval.wire() for approval in found]})

    @app.get("/api/v1/audit", tags=["audit"])
    async def audit(
        caller: Caller, project: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> JSONResponse:
        needs(caller, Permission.VIEW_AUDIT)
        return JSONResponse(
            {"entries": await house.store.read(lambda unit: unit.audit_entries(limit, project))}
        )

    @app.get("/api/v1/audit/verify", tags=["audit"])
    async def verify_audit(caller: Caller) -> JSONResponse:
        needs(caller, Permission.VIEW_AUDIT)
        report = await house.store.read(lambda unit: unit.verify_audit())
        return JSONResponse(report.wire())

    @app.get("/api/v1/search", tags=["projects"])
    async def search(
        caller: Caller, q: Annotated[str, Query(min_length=1, max_length=500)], project: str | None = None
    ) -> JSONResponse:
        name = chosen(project)
        needs(caller, Permission.VIEW_DIFFS, name)
        _, commit = await house.forge(name).sync()
        await house.index(name).update(house.forge(name).base_repository, commit)
        return JSONResponse(
            {"hits": [asdict(hit) for hit in await house.index(name).search(q)], "commit": commit}
        )

    # signed deliveries from outside

    @app.post("/webhooks/{source}", tags=["webhooks"])
    async def webhook(source: str, request: Request) -> JSONResponse:
        """Keep a signed delivery. Sent again under the same id it is accepted again and changes nothing. GitHub's own scheme is at `github`."""
        body = await request.body()
        if source == "github":
            headers = {name.lower(): value for name, value in request.headers.items()}
            status, answer = await house.webhook(headers, body)
            return JSONResponse(answer, status)
        delivery = verify_delivery(source, body, request.headers, clock())
        status, answer = await take_delivery(house, source, delivery, body)
        return JSONResponse(answer, status)

    @app.api_route("/channels/{channel}/{path:path}", methods=["GET", "POST"], tags=["webhooks"])
    async def channel(channel: str, path: str, request: Request) -> Response:
        """A chat platform's own request. Its adapter checks the signature over the raw body."""
        if channel not in house.channel_states():
            raise ApiError(
                404, "no_such_channel", f"{channel[:40]} is not set up here", "see docs/channels.md"
            )
        asked = HttpRequest(
            method=request.method,
            path=path,
            query=dict(request.query_params),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.body(),
        )
        answer = await house.channel_request(channel, asked)
        return Response(answer.body, answer.status, answer.headers, answer.content_type)

    return app


def _pull(pull: PullRequest) -> dict[str, Any]:
    return pull.wire() | {
        "additions": pull.additions,
        "deletions": pull.deletions,
        "filesChanged": len(pull.files),
    }
