"""GitHub with a memory: npm `emulate`, and beside it the git server that it has not.

Both know the same commits: emulate's objects are git's own, with the same ids. Before each request that comes to `front.url` what was pushed
to its repository is told to emulate by its Git Data API; after one that changes something, what emulate merged is put into the git repository
and `refs/pull/<n>/head` is written.

What emulate 0.12.2 cannot, so that nobody concludes anything from it:
- an inline comment of a review must have a `position`; one with `line` is refused with 422, and the review stays, without it
- a pull request's head does not follow its branch; its list of files is empty; its body may be longer than GitHub takes
- commit statuses, deployments, rule sets, GraphQL, jobs of an attempt, an artefact's content: 404
- runs cannot be asked for by commit; nothing makes one but a dispatched workflow
- anybody may approve their own pull request, comment where they should not, and post any number of reviews at once
- no ETags, no rate limits
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from support.githttp import GitServer
from support.github import node, stop, wait_for
from support.github.front import Front
from support.ports import free_port
from support.repositories import git

ORGANIZATION = "acme"
BOT, BOT_TOKEN = "codespar-bot", "github_pat_bot"
ADA, ADA_TOKEN = "ada", "github_pat_ada"


class Emulate:
    """One server for any number of repositories. `apps` are emulate's own seeds of GitHub Apps."""

    def __init__(self, folder: Path, *, apps: list[dict[str, Any]] | None = None) -> None:
        self._folder = folder
        self._apps = apps or []
        self._process: subprocess.Popen[bytes] | None = None
        self._repositories: dict[str, Repository] = {}
        self.front = Front(before=self._before, after=self._after)
        (folder / "git" / ORGANIZATION).mkdir(parents=True)
        self.git = GitServer(folder / "git", "x-access-token", BOT_TOKEN)

    def __enter__(self) -> Emulate:
        self.front.__enter__()
        self.git.__enter__()
        seed = self._folder / "seed.json"
        seed.write_text(json.dumps(self._seed()))
        port, log = free_port(), self._folder / "emulate.log"
        options = ("--service", "github", "--port", str(port), "--base-url", self.front.url)
        self._process = node("emulate/dist/index.js", "start", *options, "--seed", str(seed), log=log)
        wait_for(self._process, port, log, 120)
        self.front.behind = port
        headers = {"Authorization": f"Bearer {ADA_TOKEN}"}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()
        if self._process is not None:
            stop(self._process)
        self.git.__exit__()
        self.front.__exit__()

    def _seed(self) -> dict[str, Any]:
        members = [{"login": name, "role": "admin"} for name in (ADA, BOT)]
        return {
            "tokens": {BOT_TOKEN: {"login": BOT}, ADA_TOKEN: {"login": ADA}},
            "github": {
                "users": [{"login": BOT}, {"login": ADA}],
                "orgs": [{"login": ORGANIZATION, "members": members}],
                "apps": self._apps,
            },
        }

    def repository(self, name: str, source: Path) -> Repository:
        """A new repository with the branches of a bare one at `source`."""
        bare = self._folder / "git" / ORGANIZATION / f"{name}.git"
        shutil.copytree(source, bare)
        made = self.api.post(f"/orgs/{ORGANIZATION}/repos", json={"name": name})
        assert made.status_code == 201, made.text[:300]
        repository = Repository(self, name, bare)
        self._repositories[repository.full_name] = repository
        repository.tell_pushed()
        return repository

    def _before(self, method: str, path: str) -> None:
        if asked := self._asked(path):
            asked.tell_pushed()

    def _after(self, method: str, path: str) -> None:
        if method != "GET" and (asked := self._asked(path)):
            asked.take_merged()

    def repository_at(self, path: str) -> Repository:
        """The one that a request's path is about."""
        return self._repositories["/".join(path.split("/")[2:4])]

    def _asked(self, path: str) -> Repository | None:
        return self._repositories.get("/".join(path.split("/")[2:4]))


