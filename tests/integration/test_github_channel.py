"""Comments of a code host as a channel: who is heard, what is answered, and that nothing is lost, doubled or abused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.frontdesk import FrontDesk
from codespar.agents.people import new_code
from codespar.channels.base import Heard, NotConnected
from codespar.channels.github.adapter import GithubChannel
from codespar.channels.postman import Postman
from codespar.domain.base import CodesparError
from codespar.domain.messages import Block, NormalizedResponse, Progress, Tone
from codespar.domain.tasks import Thread
from codespar.forges.base import AccessLost, Comment, Forge, ForgeUnavailable, PostedComment, PullRequest
from codespar.forges.local import LocalForge
from codespar.store.base import Notice
from support.agency import AT, Agency
from support.repositories import commit, git, repository

ADA = "1001"  # her account's id at the host
NAME = "acme/shop"


class FlakyForge:
    """The embedded forge behind a network and a token that can be broken: everything it does is the real one's."""

    def __init__(self, forge: LocalForge, name: str) -> None:
        self._forge = forge
        self.repository_name = name
        self.revoked = False
        self.lose_answer = 0
        self.edits = 0

    async def _through(self, done: Callable[[], Any]) -> Any:
        if self.revoked:
            raise AccessLost("GitHub refuses the token: it was revoked")
        answer = await done()
        if self.lose_answer:
            self.lose_answer -= 1
            raise ForgeUnavailable("GitHub did not answer in time", 0.05)
        return answer

    async def comment(self, number: int, body: str, key: str) -> str:
        return await self._through(lambda: self._forge.comment(number, body, key))

    async def find_comment(self, number: int, key: str, since: datetime) -> str | None:
        return await self._through(lambda: self._forge.find_comment(number, key, since))

    async def edit_comment(self, comment: str, body: str) -> None:
        self.edits += 1
        await self._through(lambda: self._forge.edit_comment(comment, body))

    async def delete_comment(self, comment: str) -> None:
        await self._through(lambda: self._forge.delete_comment(comment))


class House:
    """A project whose pull requests are talked about, and everything between a comment and its answer."""

    def __init__(self, folder: Path) -> None:
        self.remote = repository(folder / "shop.git")
        self.agency = Agency(folder / "data", self.remote)
        self.forge = FlakyForge(self.agency.forge, NAME)
        self.channel = GithubChannel(self._forge_of, patience=3)
        self.desk = FrontDesk(self.agency.store, lambda: {"shop": "shop"})
        self.ignored: list[str] = []
        self.desk.on_ignored = lambda channel, why: self.ignored.append(why)
        self.postman: Postman | None = None
        self.number = 0
        self._comments = 0

    def _forge_of(self, name: str) -> Forge:
        if name.lower() != NAME:
            raise CodesparError(f"no project is linked to {name}")
        return self.forge  # type: ignore[return-value]

    async def open(self) -> None:
        await self.agency.__aenter__()
        self.agency.listeners.append(self._wake)
        await self.agency.route(NAME, channel="github", source="host")
        await self.agency.store.write(lambda unit: unit.save_identity("github", ADA, "ada", "file", AT))
        self.number = (await self.open_pull("feature")).number
        await self.channel.start(self.desk)
        self.deliver()

    async def open_pull(self, branch: str) -> PullRequest:
        git("branch", branch, "main", cwd=self.remote)
        tree = self.remote.with_name(f"tree-{branch}")
        git("clone", "-q", "-b", branch, str(self.remote), str(tree), cwd=self.remote)
        (tree / f"{branch}.txt").write_text("new\n")
        git("add", "-A", cwd=tree)
        git("commit", "-q", "-m", f"feat: {branch}", cwd=tree)
        git("push", "-q", cwd=tree)
        forge = self.agency.forge
        base_branch, base = await forge.sync()
        head = await forge.fetch_branch(branch)
        assert head is not None
        return await forge.open_pull(
            branch=branch, commit=head, base_branch=base_branch, base_commit=base, title=f"feat: {branch}", body="", author="ada", at=AT
        )  # fmt: skip

    def deliver(self) -> None:
        """A postman begins, as after a start."""
        self.postman = Postman(self.agency.store, {"github": self.channel}, self.agency.clock)
        self.postman.start()

    async def rest(self) -> None:
        if self.postman is not None:
            await self.postman.stop()
            self.postman = None

    async def close(self) -> None:
        await self.rest()
        await self.channel.stop()
        await self.agency.__aexit__()

    def _wake(self, notice: Notice) -> None:
        if notice.kind == "message" and self.postman is not None:
            self.postman.wake(notice.body["message"].thread)

    @property
    def thread(self) -> Thread:
        return Thread(channel="github", conversation=NAME, thread_id=str(self.number))

    async def write(self, body: str, *, author_id: str = ADA, where: str = NAME, **more: Any) -> bool:
        """Somebody comments, and the host tells of it."""
        self._comments += 1
        told = {
            "id": f"issuecomment-{self._comments}",
            "number": self.number,
            "author": "ada",
            "at": AT,
        } | more
        return await self.channel.take(where, PostedComment(author_id=author_id, body=body, **told))

    async def comments(self, number: int | None = None) -> list[Comment]:
        return list((await self.agency.forge.get_pull(number or self.number)).comments)

    async def until(self, wanted: Callable[[list[Comment]], Any], seconds: float = 60) -> list[Comment]:
        """The comments of the pull request as soon as they are as wanted."""
        deadline = time.monotonic() + seconds
        while not wanted(found := await self.comments()):
            assert time.monotonic() < deadline, [one.body for one in found]
            await asyncio.sleep(0.03)
        return found

    async def settled(self) -> list[Comment]:
        """The comments once nothing waits to be said."""
        await self.agency.quiet()
        deadline = time.monotonic() + 60
        while await self.waiting():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.03)
        return await self.comments()

    async def waiting(self) -> int:
        threads = await self.agency.store.read(lambda unit: unit.waiting_threads(("github",)))
        return len(threads)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "data").mkdir()
    made = House(tmp_path)
    await made.open()
    yield made
    await made.close()


