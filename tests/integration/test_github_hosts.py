"""Projects at GitHub: linked, looked at, their webhooks registered; and that neither a look nor a webhook doubles the other.

The code host is emulate with git over HTTP; it signs and sends webhooks of its own where that is said.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from codespar.app import now
from codespar.cli.client import Client
from codespar.cli.doctor import unreadable
from codespar.cli.talk import link_repository
from codespar.domain.base import CodesparError
from codespar.domain.people import Person, Role
from codespar.forges.base import AccessLost, Polled
from codespar.forges.local import LocalForge
from support.github.emulate import BOT_TOKEN, Emulate
from support.github.linked import (
    NUMBERS,
    SECRET,
    Given,
    link,
    linked,
    people,
    pull_opened,
    refusal,
    served,
)
from support.github.site import Site
from support.platforms.slack import FakeSlack
from support.repositories import git, repository
from support.team import Team

NOBODY = "0" * 40


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    with Emulate(tmp_path_factory.mktemp("github")) as running:
        yield running


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("seed") / "bare", {"src/app.py": "x = 1\n"})


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESPAR_GITHUB_TOKEN", BOT_TOKEN)
    monkeypatch.setenv("CODESPAR_GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("SECRET_OF_OTHER", "the secret of the project other")


@pytest.fixture
async def site(host: Emulate) -> AsyncIterator[Site]:
    async with Site(host).running() as running:
        yield running


@pytest.fixture
async def given(site: Site, seed: Path, tmp_path: Path) -> AsyncIterator[Given]:
    async with linked(site, seed, tmp_path) as made:
        yield made


# linking


async def test_a_repository_is_linked_by_name_or_url_and_the_answer_says_how_news_reach_us(
    given: Given, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await asyncio.to_thread(given.site.host.repository, f"other-{next(NUMBERS)}", seed)
    third = await asyncio.to_thread(given.site.host.repository, f"third-{next(NUMBERS)}", seed)
    hosts = given.team.app.hosts
    async with served(given.team) as server:
        linked = await link(server, other.full_name)
        assert "webhooks at POST /webhooks/github" in linked["watched"]
        assert "3600 s" in linked["watched"]
        url = f"{given.site.url}/{third.full_name}.git"
        await link_repository(server, url, "third", None, as_json=False)
        local = await link(server, str(seed))
    assert hosts._linked.name("third") == third.full_name
    assert "News: webhooks at POST /webhooks/github" in capsys.readouterr().out
    assert "is looked at every 1 s" in local["watched"]
    assert (await given.team.app.forge("third").sync())[0] == "main", (
        "fetched from its git side, with the token"
    )
    assert (await given.send("push", given.payload("push"))).json() == {
        "accepted": True,
        "new": False,
        "ignored": "a tag moved: branches alone are watched",
    }


async def test_without_a_secret_the_answer_says_that_it_is_polled(
    site: Site, seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODESPAR_GITHUB_WEBHOOK_SECRET")
    async with linked(site, seed, tmp_path, project={"webhook_secret_env": "UNSET_HERE"}) as given:
        assert given.team.app.how_watched("shop").startswith("polling: it is looked at every 3600 s")
        answer = await given.send("push", given.payload("push"))
        assert refusal(answer) == (404, "no_such_source")
        assert "CODESPAR_GITHUB_WEBHOOK_SECRET" in answer.json()["error"]["next"]


async def test_a_link_that_fails_leaves_nothing_behind(given: Given) -> None:
    async with served(given.team) as server:
        with pytest.raises(CodesparError, match="acme/nowhere"):
            await link(server, "acme/nowhere")
    payload = given.payload("issues", "opened")
    payload["repository"] |= {"full_name": "acme/nowhere", "id": 999}
    answer = await given.send("issues", payload)
    assert answer.json()["ignored"].startswith("no project is linked to acme/nowhere")


async def test_linking_a_repository_in_chat_that_is_a_project_already_makes_no_second_one(
    given: Given,
) -> None:
    """Two would review each of its pull requests twice, and tell every broken build twice."""
    name, projects = given.github.full_name, given.team.app.projects
    ada = Person(id="ada", name="Ada", role=Role.OWNER)
    for said in (name, name.upper(), f"{given.site.url}/{name}.git"):
        assert await projects.link_from_chat(said, ada) == ("shop", name)
    assert projects.names() == ["shop"]


async def test_without_credentials_the_server_starts_and_says_which_variable_to_set(
    site: Site, seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODESPAR_GITHUB_TOKEN")
    rooms = [{"channel": "slack", "conversation": FakeSlack().room}]
    settings = {
        "github": {"api_url": site.url},
        "people": people(site),
        "projects": [
            {"name": "shop", "repository": "acme/anything", "channels": rooms},
            {"name": "local", "repository": str(seed)},
        ],
    }
    team = Team(tmp_path / "house", [FakeSlack()], seed, settings=settings)
    async with team as up:
        told = await up.sees("slack", "The repository of shop cannot be read")
        assert "set CODESPAR_GITHUB_TOKEN" in told.text
        assert (await up.app.forge("local").sync())[0] == "main"
        async with served(up) as server:
            with pytest.raises(CodesparError, match="set CODESPAR_GITHUB_TOKEN"):
                await link(server, "acme/other")
            async with Client(server) as client:
                with pytest.raises(CodesparError, match="set CODESPAR_GITHUB_TOKEN"):
                    await client.post("/api/v1/projects/shop/webhook", {"url": "https://here.example"})
    assert not [line for line, _ in site.asked if "acme/anything" in line]


# looking


async def test_what_happened_while_the_server_was_down_is_found_once_and_not_doubled_by_late_webhooks(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    async with linked(site, seed, tmp_path, project={"autonomy": 3}) as given:
        good = git("rev-parse", "main", cwd=given.github.bare)
        given.site.run(70, good, "success")
        await given.looked()
        await given.team.down()

        tree = given.github.bare.with_name("offline")
        git("clone", "-q", str(given.github.bare), str(tree), cwd=given.github.bare)
        git("switch", "-q", "-c", "feature/one", cwd=tree)
        (tree / "one.txt").write_text("one\n")
        git("add", "-A", cwd=tree)
        git("commit", "-q", "-m", "feat: one", cwd=tree)
        git("push", "-q", "origin", "HEAD", cwd=tree)
        head = git("rev-parse", "HEAD", cwd=tree)
        pull = await site.as_ada(
            given.github, "POST", "/pulls", {"title": "feat: one", "head": "feature/one", "base": "main"}
        )
        said = await site.as_ada(
            given.github, "POST", f"/issues/{pull['number']}/comments", {"body": "@codespar help status"}
        )
        site.run(71, good, "failure", minutes=5)

        await given.team.up()
        await given.team.until(lambda: given.team.app.hosts._linked.ids)
        await given.looked()
        await given.looked()
        await given.settle()
        kinds = [one.kind for one in await given.news()]
        found = {kind: kinds.count(kind) for kind in ("push", "pull", "run")}
        assert found == {"push": 1, "pull": 1, "run": 1} or kinds.count("run") == 2
        assert await given.heard() == ["help status"]
        reviews = await given.team.app.store.read(lambda unit: unit.reviews("shop"))
        assert [(one.number, one.head_commit) for one in reviews] == [(pull["number"], head)]

        late = pull_opened(given, head, number=pull["number"], title="feat: one")
        run = given.payload("workflow_run", "completed")
        run["workflow_run"] |= site.run(71, good, "failure", minutes=5)
        words = given.payload("issue_comment", "created")
        words["issue"]["number"], words["comment"] = pull["number"], said
        for event, payload in (("pull_request", late), ("workflow_run", run), ("issue_comment", words)):
            assert (await given.send(event, payload)).status_code == 202
        await given.settle()
        assert await given.heard() == ["help status"]
        assert len(await given.team.app.store.read(lambda unit: unit.reviews("shop"))) == 1
        assert len(given.told("PR #1 opened: feat: one")) == 1
        assert len(await given.audit("build.broke")) <= 1
        [standing] = await given.team.app.store.read(lambda unit: unit.standings("shop"))
        assert standing.broken_by is not None and standing.broken_by.id == "71"


async def test_a_revoked_token_is_told_once_and_so_is_that_it_works_again(given: Given, seed: Path) -> None:
    async with served(given.team) as server:
        await link(server, str(seed), name="local")
    given.site.revoked = True
    for _ in range(3):
        await given.looked()
    await given.settle()
    [told] = given.told("The repository of shop cannot be read")
    assert "CODESPAR_GITHUB_TOKEN" in told or "refuses our credentials" in told
    assert BOT_TOKEN not in told
    await given.slack.say("ada", "help")
    await given.team.sees("slack", "status")
    await given.team.app.hosts.look("local")
    await given.team.down()
    given.site.revoked = False
    await given.team.up()
    await given.team.sees("slack", "The repository of shop can be read again")
    await given.looked()
    await given.settle()
    assert len(given.told("can be read again")) == 1
    assert len(given.told("cannot be read")) == 1


async def problem(given: Given) -> str:
    return (await given.team.app.store.read(lambda unit: unit.watch("shop"))).problem


async def test_the_first_call_that_is_refused_tells_it_and_the_first_that_is_not_that_it_works_again(
    given: Given,
) -> None:
    """Where webhooks come, the next look is a quarter of an hour away."""
    forge = given.team.app.forge("shop")
    given.site.refusing = "This installation has been suspended"
    for _ in range(3):
        with pytest.raises(AccessLost, match="suspended"):
            await forge.list_pulls()
    await given.team.sees("slack", "The repository of shop cannot be read")
    assert "suspended" in await problem(given)
    await given.slack.say("ada", "status")
    await given.team.sees("slack", "Repository: cannot be read")
    async with served(given.team) as server, Client(server) as client:
        shown = (await client.get("/api/v1/projects"))["projects"]
        assert "suspended" in shown[0]["problem"]
        [check] = unreadable(given.team.app.settings, shown)
        assert not check.ok and check.name == "repository of shop" and "suspended" in check.detail
        given.site.refusing = ""
        for _ in range(3):
            await forge.list_pulls()
        await given.team.sees("slack", "The repository of shop can be read again")
        assert unreadable(given.team.app.settings, (await client.get("/api/v1/projects"))["projects"]) == []
    await given.team.sees("slack", "The repository of shop can be read again")
    await given.looked()
    await given.settle()
    assert await problem(given) == ""
    assert len(given.told("The repository of shop cannot be read")) == 1
    assert len(given.told("can be read again")) == 1
    assert [one["action"] for one in await given.audit("forge.lost", "forge.found")] == [
        "forge.lost",
        "forge.found",
    ]


async def test_a_revoked_token_is_seen_by_whoever_lends_it_to_git_as_well(given: Given) -> None:
    forge = given.team.app.forge("shop")
    given.site.revoked = True
    with pytest.raises(AccessLost, match="refuses the token in CODESPAR_GITHUB_TOKEN"):
        await forge.list_pulls()
    await given.team.sees("slack", "The repository of shop cannot be read")
    assert "CODESPAR_GITHUB_TOKEN" in await problem(given)
    hosts = given.team.app.hosts
    before = (await given.team.app.store.read(lambda unit: unit.watch("shop"))).evolve(problem="")
    await hosts._bring_in("shop", before, Polled(cursor=before.cursor | {"count": 1}))
    assert await problem(given), "what a look asked before that is no sign that all is well"
    with pytest.raises(AccessLost):
        await forge.sync()
    await given.settle()
    assert len(given.told("cannot be read")) == 1


async def test_a_permission_that_is_lacking_is_no_sign_that_the_repository_cannot_be_read(
    given: Given,
) -> None:
    given.site.refusing = "Resource not accessible by personal access token"
    with pytest.raises(AccessLost):
        await given.team.app.forge("shop").list_pulls()
    assert not given.team.app.hosts._refused.get("shop") and not given.team.app.hosts._noting
    assert await problem(given) == ""


async def test_at_l0_lost_access_is_recorded_and_shown_when_asked_but_not_told(given: Given) -> None:
    await given.slack.say("ada", "autonomy L0")
    await given.team.sees("slack", "Autonomy L0")
    given.site.revoked = True
    await given.looked()
    await given.settle()
    assert not given.told("cannot be read")
    assert await given.audit("forge.lost")
    await given.slack.say("ada", "status")
    await given.team.sees("slack", "Repository: cannot be read")


@pytest.mark.parametrize("trouble", ["limited", "away"])
async def test_a_host_that_asks_for_patience_or_does_not_answer_is_not_told_of(
    given: Given, trouble: str
) -> None:
    setattr(given.site, trouble, True)
    wait = await given.team.app.hosts.look("shop")
    assert wait >= (1700 if trouble == "limited" else 60)
    await given.settle()
    assert not given.told("cannot be read")
    watch = await given.team.app.store.read(lambda unit: unit.watch("shop"))
    assert watch.problem == ""


async def test_a_store_that_fails_does_not_end_the_looking(given: Given) -> None:
    hosts = given.team.app.hosts
    await given.team.app.store.close()
    hosts.look_soon("shop")
    await asyncio.sleep(0.6)
    assert not hosts._looking["shop"].done()


async def test_a_quiet_repository_costs_conditional_requests_alone(given: Given) -> None:
    for _ in range(4):
        await given.looked()
    given.site.asked.clear()
    await given.looked()
    assert [status for _, status in given.site.asked] == [304] * 5, given.site.asked


# registering


async def test_a_webhook_is_registered_when_it_is_asked_for_once_and_github_is_believed(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(given.team) as server:
        hooks = f"GET /repos/{given.github.full_name}/hooks"
        assert hooks not in given.site.count(), "nothing of webhooks is asked without being told to"
        for _ in range(2):
            await link_repository(server, given.github.full_name, "shop", server.url, as_json=False)
        said = capsys.readouterr().out
        address = f"{server.url}/webhooks/github"
        assert f"sends its webhooks to {address} now" in said
        assert f"to {address} is up to date" in said
        [hook] = await given.site.as_ada(given.github, "GET", "/hooks")
        assert (hook["config"]["url"], hook["active"]) == (address, True)
        assert {"push", "pull_request", "issue_comment", "workflow_run"} <= set(hook["events"])
        changes = [line for line, _ in given.site.asked if "/hooks" in line and not line.startswith("GET")]
        assert [line.partition(" ")[0] for line in changes] == ["POST", "PATCH"]
        path = given.team.folder / "data" / "webhooks" / "shop"
        assert path.stat().st_mode & 0o777 == 0o600
        own = path.read_text().strip()
        assert len(own) >= 40 and own not in said

        issue = await given.site.as_ada(given.github, "POST", "/issues", {"title": "talk"})
        await given.site.as_ada(
            given.github, "POST", f"/issues/{issue['number']}/comments", {"body": "@codespar whoami"}
        )
        deadline = time.monotonic() + 60
        while not await given.heard() and time.monotonic() < deadline:  # noqa: ASYNC110 - the store is asked
            await asyncio.sleep(0.05)
        sent = await given.site.as_ada(given.github, "GET", f"/hooks/{hook['id']}/deliveries")
        assert await given.heard() == ["whoami"], f"emulate signed and sent it: {sent}"
        assert refusal(await given.send("pull_request", pull_opened(given))) == (401, "bad_signature"), (
            "what is signed with the installation's secret counts no more"
        )
        assert (await given.send("pull_request", pull_opened(given), secret=own)).json()["new"]


async def test_a_webhook_that_cannot_be_registered_leaves_no_secret_behind(given: Given) -> None:
    given.site.revoked = True
    async with served(given.team) as server, Client(server) as client:
        with pytest.raises(CodesparError, match="refuses the token in CODESPAR_GITHUB_TOKEN"):
            await client.post("/api/v1/projects/shop/webhook", {"url": "https://codespar.example.com"})
    assert not list((given.team.folder / "data" / "webhooks").iterdir())
    assert (await given.send("pull_request", pull_opened(given))).json()["new"], "as before"


# what is not at GitHub


async def test_a_path_that_did_not_change_costs_no_process(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    bare = repository(tmp_path / "quiet.git")
    git("clone", "-q", str(bare), str(tree), cwd=tmp_path)
    for source, change in ((bare, bare), (tree, tree)):
        forge = LocalForge(tmp_path / f"forge-{source.name}", str(source))
        cursor = (await forge.poll({})).cursor
        cursor = (await forge.poll(cursor)).cursor
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(20):
            assert (await forge.poll(cursor)).news == ()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (after.ru_minflt, after.ru_utime) == (before.ru_minflt, before.ru_utime), "no process ran"
        git("branch", "-q", "feature/two", "main", cwd=change)
        [news] = (await forge.poll(cursor)).news
        assert news.what.branch == "feature/two"  # type: ignore[union-attr]
        cursor = (await forge.poll(cursor)).cursor
        git("pack-refs", "--all", cwd=change)
        git("branch", "-q", "-D", "feature/two", cwd=change)
        [news] = (await forge.poll(cursor)).news
        assert news.what.after == NOBODY  # type: ignore[union-attr]
        cursor = (await forge.poll(cursor)).cursor
        await forge.open_pull(
            branch="b",
            commit=(await forge.sync())[1],
            base_branch="main",
            base_commit=(await forge.sync())[1],
            title="t",
            body="",
            author="ada",
            at=now(),
        )
        [news] = (await forge.poll(cursor)).news
        assert news.what.kind == "pull", "our own records changed"
