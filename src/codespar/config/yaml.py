"""Reading a settings file: YAML to a checked value, with every problem told at once and by line.

The text may be somebody else's (`.codespar.yaml` comes from a repository), so its size, depth and number of values are bounded, no tag
makes an object, and a problem never quotes what may be a secret.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from codespar.domain.base import CodesparError
from codespar.domain.settings import Section

MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 20

Path = tuple[str | int, ...]
T = TypeVar("T", bound="Section")


class ConfigError(CodesparError):
    """One line a problem: `codespar.yaml:12: projects[0].autonomy: what is wrong and what would be right`."""


class Problem(NamedTuple):
    path: Path
    told: str


Check = Callable[
    [Mapping[str, Any]], Iterable[Problem]
]  # what no single key can tell, over the plain document
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:token|secret|passwd|password|passphrase|api[_-]?key|private[_-]?key|access[_-]?key|secret[_-]?key|credentials?)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\bsk-[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[abeprs]-[\w-]{10,}|\bxapp-[\w-]{10,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
    r"|://[^/\s:@]*:[^/\s@]+@|://(?:gh[pousr]_|glpat-|x-access-token)[^/\s@]*@"
)


def load(
    text: bytes,
    origin: str,
    model: type[T],
    *,
    checks: tuple[Check, ...] = (),
    reserved: Mapping[str, str] | None = None,
    after: Callable[[T], Iterable[Problem]] | None = None,
    choose: Callable[[Mapping[str, Any]], type[T]] | None = None,
) -> T:
    """Read `text` as `model`. `reserved` maps top-level keys that are refused to why; `after`
    looks at the value once every part of it is right; `choose` takes the model by what the plain document holds.
    Raises `ConfigError` with every problem."""
    document = _Document(text, origin)
    data: dict[str, Any] = document.data
    model = choose(data) if choose else model
    problems = list(document.problems)
    for key in [key for key in data if key in (reserved or {})]:
        problems.append(Problem((key,), (reserved or {})[key]))
        del data[key]
    problems += _drop_unknown(model, data, ())
    for check in checks:
        problems += check(data)
    value: T | None = None
    try:
        value = model.model_validate(data, by_name=True, by_alias=False)
    except ValidationError as error:
        told = {problem.path for problem in problems}  # a value taken out above is not missing as well
        problems += [
            Problem(_location(item["loc"]), _told(item))
            for item in error.errors(include_url=False)
            if _location(item["loc"]) not in told
        ]
    if value is not None and after:
        problems += after(value)
    if problems or value is None:
        lines = sorted({(document.line(problem.path), document.name(problem)) for problem in problems})
        raise ConfigError("\n".join(f"{origin}:{line}: {told}" for line, told in lines))
    return value


class _Document:
    """The plain data of a file, and on which line each part of it stands."""

    def __init__(self, text: bytes, origin: str) -> None:
        self.problems: list[Problem] = []
        self._lines: dict[Path, int] = {(): 1}
        self._values = 0
        self._origin = origin
        root = _compose(text, origin)
        data = {} if root is None else self._plain(root, (), 0)
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ConfigError(
                f"{origin}:1: the file must hold keys and values, such as `data_dir: .codespar`"
            )
        self.data: dict[str, Any] = typing.cast("dict[str, Any]", data)

    def line(self, path: Path) -> int:
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def name(self, problem: Problem) -> str:
        name = ""
        for part in problem.path:
            name += f"[{part}]" if isinstance(part, int) else f"{'.' if name else ''}{part}"
        return f"{name or 'the file'}: {problem.told}"

    def _plain(self, node: Any, path: Path, depth: int) -> Any:
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        self._values += 1
        line = int(node.start_mark.line) + 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_VALUES} values" if self._values > MAX_VALUES else f"{MAX_DEPTH} levels"
            raise ConfigError(f"{self._origin}:{line}: the file holds more than {limit}; make it smaller")
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            items: list[Any] = []
            for place, item in enumerate(typing.cast("list[Any]", node.value)):
                self._lines[(*path, place)] = int(item.start_mark.line) + 1
                items.append(self._plain(item, (*path, place), depth + 1))
            return items
        value = _scalar(node)
        if isinstance(value, str) and _SECRET_VALUE.search(value):
            self.problems.append(
                Problem(
                    path,
                    "holds what looks like a secret; put it into the environment and name the variable here",
                )
            )
            return None
        return value

    def _mapping(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = int(key_node.start_mark.line) + 1
            if not isinstance(key_node.value, str):
                self.problems.append(Problem(path, f"line {line} has a key that is not a word"))
                continue
            key = key_node.value
            if _SECRET_VALUE.search(key):
                told = f"line {line} has what looks like a secret for a key; put it into the environment and name the variable"
                self.problems.append(Problem(path, told))
                continue
            below = (*path, key)
            if key in found or below in self._lines:
                told = f"stands here twice, on lines {self._lines[below]} and {line}; keep one"
                self.problems.append(Problem(below, told))
                continue
            self._lines[below] = line
            value = self._plain(value_node, below, depth + 1)
            if isinstance(value, str | int | float) and _SECRET_KEY.search(key) and value != "":
                told = f"secrets never stand in this file; put it into the environment and name the variable (`{key}_env`) where one is asked"
                self.problems.append(Problem(below, told))
                continue
            if value is not None:  # a key whose value is commented out counts as left out
                found[key] = value
        return found


def _compose(text: bytes, origin: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.scanner import RoundTripScanner

    class Bounded(RoundTripScanner):
        """The scanner's time grows with the square of the open brackets, so it ends at the first that is too deep."""

        def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: N803
            if len(self.flow_context) > MAX_DEPTH:
                raise RecursionError
            super().fetch_flow_collection_start(TokenClass, to_push)

    if len(text) > MAX_BYTES:
        raise ConfigError(f"{origin}: the file has {len(text)} bytes; at most {MAX_BYTES} are read")
    try:
        reader = YAML(typ="rt", pure=True)
        reader.Scanner = Bounded
        return reader.compose(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise ConfigError(f"{origin}:{line}: this is not UTF-8 text; save the file as UTF-8") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = str(error.problem or error.context or "cannot be read")
        if "\\t" in told:
            told = "a tab stands where YAML allows spaces alone; indent with spaces"
        raise ConfigError(f"{origin}:{mark.line + 1 if mark else 1}: this is not YAML: {told}") from error
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}:1: this is not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ConfigError(
            f"{origin}:1: the file is nested more than {MAX_DEPTH} levels deep; make it flatter"
        ) from error


