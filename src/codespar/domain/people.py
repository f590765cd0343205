"""Who may do what: six roles, their permissions, and the one question `may`.

The tables are the ones of `docs/permissions.md`; they change there and here together.
"""

from __future__ import annotations

from enum import StrEnum

from codespar.domain.base import Value


class Role(StrEnum):
    OWNER = "owner"
    EMERGENCY_ADMIN = "emergency_admin"
    MAINTAINER = "maintainer"
    OPERATOR = "operator"
    REVIEWER = "reviewer"
    READ_ONLY = "read-only"


class Permission(StrEnum):
    VIEW_STATUS = "view_status"
    VIEW_DIFFS = "view_diffs"
    VIEW_ACTIVITY_LOG = "view_activity_log"
    INSTRUCT_AGENT = "instruct_agent"
    APPLY_FIX = "apply_fix"
    DEPLOY_STAGING = "deploy_staging"
    APPROVE_PR = "approve_pr"
    MERGE_PR = "merge_pr"
    DEPLOY_PRODUCTION = "deploy_production"
    LINK_CHANNEL = "link_channel"
    CONFIGURE_POLICIES = "configure_policies"
    SET_AUTONOMY = "set_autonomy"
    INVITE_MEMBERS = "invite_members"
    VIEW_AUDIT = "view_audit"
    KILL_SWITCH = "kill_switch"


_SEE = {Permission.VIEW_STATUS, Permission.VIEW_DIFFS, Permission.VIEW_ACTIVITY_LOG}
_WORK = {Permission.INSTRUCT_AGENT, Permission.APPLY_FIX, Permission.DEPLOY_STAGING}
_KEEP = {
    Permission.APPROVE_PR,
    Permission.MERGE_PR,
    Permission.DEPLOY_PRODUCTION,
    Permission.LINK_CHANNEL,
    Permission.CONFIGURE_POLICIES,
    Permission.VIEW_AUDIT,
}

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.EMERGENCY_ADMIN: frozenset(Permission),
    Role.MAINTAINER: frozenset(_SEE | _WORK | _KEEP | {Permission.SET_AUTONOMY}),
    Role.OPERATOR: frozenset(_SEE | _WORK | {Permission.SET_AUTONOMY}),
    Role.REVIEWER: frozenset(_SEE | {Permission.APPROVE_PR}),
    Role.READ_ONLY: frozenset({Permission.VIEW_STATUS}),
}

AUTONOMY_CAP: dict[Role, int] = {
    Role.OWNER: 5,
    Role.EMERGENCY_ADMIN: 5,
    Role.MAINTAINER: 4,
    Role.OPERATOR: 2,
}


class Person(Value):
    """A member of the team. `id` is ours; the identities in channels are kept beside it."""

    id: str
    name: str
    role: Role


def may(role: Role, permission: Permission) -> bool:
    """Whether a person with this role holds the permission."""
    return permission in PERMISSIONS[role]


def who_could(permission: Permission) -> tuple[Role, ...]:
    """The roles that hold the permission, strongest first: what a denial tells the person."""
    return tuple(role for role in Role if permission in PERMISSIONS[role])