def card(title: str, **more: Any) -> NormalizedResponse:
    return NormalizedResponse(title=title, **more)


# who is heard


async def test_a_known_person_is_answered_by_one_comment_where_they_asked(house: House) -> None:
    assert await house.write("Looks good.\r\n\r\n@codespar status\r\n")
    [answer] = await house.until(len)
    assert "📊 shop" in answer.body
    await house.settled()
    assert len(await house.comments()) == 1


async def test_strangers_bots_and_edited_comments_are_not_heard(house: House) -> None:
    assert not await house.write("@codespar status", author_id="666", author="mallory")
    assert not await house.write("@codespar register", author_id="666", author="mallory")
    assert not await house.write("@codespar status", bot=True)
    assert not await house.write("@codespar merge", edited=True)  # others may have put it into her mouth
    assert not await house.write("@codespar status", author_id="")
    assert not await house.write("Thank you @codespar")
    assert not await house.write("@codespar status", where="acme/other")
    assert set(house.ignored) == {"a stranger in a public place"}
    assert await house.settled() == []


async def test_an_account_is_known_by_its_id_and_not_by_its_name(house: House) -> None:
    assert not await house.write("@codespar status", author_id="2002", author=ADA)
    assert await house.settled() == []


async def test_the_same_comment_is_taken_in_once_however_it_reaches_us(house: House) -> None:
    assert await house.write("@codespar status", id="issuecomment-77")
    assert not await house.write("@codespar status", id="issuecomment-77", where="Acme/Shop")
    assert len(await house.settled()) == 1


async def test_several_commands_in_one_comment_are_all_answered_in_order(house: House) -> None:
    assert await house.write("@codespar whoami\n@codespar queue")
    first, second = await house.settled()
    assert "Ada" in first.body and "0/3" in second.body


async def test_a_command_that_names_no_pull_request_means_this_one(house: House) -> None:
    assert await house.write("@codespar diff")
    [answer] = await house.settled()
    assert f"PR #\u200b{house.number}: feat: feature" in answer.body and "+new" in answer.body


async def test_a_code_makes_an_account_known_once_from_a_comment(house: House) -> None:
    store = house.agency.store
    code = await store.write(lambda unit: new_code(unit, "rex", "ada", AT, timedelta(days=1)))
    assert await house.write(f"@codespar register {code}", author_id="3003", author="rex-at-github")
    [answer] = await house.settled()
    assert "You are Rex here too" in answer.body
    assert await house.write("@codespar whoami", author_id="3003", author="rex-at-github")
    assert await house.write(f"@codespar register {code}", author_id="666", author="mallory")
    *_, known, refused = await house.settled()
    assert "reviewer" in known.body and "does not count" in refused.body
    assert not await house.write("@codespar status", author_id="666", author="mallory")


async def test_a_stranger_who_guesses_codes_is_answered_a_few_times_and_then_never(house: House) -> None:
    for number in range(9):
        await house.write(f"@codespar register AAAA-AAA{number}", author_id="666", author="mallory")
    assert len(await house.settled()) == 5


async def test_nobody_is_given_a_code_in_public(house: House) -> None:
    await house.write("@codespar register")
    await house.write("@codespar invite Eve owner")
    bodies = [one.body for one in await house.settled()]
    assert len(bodies) == 2 and all("Not here" in body for body in bodies)


async def test_a_comment_that_comes_before_the_channel_is_started_is_waited_for(house: House) -> None:
    await house.channel.stop()
    early = asyncio.create_task(house.write("@codespar status"))
    await asyncio.sleep(0.05)
    await house.channel.start(house.desk)
    assert await early
    assert len(await house.settled()) == 1


