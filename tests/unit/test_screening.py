"""Screening of what is said: secrets, what nobody sees, internal hosts. What is found is removed or named, and always told."""

from __future__ import annotations

import re
import string
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from codespar.domain.messages import (
    Action,
    Attachment,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
)
from codespar.screening.base import NOTE
from codespar.screening.hidden import with_hidden_shown, without_comments, without_hidden
from codespar.screening.hosts import Hosts
from codespar.screening.screen import EMPTIED, Screen
from codespar.screening.secrets import OURS, REMOVED, WINDOW, could_hold, detectors, kinds_in

GITHUB = "ghp_" + "a1B2" * 9
AWS = "AKIA" + "ABCDEFGH23456789"
ANTHROPIC = "sk-ant-api03-" + "x" * 40
SCREEN = Screen(own_hosts=("codespar-7", "ci.example.com"), allowed_hosts=("git.lan", "10.9.9.9"))
CARD = NormalizedResponse(
    title="✅ Task Completed (task-def456)",
    text="The login endpoint answers 429 after five tries a minute; the limit is a setting.",
    fields=(
        FieldLine(name="PR", value='#51 opened: "feat: limit logins"'),
        FieldLine(name="Files changed", value="3 | Lines: +89 / -0"),
        FieldLine(name="Used", value="14 turns, 48210 tokens, $0.42, in 3 minutes on the 2026-11-21"),
    ),
    links=(Link(label="PR #51", url="https://github.com/acme/shop/pull/51"),),
    actions=(Action(label="🔍 Show the change", command="diff PR #51"),),
    agent="task-def456",
)


def note(response: NormalizedResponse) -> str:
    return next((line.value for line in response.fields if line.name == NOTE), "")


# secrets

PATTERNS = [pattern for one in detectors() for pattern in one.denylist] + list(OURS.values())  # type: ignore[attr-defined]


def found_without_prefilter(line: str) -> bool:
    return any(True for one in detectors() for _ in one.analyze_string(line)) or any(
        pattern.search(line) for pattern in OURS.values()
    )


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:24])
def test_the_prefilter_lets_every_token_of_every_detectors_format_through(pattern: re.Pattern[str]) -> None:
    @settings(max_examples=25, deadline=None)
    @given(before=st.text(max_size=12), token=st.from_regex(pattern), after=st.text(max_size=12))
    def holds(before: str, token: str, after: str) -> None:
        line = (before + token + after).replace("\n", " ")
        assume(pattern.search(line))
        assert could_hold(line)
        assert not found_without_prefilter(line) or kinds_in(line)

    holds()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_letters + string.digits + "_-.:/=+ ſK٣", max_size=80))
@example("awſ_KEY = '" + "a" * 40 + "'")
@example("XOXB-1-a")
def test_where_the_prefilter_sees_nothing_no_detector_finds_anything(line: str) -> None:
    if not could_hold(line):
        assert not found_without_prefilter(line)


@pytest.mark.parametrize("token", [GITHUB, AWS, ANTHROPIC, "github_pat_" + "a" * 22 + "_" + "b" * 59])
@pytest.mark.parametrize(
    "dressing",
    [
        "{}",
        "key = load({})",
        "{}  # pragma: allowlist secret",
        "<{}>",
        "${{{}}}",
        "id: {}",
        "x" * 3000 + " {} " + "y" * 9000,
    ],
)
def test_no_dressing_takes_a_token_past_the_screen(token: str, dressing: str) -> None:
    cleaned = SCREEN.clean(f"before\n{dressing.format(token)}\nafter")
    assert cleaned == f"before\n{REMOVED}\nafter"


@pytest.mark.parametrize("place", [0, 3000, WINDOW - 20, WINDOW, WINDOW + 4000, 30_000])
def test_a_token_is_found_wherever_it_stands_in_a_long_line(place: int) -> None:
    assert kinds_in("." * place + GITHUB + "." * (40_000 - place)) == {"GitHub Token"}


def test_of_a_private_key_nothing_is_left() -> None:
    body = "\n".join(["MIIEpAIBAAKCAQEA" + "x3Kd" * 12] * 4 + ["Zm9v=="])
    said = f"Here:\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{body}\n-----END RSA PRIVATE KEY-----\nDone, it works."
    cleaned = SCREEN.clean(said)
    assert cleaned == f"Here:\n{REMOVED}\nDone, it works."


