"""Who is who: `register`, `invite` and `whoami`.

One person has an identity on each platform they use. Two identities become one person by a one-time code, made where the person is known
and sent where they are not. A code is shown in direct messages only, counts once and for ten minutes (an invitation: three days), and is
kept as a hash. Nobody gives a role above their own, and what codespar.yaml says of a person is changed there alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime, timedelta

from codespar.agents import cards
from codespar.agents.turn import Turn
from codespar.domain.base import CROCKFORD
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.people import AUTONOMY_CAP, PERMISSIONS, Person, Role
from codespar.store.base import PULLED, Unit

OWN_CODE = timedelta(minutes=10)
INVITATION = timedelta(days=3)
TRIES, TRIES_WITHIN = 5, timedelta(hours=1)  # of one identity, right or wrong
_RANK = {role: rank for rank, role in enumerate(Role)}  # the strongest first


def new_code(unit: Unit, person: str, made_by: str, now: datetime, lasts: timedelta) -> str:
    """A code that makes whoever sends it this person: 40 random bits, of which only a hash is kept."""
    letters = "".join(secrets.choice(CROCKFORD) for _ in range(8)).upper()
    code = f"{letters[:4]}-{letters[4:]}"
    unit.save_code(_hash(code), person, made_by, now, now + lasts)
    return code


def _hash(code: str) -> str:
    return hashlib.sha256(f"codespar one-time code\0{code}".encode()).hexdigest()


def register(turn: Turn) -> None:
    """Without an argument: a code for oneself. With a code: this identity becomes the code's person. With a name: an invitation to read."""
    args = turn.command.args
    if args.name is not None:
        _invite(turn, args.name, Role.READ_ONLY)
    elif args.code is not None:
        _redeem(turn, args.code)
    else:
        _own_code(turn)


def _own_code(turn: Turn) -> None:
    if turn.unit.person(turn.person.id) is None:
        told = "I do not know you yet, so I have no code to give you."
        able = "ask an owner for an invitation (`invite <your name> <role>`), then send me `register <code>`"
        turn.say(cards.refused("You are not known here", told, able))
        return
    if not _in_private(turn):
        return
    code = new_code(turn.unit, turn.person.id, turn.person.id, turn.now, OWN_CODE)
    turn.record("identity.code", turn.person.id, {"channel": turn.channel})
    turn.say(
        NormalizedResponse(
            title=f"🛡️ Your one-time code: {code}",
            text=f"Send `register {code}` to me in a direct message on the other platform, within 10 minutes. Whoever sends it there becomes you: give it to nobody.",
        )
    )


def _redeem(turn: Turn, code: str) -> None:
    channel, externals = turn.identity
    if not externals or channel in PULLED:
        told = "a code is sent on the platform where you are not known yet; here a token says who you are"
        turn.say(cards.refused("Nothing to link here", told))
        return
    if not turn.public and not _in_private(
        turn
    ):  # where nothing is private, the code is used up as it is read
        return
    tried = turn.unit.count_try(channel, externals[0], turn.now, turn.now - TRIES_WITHIN)
    if tried > TRIES:
        if turn.public:
            return  # whoever goes on guessing there makes us say nothing
        turn.say(cards.refused("Too many tries", f"{TRIES} an hour are allowed.", "try again in an hour"))
        return
    known = turn.unit.person_of(channel, externals)
    person = turn.unit.redeem(_hash(code), turn.now)
    member = turn.unit.member(person) if person else None
    if member is None:
        turn.record("identity.refused", channel, {"why": "no such code"})
        told = "It is wrong, was used already, or is too old."
        turn.say(cards.refused("That code does not count", told, "ask for a new one where you are known"))
        return
    for external in externals:
        turn.unit.save_identity(channel, external, member.person.id, "code", turn.now)
    before = known.id if known and known.id != member.person.id else None
    turn.person = member.person
    turn.record("identity.linked", member.person.id, {"channel": channel, "before": before})
    turn.say(
        NormalizedResponse(
            title=f"✅ You are {member.person.name} here too",
            tone=Tone.SUCCESS,
            fields=(
                FieldLine(name="Role", value=member.person.role.value),
                FieldLine(name="Next", value="`help` shows the commands, `whoami` what you may do"),
            ),
        )
    )


def _in_private(turn: Turn) -> bool:
    if turn.direct:
        return True
    told = "A one-time code is for one person's eyes, and this is a group."
    turn.say(cards.refused("Not here", told, "send me the same in a direct message"))
    return False


def invite(turn: Turn) -> None:
    args = turn.command.args
    _invite(turn, args.name or "", args.role or Role.READ_ONLY)


def _invite(turn: Turn, name: str, role: Role) -> None:
    if not _in_private(turn):
        return
    id = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    if not id or len(name) > 80:
        turn.say(
            cards.refused("Nobody was invited", "a name has letters or digits, and 80 characters at most")
        )
        return
    if _RANK[role] < _RANK[turn.person.role]:
        told = f"you are {turn.person.role}, and nobody gives a role above their own"
        turn.say(cards.refused("Nobody was invited", told))
        return
    known = turn.unit.member(id)
    if known is not None and known.source != "invite" and known.person.role is not role:
        told = f"{known.person.name} is {known.person.role} by codespar.yaml; change it there"
        turn.say(cards.refused("Nobody was invited", told))
        return
    if known is not None and _RANK[known.person.role] < _RANK[turn.person.role]:
        turn.say(cards.refused("Nothing was changed", f"{known.person.name} has a role above your own"))
        return
    if known is None or known.source == "invite":
        turn.unit.save_member(Person(id=id, name=name, role=role), "invite")
    code = new_code(turn.unit, id, turn.person.id, turn.now, INVITATION)
    turn.record(
        "person.invited", id, {"role": role.value, "before": known.person.role.value if known else None}
    )
    turn.say(
        NormalizedResponse(
            title=f"🛡️ Invitation for {name} ({role}): {code}",
            text=f"{name} sends `register {code}` to me in a direct message, on any platform, within 3 days. Hand it over in private: whoever sends it becomes {name}.",
        )
    )


def whoami(turn: Turn) -> None:
    member = turn.unit.member(turn.person.id)
    rights = ", ".join(sorted(PERMISSIONS[turn.person.role]))
    fields = [FieldLine(name="Role", value=turn.person.role.value), FieldLine(name="May", value=rights)]
    if (cap := AUTONOMY_CAP.get(turn.person.role)) is not None:
        fields.append(FieldLine(name="Sets autonomy up to", value=f"L{cap}"))
    if member is not None:
        places = ", ".join(dict.fromkeys(channel for channel, _ in member.identities))
        fields.append(FieldLine(name="Known on", value=places or "this command line only"))
    else:
        fields.append(FieldLine(name="Next", value="you are not known yet: an owner can `invite` you"))
    turn.say(NormalizedResponse(title=f"📋 {turn.person.name}", fields=tuple(fields)))
