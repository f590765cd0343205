"""The settings: `codespar.yaml` of the installation and `.codespar.yaml` of a repository.

Both are checked whole: an error names file, line, key and what would be right, and every problem is told at once. Secrets never stand in
these files; they name the environment variable that holds them. Importing this stays cheap: the YAML reader is loaded when a file is read.
"""

from __future__ import annotations

from codespar.config.chat import ChannelRoute, NotificationSettings
from codespar.config.example import EXAMPLE, EXAMPLE_REPOSITORY
from codespar.config.installation import ProjectSettings, Settings, load_settings
from codespar.config.limits import LimitSettings
from codespar.config.model import LOOPBACK, ModelSettings
from codespar.config.repository import RepositoryConfig, RepositoryFile, parse_repository_config
from codespar.config.yaml import ConfigError

__all__ = [
    "LOOPBACK",
    "ChannelRoute",
    "ConfigError",
    "LimitSettings",
    "ModelSettings",
    "NotificationSettings",
    "ProjectSettings",
    "RepositoryConfig",
    "RepositoryFile",
    "Settings",
    "example_config",
    "example_repository_config",
    "load_settings",
    "parse_repository_config",
]


def example_config() -> str:
    """A commented `codespar.yaml` that is valid as it stands: what `codespar init` writes."""
    return EXAMPLE


def example_repository_config() -> str:
    """A commented `.codespar.yaml` that is valid as it stands."""
    return EXAMPLE_REPOSITORY