def test_the_words_behind_half_a_private_key_stay() -> None:
    assert (
        SCREEN.clean("-----BEGIN PRIVATE KEY-----\nThat was all of it, sorry.")
        == f"{REMOVED}\nThat was all of it, sorry."
    )


def test_a_long_line_made_to_be_slow_is_done_in_time() -> None:
    began = time.thread_time()
    kinds_in("eyJ" * 4000 + ".!" + "//" * 4000 + "/:_authToken=")
    assert time.thread_time() - began < 5


# what people see of a response


def test_a_response_with_nothing_in_it_is_the_same_object() -> None:
    assert SCREEN.screen_response(CARD) is CARD
    emoji = CARD.evolve(
        title="🛡️ ↩️ 👩‍💻 1️⃣ 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        text="می‌خواهم\r\nok",
    )
    assert SCREEN.screen_response(emoji) is emoji


EVERYWHERE = {
    "title": CARD.evolve(title=f"Look: {GITHUB}"),
    "text": CARD.evolve(text=f"one\n{GITHUB}\ntwo"),
    "field": CARD.evolve(fields=(FieldLine(name="Out", value=GITHUB),)),
    "field's name": CARD.evolve(fields=(FieldLine(name=GITHUB, value="1"),)),
    "block": CARD.evolve(blocks=(Block(text=f"a\nexport T={GITHUB}\nb"),)),
    "block's title": CARD.evolve(blocks=(Block(title=GITHUB, text="b"),)),
    "block's language": CARD.evolve(blocks=(Block(language=GITHUB, text="b"),)),
    "link": CARD.evolve(links=(Link(label="PR", url=f"https://h.example/{GITHUB}"),)),
    "link's label": CARD.evolve(links=(Link(label=GITHUB, url="https://h.example/"),)),
    "action's label": CARD.evolve(actions=(Action(label=GITHUB, command="status"),)),
    "action's question": CARD.evolve(actions=(Action(label="No", command="status", asks=GITHUB),)),
    "attachment": CARD.evolve(
        attachments=(Attachment(name=f"{GITHUB}.txt", media_type="text/plain", size=1, sha256="0" * 64),)
    ),
    "progress": CARD.evolve(progress=Progress(phase=GITHUB)),
    "agent": CARD.evolve(agent=GITHUB),
}


@pytest.mark.parametrize("place", EVERYWHERE)
def test_a_secret_is_removed_from_every_string_that_people_see(place: str) -> None:
    screened = SCREEN.screen_response(EVERYWHERE[place])
    assert GITHUB not in screened.model_dump_json()
    assert "looks like a secret" in note(screened) or "held what looks like a secret" in note(screened)
    assert SCREEN.screen_response(screened) is screened, "and once is enough"


def test_an_actions_command_is_never_changed() -> None:
    actions = (Action(label="Why\u200b?", command=f"reject tk-abc123 {GITHUB}\u200b"),)
    screened = SCREEN.screen_response(CARD.evolve(actions=actions))
    assert screened.actions == (actions[0].evolve(label="Why?"),)


def test_the_note_says_what_was_done_in_one_line() -> None:
    said = CARD.evolve(text=f"x\n{GITHUB}\nzero\u200bwidth\u202e at db.internal")
    assert note(SCREEN.screen_response(said)) == (
        "1 line with what looks like a secret was removed; 2 hidden characters removed; names an internal host: db.internal"
    )
    many = CARD.evolve(text="a.internal b.internal c.internal d.internal <!-- x --><!-- y -->")
    assert note(SCREEN.screen_response(many)) == (
        "2 hidden comments removed; names internal hosts: a.internal, b.internal, c.internal and 1 more"
    )


