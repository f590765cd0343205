"""The documents against the code: every command, setting and permission is written down, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from codespar.config import LimitSettings, RepositoryFile, Settings, example_repository_config
from codespar.config.units import duration
from codespar.config.yaml import Section
from codespar.domain.approvals import ApprovalKind
from codespar.domain.autonomy import (
    ALWAYS_A_HUMAN,
    LEVELS,
    Action,
    AuthorizationVerdict,
    Context,
    Resource,
    Risk,
    Sensitive,
    authorize,
)
from codespar.domain.commands import COMMANDS, CommandSpec
from codespar.domain.people import AUTONOMY_CAP, Permission, Role, may
from codespar.domain.tasks import Limits

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMMANDS_MD = (DOCS / "commands.md").read_text(encoding="utf-8")
CONFIGURATION_MD = (DOCS / "configuration.md").read_text(encoding="utf-8")
PERMISSIONS_MD = (DOCS / "permissions.md").read_text(encoding="utf-8")
INSTALLATION, _, REPOSITORY = CONFIGURATION_MD.partition("\n## .codespar.yaml\n")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading is `heading`, without code marks."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [
            cell.strip().replace("\\|", "|").replace("`", "")
            for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]
        ]
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not set(cells[0]) <= {"-", ":"}:
            found.append(cells)
    return found


COMMAND_ROWS = {row[0]: row for row in rows(COMMANDS_MD, "Command")}


@pytest.mark.parametrize("spec", COMMANDS, ids=[spec.name for spec in COMMANDS])
def test_every_command_is_documented_as_it_is(spec: CommandSpec) -> None:
    assert spec.name in COMMAND_ROWS, f"docs/commands.md has no row for `{spec.name}`"
    _, usage, summary, risk, permission, available = COMMAND_ROWS[spec.name]
    assert (usage, summary) == (spec.usage, spec.summary.replace("`", ""))
    assert risk == ("by the action" if spec.by_the_action else spec.risk)
    needed = " / ".join(spec.permissions) or "anyone"
    assert permission == ("the action's own" if spec.by_the_action else needed)
    assert available == ("yes" if spec.available else f"not yet: {spec.brought_by.replace('`', '')}")


def test_no_command_is_documented_that_does_not_exist() -> None:
    assert list(COMMAND_ROWS) == [spec.name for spec in COMMANDS]


def test_every_command_tells_a_person_what_it_does_in_one_line() -> None:
    for spec in COMMANDS:
        assert spec.summary and "\n" not in spec.summary and len(spec.summary) < 100
        assert spec.usage.startswith(spec.name)


def sections(root: type[Section] = Section) -> Iterator[type[Section]]:
    for one in root.__subclasses__():
        yield one
        yield from sections(one)


def keys(section: type[Section], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        annotation = str(field.annotation)
        inner = next((one for one in sections() if re.search(rf"\b{one.__name__}\b", annotation)), None)
        many = annotation.startswith("tuple")
        path = f"{before}{name}{'[]' if many and inner else ''}"
        yield path, field
        if inner:
            yield from keys(inner, f"{path}.")


SETTINGS = [
    *[("codespar.yaml", *pair) for pair in keys(Settings)],
    *[(".codespar.yaml", *pair) for pair in keys(RepositoryFile)],
]
DOCUMENTED = {
    "codespar.yaml": {row[0]: row for row in rows(INSTALLATION, "Key")},
    ".codespar.yaml": {row[0]: row for row in rows(REPOSITORY, "Key")},
}


@pytest.mark.parametrize(
    ("file", "key", "field"), SETTINGS, ids=[f"{file} {key}" for file, key, _ in SETTINGS]
)
def test_every_setting_is_documented_with_its_default_and_meaning(
    file: str, key: str, field: FieldInfo
) -> None:
    assert key in DOCUMENTED[file], f"docs/configuration.md has no row for `{key}` of {file}"
    _, default, meaning = DOCUMENTED[file][key]
    assert field.description, f"`{key}` has no description"
    assert meaning == field.description.replace("`", "")
    if (file, key.split(".")[0]) != ("codespar.yaml", "limits") or key == "limits":
        assert default == written_default(key, field)


def written_default(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if isinstance(field.default, Section):
        return ""
    if any(field is limit for limit in LimitSettings.model_fields.values()):
        return "twice limits" if key.startswith("sandbox.caps.") else "the installation's"
    if field.default in (None, (), {}):
        return "none"
    if key.startswith("housekeeping."):
        return f"{int(field.default) // 86400}d"
    if key.endswith((".answer_within", ".batch", "look_every", "[].within")):
        hours, minutes = divmod(int(field.default) // 60, 60)
        return f"{hours}h" if hours else f"{minutes}m"
    if isinstance(field.default, tuple):
        return f"[{', '.join(str(one) for one in field.default)}]"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def test_the_documented_defaults_of_limits_and_answers_are_the_real_ones() -> None:
    written = {
        key: YAML(typ="safe", pure=True).load(row[1]) for key, row in DOCUMENTED["codespar.yaml"].items()
    }
    limits = {
        key.removeprefix("limits."): value for key, value in written.items() if key.startswith("limits.")
    }
    assert Limits(**LimitSettings.model_validate(limits).given()) == Limits()
    assert len(limits) == len(LimitSettings.model_fields)
    assert duration(written["policies.budget.answer_within"]) == Settings().policies.budget.answer_within


@pytest.mark.parametrize("file", DOCUMENTED)
def test_no_setting_is_documented_that_does_not_exist(file: str) -> None:
    assert list(DOCUMENTED[file]) == [key for name, key, _ in SETTINGS if name == file]


def test_the_shown_repository_file_is_the_example_of_the_code() -> None:
    assert f"```yaml\n{example_repository_config()}```" in REPOSITORY


def test_the_roles_stand_over_the_table_in_order() -> None:
    heading = next(line for line in PERMISSIONS_MD.splitlines() if line.startswith("| Permission |"))
    assert [cell.strip() for cell in heading.split("|")[2:-1]] == [role.value for role in Role]


PERMISSION_ROWS = {row[0]: row[1:] for row in rows(PERMISSIONS_MD, "Permission")}


@pytest.mark.parametrize("permission", Permission)
def test_every_permission_is_documented_for_every_role(permission: Permission) -> None:
    assert permission in PERMISSION_ROWS, f"docs/permissions.md has no row for `{permission}`"
    assert PERMISSION_ROWS[permission] == ["✓" if may(role, permission) else "" for role in Role]


def test_no_permission_is_documented_that_does_not_exist() -> None:
    assert list(PERMISSION_ROWS) == [permission.value for permission in Permission]


def test_how_far_each_role_raises_autonomy_is_documented() -> None:
    assert rows(PERMISSIONS_MD, "Role") == [
        [role.value, f"L{AUTONOMY_CAP[role]}" if role in AUTONOMY_CAP else "none"] for role in Role
    ]


def test_what_an_agent_does_by_itself_at_each_level_is_documented() -> None:
    words = {
        AuthorizationVerdict.ALLOW: "does it",
        AuthorizationVerdict.NEEDS_APPROVAL: "asks",
        AuthorizationVerdict.DENY: "no",
    }
    expected = [
        [
            f"L{level.level}",
            level.name,
            level.means,
            *(
                words[
                    authorize(
                        None,
                        Action(name="fix", permission=Permission.APPLY_FIX, risk=risk),
                        Resource(project="shop", autonomy=level.level),
                        Context(at=datetime(2026, 1, 1, tzinfo=UTC), by_agent=True),
                    ).verdict
                ]
                for risk in Risk
            ),
        ]
        for level in LEVELS
    ]
    assert rows(PERMISSIONS_MD, "Level") == expected


def test_what_never_happens_without_a_human_is_documented() -> None:
    documented = [row[1] for row in rows(PERMISSIONS_MD, "Never without a human")]
    assert sorted(documented) == sorted([*ALWAYS_A_HUMAN, *Sensitive])


def test_what_each_command_takes_is_documented_beside_the_roles_as_well() -> None:
    _, _, taken = PERMISSIONS_MD.partition("## What commands take")
    assert rows(taken, "Command") == [
        [
            spec.name,
            "by the action" if spec.by_the_action else spec.risk,
            "the action's own" if spec.by_the_action else " / ".join(spec.permissions) or "anyone",
        ]
        for spec in COMMANDS
    ]


def test_every_kind_of_approval_is_documented() -> None:
    assert [row[:2] for row in rows(PERMISSIONS_MD, "Token")] == [
        [f"{kind.value}-", kind.name.lower()] for kind in ApprovalKind
    ]
