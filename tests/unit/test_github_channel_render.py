"""What a comment says to us, and how answers are written: Markdown in which nothing that people wrote does anything."""

from __future__ import annotations

import html
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.channels.github.render import MOST, comments
from codespar.channels.github.said import MOST_MESSAGES, addressed, here
from codespar.domain.messages import Action, Block, FieldLine, Link, NormalizedResponse, Progress
from support.responses import attached

# what is said to us


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("@codespar status", "status"),
        ("@CodeSpar: status", "status"),
        ("  @codespar, status", "status"),
        ("Thank you all!\n\n@codespar review", "review"),
        ("Thank you all!\r\n\r\n@codespar review\r\n", "review"),
        ("> what do you think?\n\n@codespar review", "review"),
        ("> what do you think?\n@codespar review", "review"),
        ("```\nsome code\n```\n@codespar review", "review"),
        ("~~~py\n```\n~~~\n@codespar review", "review"),
        ("<!-- template -->\n@codespar review", "review"),
        ("we use `<!--` here\n\n@codespar review", "review"),
        ("@codespar", ""),
        ("@codespar instruct add\n\n- a\n- b", "instruct add\n\n- a\n- b"),
        ("@codespar instruct keep\n> this\n```py\nx = 1\n```", "instruct keep\n> this\n```py\nx = 1\n```"),
        ("@codespar  instruct  two  spaces ", "instruct  two  spaces"),
    ],
)
def test_what_stands_behind_a_mention_at_the_start_of_a_line_is_said_to_us(body: str, said: str) -> None:
    assert addressed(body) == (said,)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "status",
        "I asked @codespar status already",
        "ask ada@codespar.dev, or codespar@example.org",
        "@codespar.dev is our domain",
        "@codespar-bot status",
        "@codespar_bot status",
        "@codespar2 status",
        "@codespar/reviewers please look",
        "> @codespar merge",
        ">@codespar merge",
        "   > @codespar merge",
        "> quoted\n> @codespar merge\n\nI agree",
        "    @codespar merge",
        "\t@codespar merge",
        "  \t@codespar merge",
        "```\n@codespar merge\n```",
        "```sh\n@codespar merge",
        "````\n```\n@codespar merge\n````",
        "~~~\n@codespar merge\n```\n@codespar merge\n~~~",
        "```\n@codespar merge\n``` not the end\n@codespar merge",
        "`@codespar merge`",
        "- @codespar merge",
        "<!--\n@codespar merge\n-->",
        "Fixes it. <!-- hidden\n@codespar merge\n-->",
        "<!-- a --> <!--\n@codespar merge\n--> <!--\n@codespar merge\n-->",
        "<!--\n@codespar merge",
    ],
)
def test_what_is_quoted_or_code_or_hidden_or_about_somebody_else_is_not_said_to_us(body: str) -> None:
    assert addressed(body) == ()


def test_several_mentions_are_several_messages_in_order() -> None:
    body = "@codespar status\n\nand then\n@codespar instruct a\nb\n> @codespar kill\n@codespar prs"
    assert addressed(body) == ("status\n\nand then", "instruct a\nb\n> @codespar kill", "prs")
    many = addressed("@codespar status\n" * 50)
    assert len(many) == MOST_MESSAGES and many[0] == "status" and many[-1].count("@codespar") == 40


@pytest.mark.parametrize(
    "piece",
    ["`", "~", " ", "\t", ">", "@", "@codespar ", "<!--", "-->", "<!---->", "\n", "\r", "\r\n", "```\n", "> ", "    ", "`` \n", "@codespar x\n"],
)  # fmt: skip
def test_a_comment_as_long_as_can_be_is_read_at_once_whatever_it_repeats(piece: str) -> None:
    body = (piece * 65_536)[:65_536]
    began = time.process_time()
    addressed(body)
    here(body, 1)
    assert time.process_time() - began < 1.0


@given(st.text(alphabet="@codespar `~>\n\r\t<!->x", max_size=80))
@settings(max_examples=300, deadline=None)
def test_nothing_is_heard_that_is_not_there(body: str) -> None:
    text = body.replace("\r\n", "\n").replace("\r", "\n")
    for said in addressed(body):
        assert said in text


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("review", "review PR #7"),
        ("Review", "Review PR #7"),
        (" review ", "review PR #7"),
        ("diff", "diff PR #7"),
        ("approve", "approve PR #7"),
        ("merge", "merge PR #7"),
        ("merge squash", "merge PR #7 squash"),
        ("merge  REBASE", "merge PR #7  REBASE"),
        ("review #3", "review #3"),
        ("merge PR #3 squash", "merge PR #3 squash"),
        ("merge now", "merge now"),
        ("merge squash now", "merge squash now"),
        ("review squash", "review squash"),
        ("approve dp-7k2m9q", "approve dp-7k2m9q"),
        ("status", "status"),
        ("instruct review", "instruct review"),
        ("", ""),
    ],
)
def test_a_command_that_needs_a_pull_request_means_the_one_it_is_written_in(said: str, meant: str) -> None:
    assert here(said, 7) == meant


# what we say