def test_what_must_not_be_empty_is_not_emptied() -> None:
    said = CARD.evolve(title="<!-- x -->", fields=(FieldLine(name="Out", value="\u200b"),))
    screened = SCREEN.screen_response(said)
    assert screened.title == EMPTIED and screened.fields[0].value == EMPTIED


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://bot:hunter22@h.example/a?b=1#c", "https://h.example/a?b=1#c"),
        ("https://someone@h.example/a", "https://h.example/a"),
        (
            "https://h.example/a?page=2&access_token=abcdef123456",
            "https://h.example/a?page=2&access_token=removed",
        ),
        (
            "https://s3.example/k?X-Amz-Signature=deadbeef01&x=1",
            "https://s3.example/k?X-Amz-Signature=removed&x=1",
        ),
        ("https://h.example/#id_token=abcdef123456", "https://h.example/#id_token=removed"),
        ("https://h.example/?token=tk-7k2m9q", "https://h.example/?token=tk-7k2m9q"),
        (
            "https://h.example/?author=someone-else&key=SHOP-12345",
            "https://h.example/?author=someone-else&key=SHOP-12345",
        ),
    ],
)
def test_a_link_goes_on_without_credentials(url: str, shown: str) -> None:
    screened = SCREEN.screen_response(CARD.evolve(links=(Link(label="it", url=url),)))
    assert screened.links == (Link(label="it", url=shown),)
    assert bool(note(screened)) is (url != shown)


def test_a_link_that_is_a_secret_is_left_out() -> None:
    hook = Link(label="hook", url="https://hooks.slack.com/services/T0001/B0001/abcdef")
    screened = SCREEN.screen_response(CARD.evolve(links=(hook, *CARD.links)))
    assert screened.links == CARD.links and "1 link" in note(screened)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("see postgresql://app:hunter2@db.example.com/shop.", "see postgresql://db.example.com/shop."),
        ("git clone https://x-access-token-abcdef@git.example/a", "git clone https://git.example/a"),
        ("ssh://git@git.example/a and a@b.example", "ssh://git@git.example/a and a@b.example"),
        ("f'{url}?token={token}&sig=${SIG}'", "f'{url}?token={token}&sig=${SIG}'"),
    ],
)
def test_credentials_in_addresses_are_removed_from_words(said: str, shown: str) -> None:
    assert SCREEN.clean(said) == shown


# what nobody sees


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\u200bb\u2060c\ufeffd", "abcd"),
        ("pay\u202eload\u2066x\u2069", "payloadx"),
        ("hi" + "".join(chr(0xE0000 + ord(char)) for char in "kill all"), "hi"),
        ("a😀" + "".join(chr(0xE0100 + byte) for byte in b"kill"), "a😀"),
        ("😀\ufe0f\ufe0e\ufe0f!", "😀\ufe0f!"),
        ("gh\u200dp", "ghp"),
        ("\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \x9b1mx", "red link x"),
        ("over\rwritten\r\nkept\tkept", "overwritten\r\nkept\tkept"),
        ("a<!-- b -->c<!-- open", "ac"),
        ("<!<!-- x -->-- y -->z", "&lt;!-- y -->z"),
        ("<\u200b!-- x -->z", "z"),
        ("a\n[//]: # (approve this)\nb [link]: yes", "a\nb [link]: yes"),
        ("\u0661\u06dd \ud7a4", "\u0661\u06dd \ud7a4"),
    ],
)
def test_what_nobody_sees_is_removed_and_what_a_script_needs_stays(said: str, shown: str) -> None:
    assert SCREEN.clean(said) == shown


@pytest.mark.parametrize("between", ["\u200b", "\u200d", "\U000e0041", "<!-- -->", "\x1b[0m", "\ufe0f", "\r"])
def test_a_token_in_pieces_is_still_a_token(between: str) -> None:
    assert SCREEN.clean(f"key {GITHUB[:12]}{between}{GITHUB[12:]} end") == REMOVED


def test_in_a_block_hidden_characters_are_made_visible_and_comments_stay() -> None:
    block = Block(
        language="diff",
        text=f"+<!-- seen -->\n+if a\u202e == b:\n+T={GITHUB[:9]}\u200b{GITHUB[9:]}\n+\x1b[1mx",
    )
    screened = SCREEN.screen_response(CARD.evolve(blocks=(block,)))
    assert screened.blocks[0].text == f"+<!-- seen -->\n+if a⟨U+202E⟩ == b:\n{REMOVED}\n+x"
    assert "2 hidden characters made visible" in note(screened)


STRANGE = st.text(
    alphabet=st.sampled_from(
        "a9# <>!-[]:(\n\r\t\u200b\u200c\u200d\ufe0f\ufe0e\u20e3\u202e😀👩🏴م\x1b[0m\U000e0067\U000e007f"
    ),
    max_size=40,
)


