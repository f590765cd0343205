"""The settings: `codespar.yaml` of the installation and `.codespar.yaml` of a repository.

Both are checked whole: an error names file, line, key and what would be right, and every problem is told at once. Secrets never stand in
these files; they name the environment variable that holds them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from codespar.domain.base import CodesparError, Value
from codespar.domain.people import Role
from codespar.domain.tasks import MICROS, Limits
from codespar.sandbox.base import EnvironmentSetup

T = TypeVar("T", bound=BaseModel)
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class ConfigError(CodesparError):
    """One line a problem: `codespar.yaml:12: projects[0].autonomy: what is wrong; what would be right`."""


def _size(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)\s*([kmg])i?b?", value.strip().lower())):
        return int(found[1]) * _UNITS[found[2]]
    return value


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", value.strip().lower())):
        return float(found[1]) * _SECONDS[found[2]]
    return value


def _money(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"\$?\s*(\d+(?:\.\d+)?)", value.strip())):
        return round(float(found[1]) * MICROS)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value * MICROS)
    return value


Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
Money = Annotated[int, BeforeValidator(_money)]


class LimitSettings(Value):
    """Limits as people write them: `cost: $5`, `wall: 30m`, `memory: 2g`. What is left out keeps its default."""

    cost: Money | None = Field(default=None, ge=0)
    turns: int | None = Field(default=None, ge=1)
    wall: Duration | None = Field(default=None, gt=0)
    stall: Duration | None = Field(default=None, gt=0)
    memory: Size | None = Field(default=None, ge=64 * 1024**2)
    cpus: float | None = Field(default=None, gt=0)
    tmp: Size | None = Field(default=None, ge=16 * 1024**2)
    output: Size | None = Field(default=None, ge=1024)

    def given(self) -> dict[str, Any]:
        """The fields of `Limits` that are set here."""
        names = {
            "cost_micros": self.cost,
            "turns": self.turns,
            "wall_seconds": self.wall,
            "stall_seconds": self.stall,
            "memory_bytes": self.memory,
            "cpus": self.cpus,
            "tmp_bytes": self.tmp,
            "output_bytes": self.output,
        }
        return {name: value for name, value in names.items() if value is not None}


class ServerSettings(Value):
    host: str = "127.0.0.1"  # anything else is reachable from outside: put TLS in front of it
    port: int = Field(default=7477, ge=0, le=65535)  # 0 picks a free one


class ModelSettings(Value):
    name: str = "claude-sonnet-4-5"
    base_url: str = "https://api.anthropic.com"
    api_key_env: str = "ANTHROPIC_API_KEY"

    def api_key(self, environment: Mapping[str, str]) -> str | None:
        return environment.get(self.api_key_env) or None


class SandboxSettings(Value):
    docker_host: str | None = None  # None: DOCKER_HOST, else the local socket
    base_image: str = "debian:bookworm-slim"  # pulled where a registry answers, else made with debootstrap
    ca_bundle: Path | None = None  # certificate authorities that image builds shall trust; None: SSL_CERT_FILE where set
    caps: LimitSettings = LimitSettings()  # what a project may raise its limits to


class PersonSettings(Value):
    name: str = Field(min_length=1)
    role: Role
    id: str | None = None
    token_env: str | None = None  # the environment variable that holds the person's API token


class ProjectSettings(Value):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    repository: str = Field(min_length=1)  # a path or a URL that git understands
    alias: tuple[str, ...] = ()
    autonomy: int = Field(default=1, ge=0, le=5)
    max_concurrent_tasks: int = Field(default=3, ge=1, le=50)
    limits: LimitSettings = LimitSettings()
    blocked_paths: tuple[str, ...] = ()

    def task_limits(self, settings: Settings) -> Limits:
        """The limits of this project's tasks."""
        return Limits(**(settings.limits.given() | self.limits.given()))


class Settings(Value):
    """`codespar.yaml`."""

    data_dir: Path = Path(".codespar")
    database_url: str | None = None  # None: SQLite in data_dir; else postgresql://…, without a password: that comes from PGPASSWORD
    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    sandbox: SandboxSettings = SandboxSettings()
    limits: LimitSettings = LimitSettings()
    people: tuple[PersonSettings, ...] = ()
    projects: tuple[ProjectSettings, ...] = ()

    def aliases(self) -> dict[str, str]:
        """Lower-case names by which a project can be called."""
        return {name.lower(): project.name for project in self.projects for name in (project.name, *project.alias)}

    def task_caps(self) -> Limits:
        """What the organization allows a task at most: twice the defaults unless `sandbox.caps` says otherwise."""
        wide = Limits(**self.limits.given())
        doubled = {
            name: getattr(wide, name) * 2 for name in Limits.model_fields if name not in ("output_files", "pids")
        } | {"output_files": wide.output_files, "pids": wide.pids}
        return Limits(**(doubled | self.sandbox.caps.given()))