class Repository:
    """One repository on both sides. `bare` is its git side."""

    def __init__(self, host: Emulate, name: str, bare: Path) -> None:
        self.full_name = f"{ORGANIZATION}/{name}"
        self.bare = bare
        self.git_url = f"http://{host.git.address}/{self.full_name}.git"
        self._api = host.api
        self._told: dict[str, str] = {}  # branch → commit, the same on both sides
        self._objects: set[str] = set()
        self._heads: dict[int, str] = {}

    def as_ada(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What a person does meanwhile: a request of Ada's that nobody counts. `path` begins after the repository's name."""
        self.tell_pushed()
        told = self._call(method, path, body)
        self.take_merged()
        return told

    # the two sides

    def tell_pushed(self) -> None:
        """Tell emulate what was pushed. Called before every request, it costs one look at the references."""
        here = _branches(self.bare)
        for branch in self._told.keys() - here.keys():
            self._call("DELETE", f"/git/refs/heads/{branch}")
            del self._told[branch]
        for branch, commit in here.items():
            if self._told.get(branch) == commit:
                continue
            self._tell_commits(commit)
            if branch in self._told:
                self._call("PATCH", f"/git/refs/heads/{branch}", {"sha": commit, "force": True})
            else:
                self._call("POST", "/git/refs", {"ref": f"refs/heads/{branch}", "sha": commit})
            self._told[branch] = commit

    def take_merged(self) -> None:
        """Put what emulate merged into the git repository, and write the references of pull requests as GitHub does."""
        if not self._told:
            return
        for one in self._call("GET", "/branches?per_page=100"):
            if self._told.get(one["name"]) == one["commit"]["sha"]:
                continue
            commit = self._call("GET", f"/git/commits/{one['commit']['sha']}")
            assert self._commit(commit) == commit["sha"], "a commit of emulate's is not git's"
            git("update-ref", f"refs/heads/{one['name']}", commit["sha"], cwd=self.bare)
            self._objects.add(commit["sha"])
            self._told[one["name"]] = commit["sha"]
        for pull in self._call("GET", "/pulls?state=all&per_page=100"):
            number, head = pull["number"], pull["head"]["sha"]
            if self._heads.get(number) != head:
                git("update-ref", f"refs/pull/{number}/head", head, cwd=self.bare)
                self._heads[number] = head

    def _commit(self, commit: Mapping[str, Any]) -> str:
        who = {
            f"GIT_{role.upper()}_{part.upper()}": commit[role][part]
            for role in ("author", "committer")
            for part in ("name", "email", "date")
        }
        parents = [word for parent in commit["parents"] for word in ("-p", parent["sha"])]
        made = subprocess.run(
            ["git", "commit-tree", commit["tree"]["sha"], *parents],
            cwd=self.bare,
            env=who,
            input=commit["message"] + ("" if commit["message"].endswith("\n") else "\n"),
            capture_output=True,
            text=True,
            check=True,
        )
        return made.stdout.strip()

    def _tell_commits(self, tip: str) -> None:
        for commit in git("rev-list", "--reverse", "--topo-order", tip, cwd=self.bare).split():
            if commit in self._objects:
                continue
            entries = []
            for line in git("ls-tree", "-r", commit, cwd=self.bare).splitlines():
                head, path = line.split("\t")
                mode, kind, id = head.split()
                if kind == "blob" and id not in self._objects:
                    self._tell_blob(id)
                entries.append({"path": path, "mode": mode, "type": kind, "sha": id})
            tree = self._call("POST", "/git/trees", {"tree": entries})["sha"]
            shown = git(
                "log",
                "-1",
                "--format=%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B",
                commit,
                cwd=self.bare,
            )
            parents, *people, message = shown.split("\0")
            made = self._call(
                "POST",
                "/git/commits",
                {
                    "message": message,
                    "tree": tree,
                    "parents": parents.split(),
                    "author": dict(zip(("name", "email", "date"), people[:3], strict=True)),
                    "committer": dict(zip(("name", "email", "date"), people[3:], strict=True)),
                },
            )["sha"]
            assert made == commit, (
                f"emulate made {made} of {commit}: is it dated in UTC, with one newline at its end?"
            )
            self._objects.add(commit)

    def _tell_blob(self, id: str) -> None:
        content = subprocess.run(
            ["git", "cat-file", "blob", id], cwd=self.bare, capture_output=True, check=True
        ).stdout
        body = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
        assert self._call("POST", "/git/blobs", body)["sha"] == id
        self._objects.add(id)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self._api.request(
            method, f"/repos/{self.full_name}{path}", json=body if body is None else dict(body)
        )
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json() if answer.content else None


def _branches(bare: Path) -> dict[str, str]:
    """Read as files: it is asked before every request, and a process each time would take longer than all the rest.
    What git takes away meanwhile is looked for again: it stands in another file, or nowhere."""
    while True:
        with suppress(FileNotFoundError):
            return _read(bare)


def _read(bare: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    packed = bare / "packed-refs"
    for line in packed.read_text().splitlines() if packed.exists() else ():
        commit, _, ref = line.partition(" ")
        if ref.startswith("refs/heads/"):
            found[ref.removeprefix("refs/heads/")] = commit
    heads = bare / "refs" / "heads"
    for path in heads.rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            found[str(path.relative_to(heads))] = path.read_text().strip()
    return found