@settings(max_examples=500, deadline=None)
@given(STRANGE)
def test_a_second_look_finds_nothing_more(text: str) -> None:
    once = SCREEN.clean(text)
    assert SCREEN.clean(once) == once
    bare, _ = without_hidden(text)
    assert without_hidden(bare) == (bare, 0)
    assert with_hidden_shown(bare) == (bare, 0)
    assert "<!--" not in without_comments(text)[0]


@given(
    st.text(alphabet=string.printable.replace("\r", "").replace("\x0b", "").replace("\x0c", ""), max_size=200)
)
def test_plain_words_are_left_alone(text: str) -> None:
    assume("<!--" not in text and "]:" not in text and "://" not in text and not kinds_in(text))
    assert SCREEN.clean(text) == text


# internal hosts


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("the db is db.internal.", ["db.internal"]),
        ("http://API.Shop.svc.cluster.local:8080/x", ["api.shop.svc.cluster.local"]),
        ("printer.lan, wiki.corp and nas.home.arpa", ["printer.lan", "wiki.corp", "nas.home.arpa"]),
        ("10.0.0.1 172.31.255.255 192.168.1.1:80 172.32.0.1", ["10.0.0.1", "172.31.255.255", "192.168.1.1"]),
        (
            "http://169.254.169.254/latest and metadata.google.internal",
            ["169.254.169.254", "metadata.google.internal"],
        ),
        ("fd12:3456::1, [fe80::1]:80 and ::ffff:10.1.2.3", ["fd12:3456::1", "fe80::1", "10.1.2.3"]),
        ("on codespar-7 and ci.example.com, not codespar-77", ["codespar-7", "ci.example.com"]),
        ("git.lan, x.git.lan and 10.9.9.9 are allowed", []),
        ("8.8.8.8, 2001:db8::1, 203.0.113.7, 127.0.0.1, localhost:3000, 1.10.0.0.1", []),
        ("settings.local.json, .env.local, local, internal, fc12: and version 310.0.0.1", []),
        ("at 10:20:30, ratio 1:2, sha256:fc12ab, fdisk::x, 10.0.0", []),
    ],
)
def test_internal_hosts_are_named(text: str, hosts: list[str]) -> None:
    found = SCREEN.screen_response(CARD.evolve(text=text))
    assert Hosts(("codespar-7", "ci.example.com"), ("git.lan", "10.9.9.9")).named_in(text) == hosts
    assert found.text == text, "they are named, not removed"
    assert ("internal host" in note(found)) is bool(hosts)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("+data = threading.local()", []),
        ("+x = self.local + frame.local", []),
        ("+HOST = 'db.local'\n+url = http://cache.internal/x", ["db.local", "cache.internal"]),
        ("+redis: cache.prod.internal", ["cache.prod.internal"]),
        ("+  server 10.1.2.3;", ["10.1.2.3"]),
    ],
)
def test_in_code_an_attribute_is_no_host(text: str, hosts: list[str]) -> None:
    assert Hosts().named_in(text, code=True) == hosts


# and all of it


def test_it_is_fast_enough_to_stand_before_every_message() -> None:
    SCREEN.load()
    assert 280 < len(CARD.plain()) < 420
    best = min(_timed(CARD) for _ in range(5))
    assert best < 0.001, f"{best * 1e6:.0f} µs"


def _timed(card: NormalizedResponse, times: int = 100) -> float:
    began = time.thread_time()
    for _ in range(times):
        SCREEN.screen_response(card)
    return (time.thread_time() - began) / times


def test_many_threads_see_the_same() -> None:
    responses = list(EVERYWHERE.values()) * 8
    expected = [SCREEN.screen_response(one) for one in responses]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(SCREEN.screen_response, responses)) == expected


@pytest.mark.parametrize(
    "piece", ["<!--", "\x1b]", "://", "?token_", "eyJ", "[x]: #", "a.", "10.", "fd00:", "\u200d😀"]
)
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    began = time.thread_time()
    SCREEN.screen_response(CARD.evolve(text="\n".join([piece * 200] * 100)))
    assert time.thread_time() - began < 3
