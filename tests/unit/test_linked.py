"""Which repositories are GitHub's, however they are written; and where `owner/name` of the settings leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from codespar.app.linked import is_full_name
from codespar.config import Settings, load_settings
from codespar.forges.github.settings import GithubSettings

HERE = "https://api.github.com"
ENTERPRISE = "https://github.example.com:8443/api/v3"


@pytest.mark.parametrize(
    ("api", "repository", "name"),
    [
        (HERE, "acme/gateway", "acme/gateway"),
        (HERE, "acme/gateway.git", "acme/gateway"),
        (HERE, "https://github.com/acme/gateway", "acme/gateway"),
        (HERE, "https://GitHub.com/acme/gateway.git/", "acme/gateway"),
        (HERE, "https://ada:secret@github.com/acme/gateway.git", "acme/gateway"),
        (HERE, "git@github.com:acme/gateway.git", "acme/gateway"),
        (HERE, "ssh://git@github.com/acme/gateway.git", "acme/gateway"),
        (ENTERPRISE, "https://github.example.com:8443/acme/gateway.git", "acme/gateway"),
        (ENTERPRISE, "git@github.example.com:acme/gateway.git", "acme/gateway"),
        (ENTERPRISE, "https://github.example.com/acme/gateway.git", None),
        (ENTERPRISE, "https://github.com/acme/gateway.git", None),
        (HERE, "http://github.com/acme/gateway.git", None),
        (HERE, "https://github.com.evil.example/acme/gateway.git", None),
        (HERE, "https://evil.example/github.com/acme/gateway", None),
        (HERE, "https://github.com/acme", None),
        (HERE, "https://github.com/acme/gateway/tree/main", None),
        (HERE, "git@gitlab.com:acme/gateway.git", None),
        (HERE, "/srv/git/acme/gateway", None),
        (HERE, "../acme/gateway", None),
        (HERE, "-acme/gateway", None),
        (HERE, "ada_acme/gateway", "ada_acme/gateway"),
        (HERE, "https://github.com/ada_acme/gateway", "ada_acme/gateway"),
        (HERE, "acme/.github", "acme/.github"),
        (HERE, "acme/..", None),
        (HERE, "acme/.git", None),
    ],
)
def test_a_repository_is_githubs_by_its_name_or_its_address(
    api: str, repository: str, name: str | None
) -> None:
    assert Settings(github=GithubSettings(api_url=api)).github_name(repository) == name


def test_where_no_github_is_set_up_nothing_is_its() -> None:
    assert Settings().github_name("acme/gateway") is None


@pytest.mark.parametrize("github", [True, False])
def test_a_folder_of_that_name_beside_the_settings_goes_before_a_repository_at_github(
    tmp_path: Path, github: bool
) -> None:
    (tmp_path / "acme" / "here").mkdir(parents=True)
    path = tmp_path / "codespar.yaml"
    path.write_text(
        ("github: {private_key_file: keys/app.pem}\n" if github else "")
        + "projects:\n- {name: here, repository: acme/here}\n- {name: there, repository: acme/there}\n"
    )
    settings = load_settings(path, {})
    here, there = (project.repository for project in settings.projects)
    assert here == str(tmp_path / "acme" / "here")
    assert there == ("acme/there" if github else str(tmp_path / "acme" / "there"))
    if settings.github is not None:
        assert settings.github.private_key_file == tmp_path / "keys" / "app.pem"


def test_a_full_name_is_told_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_full_name("acme/shop")
    (tmp_path / "acme" / "shop").mkdir(parents=True)
    assert not is_full_name("acme/shop")
    assert not is_full_name("/srv/git/shop.git") and not is_full_name("https://example.org/acme/shop")