class RepositorySettings(Value):
    """`.codespar.yaml`, read from the default branch only."""

    environment: EnvironmentSetup = EnvironmentSetup()
    test: str | None = None
    limits_given: LimitSettings = Field(default=LimitSettings(), alias="limits")
    blocked_paths: tuple[str, ...] = ()
    blocked_commands: tuple[str, ...] = ()

    @property
    def limits(self) -> dict[str, Any]:
        return self.limits_given.given()


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read `codespar.yaml` (or the file CODESPAR_CONFIG names); without one, the defaults. Raises `ConfigError`."""
    chosen = path or (Path(environment["CODESPAR_CONFIG"]) if environment.get("CODESPAR_CONFIG") else None)
    if chosen is None:
        chosen = Path("codespar.yaml")
        if not chosen.exists():
            return Settings()
    try:
        text = chosen.read_bytes()
    except OSError as error:
        raise ConfigError(f"{chosen} cannot be read: {error.strerror}. `codespar init` writes a commented one.") from error
    settings = _load(text, chosen.name, Settings)
    if not settings.data_dir.is_absolute():
        settings = settings.evolve(data_dir=chosen.resolve().parent / settings.data_dir)
    return settings


def parse_repository_config(text: bytes | None, origin: str) -> RepositorySettings:
    """`.codespar.yaml` of a commit, or the defaults where there is none. Raises `ConfigError`."""
    return RepositorySettings() if text is None else _load(text, origin, RepositorySettings)


def _load(text: bytes, origin: str, model: type[T]) -> T:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="rt")
    try:
        document = reader.load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{origin}: it is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{origin}:{line}: this is not YAML: {error.problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{origin}: this is not YAML: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}:1: the file must hold keys and values, such as `test: make test`")
    try:
        return model.model_validate(_plain(document, aliased=True))
    except ValidationError as error:
        problems = [_problem(origin, document, item, model) for item in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def _plain(value: Any, *, aliased: bool = False) -> Any:
    """The document in plain types; the files are written in snake_case."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _problem(origin: str, document: Any, item: Any, model: type[BaseModel]) -> str:
    where, line = document, 1
    name = ""
    for part in item["loc"]:
        key = _written(where, part)
        name += f"[{part}]" if isinstance(part, int) else f"{'.' if name else ''}{key}"
        try:
            position = where.lc.item(part) if isinstance(part, int) else where.lc.key(key)
            line = position[0] + 1
            where = where[part if isinstance(part, int) else key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    message = str(item["msg"])
    if item["type"] == "extra_forbidden":
        known = sorted(_keys(model, item["loc"][:-1]))
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        message = f"unknown key; did you mean `{near[0]}`?" if near else f"unknown key; known are {', '.join(known)}"
    return f"{origin}:{line}: {name or 'the file'}: {message}"


def _written(where: Any, part: Any) -> Any:
    """pydantic reports a field by its alias (camelCase); the file has it in snake_case."""
    if isinstance(part, int) or (isinstance(where, dict) and part in where):
        return part
    return re.sub(r"(?<!^)([A-Z])", r"_\1", str(part)).lower()


def _keys(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """The keys that are known at a place of the model."""
    import typing

    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        snake = re.sub(r"(?<!^)([A-Z])", r"_\1", str(part)).lower()
        field = current.model_fields.get(snake) or current.model_fields.get(f"{snake}_given")
        if field is None:
            return set()
        current = field.annotation
        inner = [one for one in typing.get_args(current) if isinstance(one, type) and issubclass(one, BaseModel)]
        current = inner[0] if inner else current
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return set()
    return {name.removesuffix("_given") for name in current.model_fields}


def example_config() -> str:
    """A commented `codespar.yaml` that is valid as it stands: what `codespar init` writes."""
    return EXAMPLE


EXAMPLE = """\
# codespar.yaml: one file for the installation. `codespar doctor` checks it.
# Secrets never stand here: set them in the environment.

data_dir: .codespar            # databases, repositories, task folders
# database_url: postgresql://codespar@localhost/codespar   # default: SQLite in data_dir; the password comes from PGPASSWORD

server:
  host: 127.0.0.1              # loopback only; put TLS in front before you open it
  port: 7477

model:
  name: claude-sonnet-4-5
  api_key_env: ANTHROPIC_API_KEY

# limits:                      # of every task; a project may set its own
#   cost: $5                   # at a limit the work is kept and you are asked
#   turns: 100
#   wall: 1h
#   stall: 5m
#   memory: 2g
#   cpus: 2
#   tmp: 512m

# people:
#   - name: Ada
#     role: owner              # owner, emergency_admin, maintainer, operator, reviewer, read-only
#     token_env: CODESPAR_TOKEN_ADA

# projects:
#   - name: shop
#     repository: /srv/git/shop.git   # a path or a URL that git understands
#     alias: [s]
#     autonomy: 1
#     max_concurrent_tasks: 3
#     blocked_paths: [".github/", "*.pem"]
"""
