"""A whole GitHub at one address, as `api_url` of the settings names it: emulate for the API, git's own server for the commits.

It passes on what it is asked, and adds what emulate 0.12.2 has not: ETags; the lists of all comments of a repository and of all its issues
(with its pull requests, moved by what is said in them), put together of emulate's own; the runs, jobs and logs of GitHub Actions (emulate
serves those of runs that nothing there can make); a refused token, a rate limit, an outage. What it answers by itself is shaped like GitHub's
published examples. Every request to the API is noted, with its status.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web

from support.github.api import served
from support.github.emulate import ADA_TOKEN, BOT_TOKEN, Emulate, Repository
from support.github.payloads import example

_GIT = re.compile(r"/[^/]+/[^/]+\.git/")
_DROPPED = {"content-length", "transfer-encoding", "connection", "host", "content-encoding", "date", "server"}


class Site:
    """Stands at `url`. One repository's Actions are in `runs`, newest last. `ada` is Ada's id."""

    url: str
    ada: str

    def __init__(self, host: Emulate) -> None:
        self.host = host
        self.asked: list[tuple[str, int]] = []  # `METHOD /path`, and the status
        self.revoked = False  # the bot's token is
        self.refusing = ""  # the words with which all that the bot asks is forbidden
        self.limited = False  # its quota is used up
        self.gone = ""  # the full name of a repository that was taken away
        self.away = False
        self.runs: list[dict[str, Any]] = []
        self.jobs: dict[int, list[dict[str, Any]]] = {}  # by run
        self.logs: dict[int, bytes] = {}  # by job
        self.log_requests = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Site]:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as self._line,
            served(self._serve) as self.url,
            served(self._serve_log) as self._blobs,
        ):
            headers = {"Authorization": f"Bearer {ADA_TOKEN}"}
            async with self._line.get(f"{self.host.front.url}/user", headers=headers) as answer:
                self.ada = str(json.loads(await answer.read())["id"])
            yield self

    async def as_ada(
        self, repository: Repository, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        """What a person does meanwhile; nobody counts it. `path` begins after the repository's name."""
        headers = {"Authorization": f"Bearer {ADA_TOKEN}"}
        url = f"{self.host.front.url}/repos/{repository.full_name}{path}"
        async with self._line.request(method, url, json=body, headers=headers) as answer:
            content = await answer.read()
            assert answer.status < 400, content[:500]
            return json.loads(content) if content else None

    def count(self) -> Counter[str]:
        """How often each path was asked for, and answered other than "not modified"."""
        return Counter(line for line, status in self.asked if status != 304)

    def run(
        self,
        number: int,
        sha: str,
        conclusion: str | None,
        *,
        branch: str = "main",
        minutes: float = 0,
        title: str = "feat: totals",
    ) -> dict[str, Any]:
        """A run of the workflow `tests`, this many minutes after an hour ago; a number again is the same run, as it is now."""
        at = (datetime.now(UTC) - timedelta(hours=1) + timedelta(minutes=minutes)).isoformat(
            timespec="seconds"
        )
        made = example("workflow_run", "completed")["workflow_run"] | {
            "id": number,
            "name": "tests",
            "workflow_id": 5,
            "path": ".github/workflows/tests.yml",
            "display_title": title,
            "event": "push",
            "head_branch": branch,
            "head_sha": sha,
            "status": "completed" if conclusion else "in_progress",
            "conclusion": conclusion,
            "run_attempt": 1,
            "created_at": at,
            "run_started_at": at,
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "pull_requests": [],
            "head_repository": None,
        }
        self.runs = [one for one in self.runs if one["id"] != number] + [made]
        return made

    def failed_job(self, run: int, job: int, name: str, step: str, log: bytes) -> None:
        self.jobs[run] = [
            {
                "id": job,
                "run_id": run,
                "name": name,
                "status": "completed",
                "conclusion": "failure",
                "html_url": f"{self.url}/acme/x/actions/runs/{run}/job/{job}",
                "steps": [{"number": 1, "name": step, "status": "completed", "conclusion": "failure"}],
            }
        ]
        self.logs[job] = log

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        if self.away:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        if _GIT.match(request.path):
            if self.revoked:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
            return await self._passed(request, content, f"http://{self.host.git.address}")
        answer = (
            self._own(request)
            or await self._lists(request)
            or await self._passed(request, content, self.host.front.url)
        )
        body = answer.body if isinstance(answer.body, bytes) else b""
        if request.method == "GET" and answer.status == 200:
            etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
            if request.headers.get("If-None-Match") == etag:
                answer = web.Response(status=304)
            answer.headers["ETag"] = etag
        self.asked.append((f"{request.method} {request.path}", answer.status))
        return answer

    def _own(self, request: web.Request) -> web.Response | None:
        if self.revoked and request.headers.get("Authorization", "").endswith(BOT_TOKEN):
            return web.json_response({"message": "Bad credentials"}, status=401)
        if self.refusing:
            return web.json_response({"message": self.refusing}, status=403)
        if self.limited:
            reset = str(int(datetime.now(UTC).timestamp()) + 1800)
            headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset, "X-RateLimit-Limit": "5000"}
            return web.json_response({"message": "API rate limit exceeded"}, status=403, headers=headers)
        if self.gone and request.path.startswith(f"/repos/{self.gone}"):
            return web.json_response({"message": "Not Found"}, status=404)
        path = request.path.partition("/actions/")[2]
        if path == "runs":
            wanted = {"branch": "head_branch", "head_sha": "head_sha"}
            found = [
                run
                for run in reversed(self.runs)
                if all(request.query.get(name, run[key]) == run[key] for name, key in wanted.items())
            ]
            return web.json_response({"total_count": len(found), "workflow_runs": found})
        if found := re.fullmatch(r"runs/(\d+)", path):
            run = next((one for one in self.runs if one["id"] == int(found[1])), None)
            return web.json_response(run or {"message": "Not Found"}, status=200 if run else 404)
        if found := re.fullmatch(r"runs/(\d+)/attempts/1/jobs", path):
            jobs = self.jobs.get(int(found[1]), [])
            return web.json_response({"total_count": len(jobs), "jobs": jobs})
        if found := re.fullmatch(r"jobs/(\d+)/logs", path):
            return web.Response(status=302, headers={"Location": f"{self._blobs}/logs/{found[1]}?sig=x"})
        return None

    async def _lists(self, request: web.Request) -> web.Response | None:
        """Lists of a whole repository that emulate has not, or not whole."""
        if request.method != "GET":
            return None
        if request.path.endswith(("/activity", "/pulls/comments")):
            return web.json_response([])
        if re.search(r"/commits/[0-9a-f]{40}/status$", request.path):
            return web.json_response({"state": "pending", "statuses": [], "total_count": 0})
        if not request.path.endswith(("/issues/comments", "/issues")):
            return None
        repository = self.host.repository_at(request.path)
        issues: dict[int, dict[str, Any]] = {}
        comments: dict[int, dict[str, Any]] = {}
        kinds: tuple[tuple[str, dict[str, Any]], ...] = (("issues", {}), ("pulls", {"pull_request": {}}))
        for kind, more in kinds:
            for one in await self.as_ada(repository, "GET", f"/{kind}?state=all&per_page=100"):
                path = f"/issues/{one['number']}/comments?per_page=100"
                said = [_whole(each) for each in await self.as_ada(repository, "GET", path)]
                comments |= {each["id"]: each for each in said}
                moved = max([one["updated_at"], *(each["updated_at"] for each in said)])
                issues[one["number"]] = one | {"updated_at": moved} | more
        listed = (comments if request.path.endswith("comments") else issues).values()
        kept = [one for one in listed if one["updated_at"] >= request.query.get("since", "")]
        return web.json_response(sorted(kept, key=lambda one: one["updated_at"]))

    async def _serve_log(self, request: web.Request) -> web.StreamResponse:
        self.log_requests += 1
        if "Authorization" in request.headers:
            return web.Response(status=400, text="InvalidAuthenticationInfo")
        return web.Response(body=self.logs[int(request.path.rpartition("/")[2])])

    async def _passed(self, request: web.Request, content: bytes, to: str) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _DROPPED}
        if "Content-Encoding" in request.headers:
            headers["Content-Encoding"] = request.headers["Content-Encoding"]
        url = to + request.raw_path
        async with self._line.request(
            request.method, url, data=content or None, headers=headers, allow_redirects=False
        ) as answer:
            body = await answer.read()
            told = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED}
            for name in ("Link", "Location"):
                if name in told:
                    told[name] = told[name].replace(self.host.front.url, self.url)
            return web.Response(status=answer.status, headers=told, body=body)


def _whole(comment: dict[str, Any]) -> dict[str, Any]:
    """Its times in whole seconds, as GitHub's are. Emulate touches a comment twice when it is made, a millisecond apart: it is not edited."""
    made, moved = (datetime.fromisoformat(comment[name]) for name in ("created_at", "updated_at"))
    if moved - made < timedelta(seconds=0.5):
        moved = made
    times = {"created_at": made, "updated_at": moved}
    return comment | {name: at.strftime("%Y-%m-%dT%H:%M:%SZ") for name, at in times.items()}