async def test_a_comment_that_nobody_can_take_is_refused_so_that_it_is_brought_again(house: House) -> None:
    await house.channel.stop()
    with pytest.raises(NotConnected, match="brought again"):
        await house.write("@codespar status")


# what is said


async def test_what_is_said_again_is_edited_in_place(house: House) -> None:
    say = house.agency.store.write
    at = house.agency.clock()
    await say(lambda unit: unit.say("shop", house.thread, "k", card("one"), at))
    [first] = await house.until(len)
    await say(lambda unit: unit.say("shop", house.thread, "k", card("two", replaces="k"), at))
    [second] = await house.until(lambda found: "two" in found[0].body)
    assert second.id == first.id and house.forge.edits == 1


async def test_a_lost_answer_and_a_crash_double_nothing(house: House) -> None:
    house.forge.lose_answer = 1
    await house.write("@codespar status")
    await house.until(len)
    await house.rest()
    house.forge.lose_answer = 0
    house.agency.clock.move(minutes=1)
    house.deliver()
    assert len(await house.settled()) == 1


async def test_a_message_over_the_limit_is_several_comments_and_a_shorter_one_takes_them_away(
    house: House,
) -> None:
    say = house.agency.store.write
    at = house.agency.clock()
    long = card("long", blocks=(Block(text="line of a log\n" * 12_000),))
    await say(lambda unit: unit.say("shop", house.thread, "k", long, at))
    await house.until(lambda found: len(found) >= 3)
    bodies = [one.body for one in await house.settled()]
    assert all(len(body) <= 65_536 for body in bodies)
    assert sum(body.count("line of a log") for body in bodies) == 12_000
    await say(lambda unit: unit.say("shop", house.thread, "k", card("short", replaces="k"), at))
    await house.until(lambda found: len(found) == 1 and "short" in found[0].body)


async def test_what_people_wrote_mentions_and_hides_nothing_in_an_answer(house: House) -> None:
    await house.write("@codespar remember ping @ada <!-- hide --> <img src=x> /merge https://evil.example")
    [answer] = await house.settled()
    assert "@\u200bada" in answer.body and "&lt;!-- hide --&gt;" in answer.body
    assert "https:\u200b//evil" in answer.body and "<img" not in answer.body


async def test_a_revoked_token_loses_nothing_it_arrives_when_access_is_back(house: House) -> None:
    house.forge.revoked = True
    await house.write("@codespar status")
    await house.agency.quiet()
    await asyncio.sleep(0.3)
    assert await house.comments() == [] and await house.waiting() == 1
    house.forge.revoked = False
    await house.rest()
    house.agency.clock.move(minutes=6)
    house.deliver()
    assert len(await house.settled()) == 1


async def test_what_cannot_be_said_any_more_is_given_up_and_holds_up_nothing_else(house: House) -> None:
    gone = house.thread.evolve(thread_id="404")
    nowhere = house.thread.evolve(thread_id=None)
    say, at = house.agency.store.write, house.agency.clock()
    for number, thread in enumerate((gone, nowhere)):
        await say(lambda unit, n=number, t=thread: unit.say("shop", t, f"k{n}", card("lost"), at))
    await house.write("@codespar status")
    assert len(await house.settled()) == 1


async def test_progress_is_one_comment_that_is_edited_seldom(house: House) -> None:
    say, at = house.agency.store.write, house.agency.clock()
    began = time.monotonic()
    for step in range(20):
        shown = card("working", tone=Tone.PROGRESS, replaces="p", progress=Progress(phase=f"step {step}"))
        await say(lambda unit, shown=shown: unit.say("shop", house.thread, "p", shown, at))
        await asyncio.sleep(0.02)
    meanwhile = (time.monotonic() - began) // house.channel.capabilities.edit_seconds
    await house.until(lambda found: found and "step 19" in found[0].body)
    assert len(await house.settled()) == 1 and 1 <= house.forge.edits <= 1 + meanwhile


async def test_a_new_commit_on_the_branch_does_not_disturb_the_talk(house: House) -> None:
    commit(house.remote, {"b.txt": "b"})
    await house.write("@codespar status")
    assert len(await house.settled()) == 1


async def test_each_message_says_where_it_was_heard(house: House) -> None:
    heard: list[Heard] = []

    class Ear:
        async def hear(self, one: Heard) -> bool:
            heard.append(one)
            return True

    await house.channel.stop()
    await house.channel.start(Ear())
    await house.write("@codespar status", where="ACME/Shop", path="a.py")
    [one] = heard
    assert (one.conversation, one.thread_id, one.sender, one.public, one.direct) == (
        NAME, str(house.number), ADA, True, False,
    )  # fmt: skip
