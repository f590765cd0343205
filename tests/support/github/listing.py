"""The reading half of GitHub over real sockets: lists with `since`, `sort`, pages and ETags, of objects shaped like its published examples.

It is ours, and knows what polling asks for and nothing else: any other path is 404. A request that GitHub's own API description does not know
is 422, and noted in `faults`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from aiohttp import web

from support.github import description
from support.github.payloads import example


@cache
def _described() -> list[tuple[re.Pattern[str], dict[str, dict[str, Any]]]]:
    """The GET requests of GitHub's own API description, with what each may be asked with."""
    whole = description()
    found: list[tuple[re.Pattern[str], dict[str, dict[str, Any]]]] = []
    for template, methods in whole["paths"].items():
        if "get" not in methods or not template.startswith("/repos/"):
            continue
        parameters: dict[str, dict[str, Any]] = {}
        for given in methods["get"].get("parameters", []):
            name = given.get("$ref", "").rpartition("/")[2]
            one = whole["components"]["parameters"][name] if name else given
            if one["in"] == "query":
                parameters[one["name"]] = one["schema"]
        pattern = re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(template))
        found.append((re.compile(pattern), parameters))
    return found


def _faults(path: str, query: Mapping[str, str]) -> list[str]:
    """What GitHub's API description says against a request."""
    fitting = [(pattern, known) for pattern, known in _described() if pattern.fullmatch(path)]
    if not fitting:
        return [f"GET {path} is not described"]
    _, known = min(fitting, key=lambda one: one[0].pattern.count("[^/]+"))
    faults = [f"GET {path} knows no {name}" for name in query if name not in known]
    for name, value in query.items():
        allowed = known.get(name, {}).get("enum")
        if allowed and value not in allowed:
            faults.append(f"GET {path}: {name}={value} is none of {allowed}")
    return faults


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


@cache
def _lean(event: str, action: str, place: int) -> str:
    def without_links(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_links(v) for k, v in value.items() if not k.endswith("_url") and k != "_links"}
        return [without_links(item) for item in value] if isinstance(value, list) else value

    return json.dumps(without_links(example(event, action, place)))


def _shape(event: str, action: str, place: int = 0) -> dict[str, Any]:
    """A copy of a published example, without the addresses that make up most of it."""
    return json.loads(_lean(event, action, place))