EVIL = [
    "@ada", "@everyone", "@org/team", "<img src=x onerror=alert(1)>", "<!-- hidden -->", "</details>", "<details><summary>x", "&lt;",
    "#12", "org/repo#12", "GH-12", "https://evil.example/x", "www.evil.example", "[x](https://evil.example)", "![x](https://evil.example/p.png)",
    "```suggestion\nrm -rf /\n```", "```", "~~~", "`", "/lgtm", "\n/merge\n", "@dependabot merge", "@codespar kill", "\n@codespar kill\n", "*b*",
    "_i_", "# head", "- item", "1. one", "===", "\x00", "\u202e", "\ud800", "\r\n", "a|b\n-|-", "$x$", "x" * 900, "@x " * 400, "`" * 500,
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(EVIL), max_size=4).map("".join), st.sampled_from(EVIL)
)
responses = st.builds(
    NormalizedResponse,
    title=texts,
    text=texts,
    fields=st.lists(st.builds(FieldLine, name=texts, value=texts), max_size=4).map(tuple),
    blocks=st.lists(st.builds(Block, language=st.one_of(st.sampled_from(["", "diff", "suggestion"]), texts), text=texts, title=texts), max_size=3).map(tuple),
    links=st.lists(st.builds(Link, label=texts, url=st.one_of(texts, st.sampled_from(["https://a.example/b?c=1#d", "https://a.example/>\n@ada", "javascript:alert(1)", "http://[bad", "https://"]))), max_size=3).map(tuple),
    progress=st.none() | st.builds(Progress, phase=texts),
    actions=st.lists(st.builds(Action, label=texts, command=texts), max_size=3).map(tuple),
    attachments=st.lists(st.builds(attached, name=texts, media_type=st.just("x/y"), size=st.integers(0, 9), sha256=st.just("0")), max_size=2).map(tuple),
    agent=st.none() | texts,
)  # fmt: skip
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


def outside_of_code(body: str) -> str:
    """The body without its code blocks and code spans: what GitHub gives a meaning."""
    kept: list[str] = []
    fence = ""
    for line in body.split("\n"):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip("`~"):
                fence = ""
        elif mark and "`" not in line[mark.end() :]:
            fence = mark[1]
            assert "suggestion" not in line.lower(), "a suggestion is opened"
        else:
            kept.append(SPAN.sub("", line))
    assert not fence, "a code block is open at the end"
    return "\n".join(kept)


def assert_harmless(body: str) -> None:
    text = outside_of_code(body)
    without_ours = re.sub(r"\]\(<https?://[^<>\s]*>\)", "]", text)
    assert not re.search(r"(?<![\w`])@\w", without_ours), "somebody is mentioned"
    assert not re.search(r"<[a-zA-Z/!?]", without_ours), "there is HTML"
    assert not re.search(r"https?://\w|\bwww\.", without_ours), "there is a link of somebody else's"
    assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\((?!<https?://)", without_ours)
    assert not re.search(r"(?<!&)#\d", without_ours), "an issue is referred to"
    assert not re.search(r"(?m)^[ \t]*/\w", without_ours), "a program is commanded"
    assert not addressed(body), "it speaks to us"


@given(responses, st.booleans())
@settings(max_examples=120, deadline=None)
def test_whatever_a_response_holds_nobody_is_mentioned_and_nothing_is_hidden(
    response: NormalizedResponse, plain: bool
) -> None:
    bodies = comments(response, plain=plain)
    assert bodies and all(0 < len(body) <= MOST for body in bodies)
    for body in bodies:
        assert_harmless(body)


def numbers_in(bodies: list[str]) -> list[str]:
    return re.findall(r"n\d{6}", html.unescape("\n".join(bodies)))


@pytest.mark.parametrize("plain", [False, True])
def test_a_response_over_the_limit_is_several_comments_and_nothing_is_missing(plain: bool) -> None:
    words = [f"n{number:06}" for number in range(30_000)]
    response = NormalizedResponse(
        title="📋 long",
        text="\n".join(words[:10_000]),
        fields=tuple(FieldLine(name="", value=" ".join(words[at : at + 2000])) for at in range(10_000, 20_000, 2000)),
        blocks=(Block(text="\n".join(words[20_000:25_000]), language="diff"), Block(text=" ".join(words[25_000:]))),
    )  # fmt: skip
    bodies = comments(response, plain=plain)
    assert len(bodies) > 3 and max(map(len, bodies)) <= MOST
    assert numbers_in(bodies) == words
    for body in bodies:
        assert_harmless(body)


def test_a_block_that_is_nothing_but_its_own_fence_still_fits() -> None:
    bodies = comments(NormalizedResponse(title="t", blocks=(Block(text="`" * 100_000),)), plain=False)
    assert all(len(body) <= MOST for body in bodies)
    assert sum(run for body in bodies for run in [body.count("`")]) >= 100_000


def test_a_response_says_everything_it_holds() -> None:
    response = NormalizedResponse(
        title="✅ Task Completed (task-def456)",
        text="It works.",
        fields=(FieldLine(name="Files changed", value="3"), FieldLine(name="", value="alone")),
        blocks=(Block(language="diff", text="+ a\n- b", title="the change"),),
        links=(Link(label="PR #51", url="https://github.example/acme/shop/pull/51"),),
        progress=Progress(phase="testing", elapsed_seconds=61, turns=3),
        actions=(Action(label="Merge", command="merge PR #51"),),
        agent="task-def456",
    )
    (body,) = comments(response, plain=False)
    assert body == (
        "**✅ Task Completed (task-def456)**\n\nIt works.\n\n- Files changed: 3\n- alone\n\nthe change\n\n```diff\n+ a\n- b\n```\n\n"
        "[PR #\u200b51](<https://github.example/acme/shop/pull/51>)\n\n- `@codespar merge PR #51`\n\n"
        "_task-def456 · testing · 61 s · 3 turns · \\$0.00_"
    )
