"""The paths that a change cannot touch without being looked at: what a project starts with, and can add to.

A group matches too much rather than too little: what it costs is a person's look.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from codespar.domain.base import Value
from codespar.domain.paths import Role, matches, role, words
from codespar.domain.reviews import RiskLevel


def _readable(patterns: tuple[str, ...]) -> tuple[str, ...]:
    lowered = tuple(pattern.lower() for pattern in patterns)
    matches(lowered, "")
    return lowered


def _named(patterns: str) -> tuple[str, ...]:
    return tuple(patterns.split())


class PathGroup(Value):
    """Paths that mean the same to a reviewer. Patterns are read as `.gitignore` reads them, but in any case, and `_` stands for `-` and camel case too."""

    name: str = Field(min_length=1)  # as in "touches …"
    patterns: Annotated[tuple[str, ...], AfterValidator(_readable)]
    floor: RiskLevel = RiskLevel.MEDIUM  # no change to these paths is below it
    weight: float = Field(
        default=0, ge=0
    )  # in the score; the groups of the start have none, as reverts gave no reason for one
    everywhere: bool = False  # tests and documentation count too

    def touches(self, *paths: str) -> bool:
        """Whether one of the paths, of one file before and after a rename, say, is in the group."""
        looked_at = [path for path in paths if self.everywhere or role(path) not in (Role.TESTS, Role.DOCS)]
        return any(matches(self.patterns, form) for path in looked_at for form in {path.lower(), words(path)})


MIGRATIONS = PathGroup(
    name="data migrations",
    everywhere=True,  # `0042_add_ab_test.py` is run like any other
    patterns=(
        "migrations/",
        "migrate/",
        "alembic/",
        "migration*/",
        "*_migration.*",
        "schema.rb",
        "structure.sql",
        "*.ddl",
        "schema.prisma",
    ),
)
DEFAULT_GROUPS = (
    PathGroup(
        name="authentication",
        patterns=_named(
            "auth authn* authz* auth_* auth.* *_auth *_auth.* *_auth_* authenticat* authoriz* *_authenticat* *_authoriz* oauth* *_oauth* oidc* saml* sso "
            "sso_* sso.* login* *_login.* logins permission* *_permission* password* passwd* jwt* rbac* acl acl.* acl_* "
            "*_acl.* credential* *_credential* crypto crypto.* crypto_* security security.* security_* csrf* *_csrf*"
        ),
    ),
    MIGRATIONS,
    PathGroup(
        name="secrets",
        everywhere=True,
        patterns=_named(
            ".env .env.* *.env *.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx id_rsa* id_ed25519* .npmrc .pypirc .netrc secret secret.* "
            "secret_* secrets secrets.* *_secret.* *_secrets.* vault vault.* .sops.*"
        ),
    ),
    PathGroup(
        name="continuous integration",
        everywhere=True,
        patterns=_named(
            ".github/workflows/ .github/actions/ .gitlab-ci.yml .gitlab/ci/ .circleci/ .travis.yml jenkinsfile* azure-pipelines* .azure-pipelines/ .buildkite/ "
            ".drone.yml appveyor.yml .pre-commit-config.yaml tox.ini zuul.d/ .zuul.yaml cloudbuild*.yaml bitbucket-pipelines.yml"
        ),
    ),
    PathGroup(
        name="lock files",
        patterns=("*.lock", "*_lock.json", "*_lock.yaml", "go.sum", "*.resolved"),
        floor=RiskLevel.LOW,
    ),
    PathGroup(
        name="infrastructure",
        everywhere=True,
        patterns=_named(
            "*.tf *.tfvars *.hcl terraform/ terragrunt* pulumi.* dockerfile* *.dockerfile containerfile* docker_compose* compose.yml compose.yaml k8s/ kubernetes/ helm/ "
            "kustomiz* chart.yaml playbooks/ cloudformation/ serverless.yml procfile fly.toml nginx/ nginx.conf infra/ infrastructure/ deploy/ deployment/ "
            "deployments/ *.service"
        ),
    ),
    PathGroup(
        name="the rules of reviews and agents",
        everywhere=True,
        patterns=(
            ".codespar.yaml",
            "codespar.yaml",
            "codeowners",
            "claude.md",
            "agents.md",
            ".claude/",
            ".cursor/",
            ".cursorrules",
            "copilot_instructions.md",
        ),
    ),
)