class Listing:
    """One repository, `octo/world`, and who asked for what."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.name = "octo/world"
        self.former: list[str] = []
        self.repository = _shape("pull_request", "opened")["repository"]
        self.repository |= {"id": 42, "default_branch": "main", "archived": False}
        self.branches = {"main": commit(0)}
        self.activity: list[dict[str, Any]] = []
        self.pulls: dict[int, dict[str, Any]] = {}
        self.issues: dict[int, dict[str, Any]] = {}
        self.reviews: dict[int, list[dict[str, Any]]] = {}
        self.comments: list[dict[str, Any]] = []
        self.line_comments: list[dict[str, Any]] = []
        self.runs: dict[int, dict[str, Any]] = {}
        self.attempts: dict[tuple[int, int], dict[str, Any]] = {}
        self.checks: dict[str, list[dict[str, Any]]] = {}
        self.statuses: dict[str, list[dict[str, Any]]] = {}
        self.refused: dict[str, int] = {}  # status by the end of a path
        self.limited_after: int | None = None  # requests until the quota is used up
        self.asked: Counter[str] = Counter()
        self.faults: list[str] = []  # requests that GitHub's own description does not know
        self.unchanged = 0
        self.url = ""
        self._ids = 1000

    async def __aenter__(self) -> Listing:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def forget(self) -> None:
        """Count from here on."""
        self.asked.clear()
        self.unchanged = 0

    def pass_time(self, **much: float) -> datetime:
        self.now += timedelta(**much)
        return self.now

    def _id(self) -> int:
        self._ids += 1
        return self._ids

    def pull(self, number: int, **fields: Any) -> dict[str, Any]:
        """Open a pull request, or change one, as of now."""
        pull = self.pulls.get(number)
        if pull is None:
            pull = _shape("pull_request", "opened")["pull_request"]
            pull |= {
                "number": number,
                "title": f"change {number}",
                "created_at": stamp(self.now),
                "draft": False,
            }
            pull["head"] |= {"ref": f"feat-{number}", "sha": commit(number)}
            pull["base"]["ref"] = "main"
        head = fields.pop("head", None)
        pull |= fields | {"updated_at": stamp(self.now)}
        if head:
            pull["head"]["sha"] = head
        self.pulls[number] = pull
        self.issue(number, pull_request={"url": "…"}, title=pull["title"])
        return pull

    def issue(self, number: int, **fields: Any) -> dict[str, Any]:
        issue = self.issues.get(number)
        if issue is None:
            issue = _shape("issues", "opened")["issue"]
            issue |= {
                "number": number,
                "title": f"issue {number}",
                "created_at": stamp(self.now),
                "labels": [],
            }
        self.issues[number] = issue | fields | {"updated_at": stamp(self.now)}
        return self.issues[number]

    def review(self, number: int, state: str, body: str = "") -> dict[str, Any]:
        review = _shape("pull_request_review", "submitted")["review"]
        review |= {"id": self._id(), "state": state, "body": body, "submitted_at": stamp(self.now)}
        self.reviews.setdefault(number, []).append(review)
        self.pull(number)
        return review

    def comment(self, number: int, body: str) -> dict[str, Any]:
        said = _shape("issue_comment", "created")["comment"]
        said |= {"id": self._id(), "body": body, "created_at": stamp(self.now), "updated_at": stamp(self.now)}
        said["issue_url"] = f"{self.url}/repos/{self.name}/issues/{number}"
        self.comments.append(said)
        self.issue(number)
        return said

    def line_comment(self, number: int, body: str) -> dict[str, Any]:
        said = _shape("pull_request_review_comment", "created")["comment"]
        said |= {"id": self._id(), "body": body, "created_at": stamp(self.now), "updated_at": stamp(self.now)}
        said["pull_request_url"] = f"{self.url}/repos/{self.name}/pulls/{number}"
        self.line_comments.append(said)
        self.pull(number)
        return said

    def run(self, id: int, **fields: Any) -> dict[str, Any]:
        run = self.runs.get(id)
        if run is None:
            run = _shape("workflow_run", "completed", 1)["workflow_run"]
            run |= {"id": id, "name": "CI", "head_branch": "main", "head_sha": commit(0), "event": "push"}
            run |= {"status": "queued", "conclusion": None, "created_at": stamp(self.now), "workflow_id": 7}
            run["head_repository"]["id"] = run["repository"]["id"] = 42
        elif fields.get("run_attempt", 0) > run["run_attempt"]:
            self.attempts[id, run["run_attempt"]] = dict(run)
        self.runs[id] = run | fields | {"updated_at": stamp(self.now)}
        return self.runs[id]

    def check(self, sha: str, name: str, app: str, conclusion: str | None) -> None:
        check = _shape("check_run", "completed")["check_run"]
        check |= {"id": self._id(), "name": name, "head_sha": sha, "conclusion": conclusion}
        check |= {"status": "completed" if conclusion else "in_progress", "started_at": stamp(self.now)}
        check |= {"completed_at": stamp(self.now) if conclusion else None}
        check["app"] |= {"slug": app}
        kept = [one for one in self.checks.get(sha, []) if one["name"] != name]
        self.checks[sha] = [*kept, check]

    def status(self, sha: str, context: str, state: str) -> None:
        told = {
            "context": context,
            "state": state,
            "created_at": stamp(self.now),
            "updated_at": stamp(self.now),
        }
        kept = [one for one in self.statuses.get(sha, []) if one["context"] != context]
        self.statuses[sha] = [*kept, told | {"description": "", "target_url": None}]

    def push(self, branch: str, to: str | None, kind: str = "push") -> None:
        old = self.branches.pop(branch, "0" * 40)
        if to is not None:
            self.branches[branch] = to
        actor = {"login": "mona", "id": 5, "type": "User"}
        step = {"ref": f"refs/heads/{branch}", "before": old, "after": to or "0" * 40, "activity_type": kind}
        self.activity.insert(0, step | {"timestamp": stamp(self.now), "actor": actor})

    async def _answer(self, request: web.Request) -> web.Response:
        path = "/" + request.match_info["path"]
        self.asked[path] += 1
        if self.limited_after is not None:
            self.limited_after -= 1
            if self.limited_after < 0:
                reset = str(int(self.now.timestamp()) + 3000)
                headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
                return web.json_response({"message": "API rate limit exceeded"}, status=403, headers=headers)
        for end, status in self.refused.items():
            if path.endswith(end):
                return web.json_response({"message": "Not here"}, status=status)
        parts = path.strip("/").split("/")
        name = "/".join(parts[1:3])
        if parts[0] == "repos" and name in self.former:
            rest = "/".join(parts[3:])
            where = f"{self.url}/repositories/42{'/' + rest if rest else ''}"
            return web.json_response(
                {"message": "Moved Permanently", "url": where}, status=301, headers={"location": where}
            )
        if parts[:2] == ["repositories", "42"]:
            parts = ["repos", *self.name.split("/"), *parts[2:]]
        elif parts[0] != "repos" or name != self.name:
            return web.json_response({"message": "Not Found"}, status=404)
        if faults := _faults("/" + "/".join(parts), request.query):
            self.faults += faults
            return web.json_response({"message": "; ".join(faults)}, status=422)
        found = self._found(parts[3:], dict(request.query))
        if found is None:
            return web.json_response({"message": "Not Found"}, status=404)
        body = json.dumps(found).encode()
        etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        if request.headers.get("if-none-match") == etag:
            self.unchanged += 1
            return web.Response(status=304, headers={"etag": etag})
        headers = {"etag": etag}
        follows = dict(request.query) | {"page": str(int(request.query.get("page", 1)) + 1)}
        paged = "sort" in request.query or parts[3:4] == ["commits"]
        if paged and _items(self._found(parts[3:], follows)):
            headers["link"] = f'<{request.url.update_query(follows)}>; rel="next"'
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _found(self, rest: list[str], query: dict[str, str]) -> Any:
        match rest:
            case []:
                return self.repository | {"full_name": self.name}
            case ["git", "matching-refs", "heads"]:
                return [
                    {"ref": f"refs/heads/{name}", "object": {"type": "commit", "sha": sha}}
                    for name, sha in sorted(self.branches.items())
                ]
            case ["activity"]:
                return self.activity
            case ["pulls"]:
                return _page([p for p in self.pulls.values() if query["state"] in ("all", p["state"])], query)
            case ["pulls", "comments"]:
                return _page(self.line_comments, query)
            case ["pulls", number, "reviews"]:
                return self.reviews.get(int(number), [])
            case ["issues"]:
                return _page(list(self.issues.values()), query)
            case ["issues", "comments"]:
                return _page(self.comments, query)
            case ["actions", "runs"]:
                runs = [
                    r for r in self.runs.values() if query.get("branch", r["head_branch"]) == r["head_branch"]
                ]
                newest = sorted(runs, key=lambda run: (run["created_at"], run["id"]), reverse=True)
                return {"total_count": len(runs), "workflow_runs": _cut(newest, query)}
            case ["actions", "runs", id]:
                return self.runs.get(int(id))
            case ["actions", "runs", id, "attempts", number]:
                return self.attempts.get((int(id), int(number)))
            case ["commits", sha, "check-runs"]:
                checks = self.checks.get(sha, [])
                return {"total_count": len(checks), "check_runs": _cut(checks, query)}
            case ["commits", sha, "status"]:
                return {"state": "pending", "sha": sha, "statuses": _cut(self.statuses.get(sha, []), query)}
            case _:
                return None


def _items(found: Any) -> list[Any]:
    """The list, also where it stands in an envelope."""
    if isinstance(found, dict):
        return next(value for value in found.values() if isinstance(value, list))
    return found or []


def _page(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    assert query["sort"] == "updated"
    since = [item for item in items if item["updated_at"] >= query.get("since", "")]
    down = query["direction"] == "desc"
    key = "number" if items and "number" in items[0] else "id"
    return _cut(sorted(since, key=lambda item: (item["updated_at"], item[key]), reverse=down), query)


def _cut(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
    assert size <= 100
    return items[size * (page - 1) : size * page]
