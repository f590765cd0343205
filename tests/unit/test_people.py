"""Who may do what: every cell of the permission table, and how far each role may raise autonomy."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from codespar.domain.people import AUTONOMY_CAP, PERMISSIONS, Permission, Person, Role, may, who_could

ROLES = ("owner", "emergency_admin", "maintainer", "operator", "reviewer", "read-only")
TABLE = {
    "view_status":       "✓✓✓✓✓✓",
    "view_diffs":        "✓✓✓✓✓·",
    "view_activity_log": "✓✓✓✓✓·",
    "instruct_agent":    "✓✓✓✓··",
    "apply_fix":         "✓✓✓✓··",
    "deploy_staging":    "✓✓✓✓··",
    "approve_pr":        "✓✓✓·✓·",
    "merge_pr":          "✓✓✓···",
    "deploy_production": "✓✓✓···",
    "link_channel":      "✓✓✓···",
    "configure_policies":"✓✓✓···",
    "set_autonomy":      "✓✓✓✓··",
    "invite_members":    "✓✓····",
    "view_audit":        "✓✓✓···",
    "kill_switch":       "✓✓····",
}  # fmt: skip


@pytest.mark.parametrize("permission", TABLE)
def test_each_role_holds_exactly_what_the_table_says(permission: str) -> None:
    allowed = {role: may(Role(role), Permission(permission)) for role in ROLES}
    assert allowed == {role: mark == "✓" for role, mark in zip(ROLES, TABLE[permission], strict=True)}


def test_the_table_is_whole() -> None:
    assert tuple(Role) == ROLES
    assert set(TABLE) == {permission.value for permission in Permission}
    assert set(PERMISSIONS) == set(Role)


@pytest.mark.parametrize("permission", Permission)
def test_a_denial_can_name_the_roles_that_could_strongest_first(permission: Permission) -> None:
    able = who_could(permission)
    assert [role.value for role in able] == [
        role for role, mark in zip(ROLES, TABLE[permission], strict=True) if mark == "✓"
    ]
    assert able[0] is Role.OWNER


def test_autonomy_is_capped_by_role() -> None:
    assert {role.value: level for role, level in AUTONOMY_CAP.items()} == {
        "owner": 5,
        "emergency_admin": 5,
        "maintainer": 4,
        "operator": 2,
    }


@pytest.mark.parametrize("role", Role)
def test_a_role_has_a_cap_exactly_when_it_may_set_autonomy(role: Role) -> None:
    assert (role in AUTONOMY_CAP) is may(role, Permission.SET_AUTONOMY)


@pytest.mark.parametrize("role", Role)
def test_everybody_sees_status_and_only_the_unknown_see_no_code(role: Role) -> None:
    assert may(role, Permission.VIEW_STATUS)
    assert may(role, Permission.VIEW_DIFFS) is (role is not Role.READ_ONLY)


def test_a_person_cannot_be_changed_in_place_nor_given_a_role_that_does_not_exist() -> None:
    ada = Person(id="ada", name="Ada", role=Role.OPERATOR)
    with pytest.raises(ValidationError):
        ada.role = Role.OWNER  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError):
        Person.model_validate({"id": "eve", "name": "Eve", "role": "admin"})