def _scalar(node: Any) -> Any:
    kind, text = str(node.tag).rpartition(":")[2], str(node.value)
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            plain = text.replace("_", "")
            return int(plain, 0) if plain.lower().startswith(("0x", "0o")) else int(plain)
        if kind == "float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
    return text


def _drop_unknown(model: type[BaseModel], data: dict[str, Any], path: Path) -> list[Problem]:
    """Take the keys out that the model does not know, and tell of each."""
    problems: list[Problem] = []
    for key in list(data):
        field = model.model_fields.get(key)
        if field is None:
            known = sorted(model.model_fields)
            near = difflib.get_close_matches(
                re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", key.replace("-", "_"))[:60], known, n=1
            )
            right = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(known)}"
            problems.append(Problem((*path, key), f"unknown key; {right}"))
            del data[key]
        elif inner := _section(field.annotation):
            value = data[key]
            if isinstance(value, dict):
                problems += _drop_unknown(inner, typing.cast("dict[str, Any]", value), (*path, key))
            elif isinstance(value, list):
                for place, item in enumerate(typing.cast("list[Any]", value)):
                    if isinstance(item, dict):
                        problems += _drop_unknown(
                            inner, typing.cast("dict[str, Any]", item), (*path, key, place)
                        )
    return problems


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, alone, optional or in a list."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, Section)
    ):
        return annotation
    found = (_section(inner) for inner in typing.get_args(annotation))
    return next((one for one in found if one), None)


def _location(location: tuple[int | str, ...]) -> Path:
    return tuple(part for part in location if part != "[key]")


def _told(item: Any) -> str:
    """What is wrong, and what would be right."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    wanted = {
        "missing": "is missing; it must be given",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "string_type": "must be text; put it in quotes",
        "tuple_type": "must be a list, such as `[one, two]`",
        "dict_type": "must hold keys and values",
        "model_type": "must hold keys and values",
        "model_attributes_type": "must hold keys and values",
        "path_type": "must be a path",
        "string_too_short": "must not be empty",
        "finite_number": "must be a finite number",
        "string_pattern_mismatch": _form(str(context.get("pattern"))),
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "greater_than": f"must be more than {context.get('gt')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "literal_error": f"must be one of {str(context.get('expected', '')).replace(' or ', ', ')}",
        "enum": f"must be one of {str(context.get('expected', '')).replace(' or ', ', ')}",
    }
    return wanted.get(kind, str(item["msg"]))


def _form(pattern: str) -> str:
    """What text of that pattern must be: names, which are nearly all of them, in words."""
    name = re.fullmatch(r"\^\[a-z0-9\]\[a-z0-9-\]\{0,(\d+)\}\$", pattern)
    if name is None:
        return f"must match `{pattern}`"
    return (
        f"must be lower-case letters, digits and dashes, {int(name[1]) + 1} at most, and begin with no dash"
    )
