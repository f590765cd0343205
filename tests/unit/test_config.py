"""The settings files: what is accepted, and that every fault is told with file, line, key and what would be right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from codespar.config import (
    ConfigError,
    RepositoryConfig,
    Settings,
    example_config,
    example_repository_config,
    load_settings,
    parse_repository_config,
)
from codespar.config.limits import LIMIT_FIELDS
from codespar.config.rules import ANALYSERS
from codespar.config.schema import published_schemas, repository_schema, settings_schema
from codespar.config.units import duration, level, money, size
from codespar.domain.tasks import MICROS, Limits

WITHIN_REASON = settings(max_examples=50, deadline=None)

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECRET = "sk-ant-api03-" + "Ab1" * 10


def loaded(text: str, folder: Path) -> Settings:
    (folder / "codespar.yaml").write_text(text, encoding="utf-8")
    return load_settings(folder / "codespar.yaml", {})


def faults(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, folder)
    return str(caught.value).splitlines()


def repository_faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_repository_config(text.encode(), ".codespar.yaml")
    return str(caught.value).splitlines()


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


PROJECT = "projects:\n  - name: shop\n    repository: /srv/shop.git\n"
BAD: list[tuple[str, str, str]] = [
    # what is written, where the fault is, and what would be right
    ("data_dri: x", "1: data_dri", "unknown key; did you mean `data_dir`?"),
    ("dataDir: x", "1: dataDir", "unknown key; did you mean `data_dir`?"),
    ("data-dir: x", "1: data-dir", "unknown key; did you mean `data_dir`?"),
    ("zzz: x", "1: zzz", "unknown key; known here are channels, data_dir, database_url, github"),
    ("server:\n  prot: 1", "2: server.prot", "unknown key; did you mean `port`?"),
    (PROJECT + "    max_tasks: 2", "4: projects[0].max_tasks", "did you mean `max_concurrent_tasks`?"),
    (PROJECT + "    limits:\n      mem: 2g", "5: projects[0].limits.mem", "did you mean `memory`?"),
    ("sandbox:\n  caps:\n    costs: $9", "3: sandbox.caps.costs", "did you mean `cost`?"),
    ("server:\n  port: http", "2: server.port", "must be a whole number"),
    ("server:\n  port: '80'", "2: server.port", "must be a whole number"),
    ("server:\n  port: true", "2: server.port", "must be a whole number"),
    ("server:\n  port: 70000", "2: server.port", "must be at most 65535"),
    ("server:\n  port: -1", "2: server.port", "must be at least 0"),
    ("server:\n  host: ''", "2: server.host", "must not be empty"),
    ("server: 8080", "1: server", "must hold keys and values"),
    ("data_dir: [a]", "1: data_dir", "must be a path"),
    ("database_url: mysql://db", "1: database_url", "must start with postgresql://"),
    ("model:\n  base_url: api.example.com", "2: model.base_url", "must be an address such as https://"),
    ("model:\n  api_key_env: my key", "2: model.api_key_env", "must be the name of an environment variable"),
    ("model:\n  name: 4", "2: model.name", "must be text; put it in quotes"),
    ("limits:\n  cost: five", "2: limits.cost", "must be an amount of US dollars such as `$5`"),
    ("limits:\n  cost: -1", "2: limits.cost", "must be at least $0"),
    ("limits:\n  cost: 1e305", "2: limits.cost", "must be an amount of US dollars"),
    ("limits:\n  cost: 2000000", "2: limits.cost", "must be at most $1000000"),
    ("limits:\n  turns: 0", "2: limits.turns", "must be at least 1"),
    ("limits:\n  turns: 1.5", "2: limits.turns", "must be a whole number"),
    ("limits:\n  wall: soon", "2: limits.wall", "must be a duration such as `90s`, `5m` or `1h`"),
    ("limits:\n  wall: 1h30m", "2: limits.wall", "must be a duration such as"),
    ("limits:\n  wall: 0", "2: limits.wall", "must be at least 1s"),
    ("limits:\n  wall: .inf", "2: limits.wall", "must be a duration"),
    ("limits:\n  stall: 4000d", "2: limits.stall", "must be at most 3650d"),
    (f"limits:\n  stall: {'9' * 400}", "2: limits.stall", "must be a duration"),
    (f"limits:\n  stall: {'9' * 400}d", "2: limits.stall", "must be a duration"),
    ("limits:\n  memory: big", "2: limits.memory", "must be a size such as `512m` or `2g`"),
    ("limits:\n  memory: 1m", "2: limits.memory", "must be at least 64m"),
    ("limits:\n  memory: 2.5", "2: limits.memory", "must be a size"),
    (f"limits:\n  memory: {'9' * 400}g", "2: limits.memory", "must be a size"),
    (f"limits:\n  memory: {'9' * 400}", "2: limits.memory", "must be at most 1024t"),
    ("limits:\n  cpus: 0", "2: limits.cpus", "must be more than 0"),
    ("limits:\n  cpus: .nan", "2: limits.cpus", "must be at most 1024"),
    ("limits:\n  cpus: two", "2: limits.cpus", "must be a number"),
    ("limits:\n  tmp: 1k", "2: limits.tmp", "must be at least 16m"),
    ("limits:\n  output: 10", "2: limits.output", "must be at least 1k"),
    ("people: {name: Ada}", "1: people", "must be a list, such as `[one, two]`"),
    ("people:\n  - Ada", "2: people[0]", "must hold keys and values"),
    ("people:\n  - name: Ada", "2: people[0].role", "is missing; it must be given"),
    ("people:\n  - role: owner", "2: people[0].name", "is missing; it must be given"),
    ("people:\n  - name: Ada\n    role: admin", "3: people[0].role", "must be one of 'owner', 'emergency_admin'"),
    (
        "people:\n  - {name: Ada, role: owner}\n  - {name: ada, role: operator}",
        "3: people[1].name",
        "people[0] has the id `ada` too; give each person an `id` of their own",
    ),
    ("projects:\n  - name: shop", "2: projects[0].repository", "is missing"),
    ("projects:\n  - {name: Shop Two, repository: x}", "2: projects[0].name", "must be one word"),
    ("projects:\n  - {name: SHOP, repository: x}", "2: projects[0].name", "lower-case letters, digits and dashes, 61 at most"),
    ("projects:\n  - {name: status, repository: x}", "2: projects[0].name", "choose another name"),
    ("projects:\n  - {name: staging, repository: x}", "2: projects[0].name", "means something in commands"),
    (PROJECT + "    alias: [sh, Deploy]", "4: projects[0].alias[1]", "`Deploy` means something in commands"),
    (PROJECT + "    alias: sh", "4: projects[0].alias", "must be a list"),
    (
        PROJECT + "    alias: [sh]\n  - {name: sh, repository: y}",
        "5: projects[1].name",
        "`sh` is the name of projects[0] already; a name leads to one project",
    ),
    (PROJECT + "    autonomy: L6", "4: projects[0].autonomy", "must be a level from 0 to 5 (or L0 to L5)"),
    (PROJECT + "    autonomy: true", "4: projects[0].autonomy", "must be a level from 0 to 5"),
    (PROJECT + "    max_concurrent_tasks: 0", "4: projects[0].max_concurrent_tasks", "must be at least 1"),
    (PROJECT + "    max_concurrent_tasks: 51", "4: projects[0].max_concurrent_tasks", "must be at most 50"),
    (PROJECT + "    blocked_paths: ['']", "4: projects[0].blocked_paths[0]", "must not be empty"),
    (
        PROJECT + "    limits:\n      memory: 5g",
        "5: projects[0].limits.memory",
        "is more than `sandbox.caps` allows (where it says nothing: twice `limits`); set `sandbox.caps.memory`",
    ),
    (
        "limits:\n  cost: $3\nsandbox:\n  caps:\n    cost: $2\n" + PROJECT,
        "7: projects[0]",
        "set `sandbox.caps.cost`",
    ),
    ("data_dir: a\ndata_dir: b", "1: data_dir", "stands here twice, on lines 1 and 2; keep one"),
    ("[a, b]", "1: the file must hold keys and values", "such as `data_dir: .codespar`"),
    ("a: [", "1: this is not YAML", ""),
    ("server:\n\tport: 1", "2: this is not YAML", "indent with spaces"),
    ("? [a]\n: b", "1: the file", "has a key that is not a word"),
    ("a: &a [*a]", "1: the file holds more than 20 levels", "make it smaller"),
    ("a: " + "[" * 5000, "1: the file is nested more than 20 levels deep", "make it flatter"),
    ("a: " + "{" * 5000, "1: the file is nested more than 20 levels deep", "make it flatter"),
    ("a:\n" + "- " * 2000, "1: the file is nested more than 20 levels deep", "make it flatter"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "told"), BAD, ids=[row[1] + " " + row[2][:30] for row in BAD])
def test_a_fault_is_told_with_file_line_key_and_what_would_be_right(
    text: str, where: str, told: str, tmp_path: Path
) -> None:
    found = faults(text, tmp_path)
    hits = [fault for fault in found if fault.startswith(f"codespar.yaml:{where}") and told in fault]
    assert hits and len(found) == 1, found


def test_every_fault_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        "server:\n  port: 70000\n  hots: x\npeople:\n  - name: Ada\n    role: king\nlimits:\n  cost: much\n"
    )
    found = faults(text, tmp_path)
    assert [fault.split(": ")[:2] for fault in found] == [
        ["codespar.yaml:2", "server.port"],
        ["codespar.yaml:3", "server.hots"],
        ["codespar.yaml:6", "people[0].role"],
        ["codespar.yaml:8", "limits.cost"],
    ]


SECRETS = {
    "a key of the model service": f"model:\n  api_key_env: {SECRET}",
    "a key called so": "model:\n  api_key: {}\n".format("x" * 8),
    "a token of a person": "people:\n  - name: Ada\n    role: owner\n    token: hunter2-hunter2",
    "a token as a name": "people:\n  - name: ghp_{}\n    role: owner".format("a1B2" * 9),
    "a password in an address": "database_url: postgresql://codespar:hunter2@localhost/codespar",
    "a token in a repository": "projects:\n  - name: shop\n    repository: https://x:glpat-abc@git.example/s.git",
    "a private key": "data_dir: |\n  -----BEGIN RSA PRIVATE KEY-----\n  abc",
    "a secret as a key": f"model:\n  {SECRET}: 1",
    "a secret as a lone word": f"model: {{{SECRET}}}",
    "a secret under an unknown key": f"whatever:\n  deep:\n    - {SECRET}",
    "a slack token": "model:\n  name: xoxb-{}".format("1234567890-abc"),
    "a cloud key": "model:\n  name: AKIAABCDEFGHIJKLMNOP",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_refused_and_never_repeated(text: str, tmp_path: Path) -> None:
    told = "\n".join(faults(text, tmp_path))
    assert "secret" in told and "environment" in told
    for leak in (SECRET, "hunter2", "ghp_", "glpat", "xoxb", "AKIA", "BEGIN RSA", "xxxxxxxx"):
        assert leak not in told


def test_a_refused_secret_is_not_told_to_be_missing_as_well(tmp_path: Path) -> None:
    assert len(faults(SECRETS["a token in a repository"], tmp_path)) == 1


def test_the_name_of_a_variable_that_holds_a_secret_is_no_secret(tmp_path: Path) -> None:
    text = "model: {api_key_env: MY_KEY}\npeople: [{name: Ada, role: owner, token_env: ADA_TOKEN}]"
    found = loaded(text, tmp_path)
    assert found.model.api_key({"MY_KEY": "k"}) == "k"
    assert found.model.api_key({"MY_KEY": ""}) is None and found.model.api_key({}) is None
    assert found.people[0].token_env == "ADA_TOKEN"


def test_a_file_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    assert "at most 262144 are read" in faults("# " + "x" * 300_000, tmp_path)[0]
    (tmp_path / "latin.yaml").write_bytes(b"data_dir: x\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"^latin\.yaml:2: this is not UTF-8 text"):
        load_settings(tmp_path / "latin.yaml", {})


def test_a_file_of_few_bytes_that_unfolds_to_many_values_is_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    levels += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 10000 values" in faults("\n".join(levels), tmp_path)[0]


def test_a_tag_makes_no_object(tmp_path: Path) -> None:
    found = loaded("data_dir: !!python/object/apply:os.getcwd x\n", tmp_path)
    assert found.data_dir == tmp_path / "x"


def test_a_key_whose_value_is_commented_out_counts_as_left_out(tmp_path: Path) -> None:
    assert loaded("server:\n  # port: 1\nlimits:\n", tmp_path).server.port == 7477


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffdata_dir: .codespar\n"])
def test_an_empty_file_means_the_defaults(text: str, tmp_path: Path) -> None:
    assert loaded(text, tmp_path) == Settings().evolve(data_dir=tmp_path / ".codespar")


def test_the_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}) == Settings()
    (tmp_path / "codespar.yaml").write_text("server: {port: 1}")
    (tmp_path / "named.yaml").write_text("server: {port: 2}")
    (tmp_path / "given.yaml").write_text("server: {port: 3}")
    environment = {"CODESPAR_CONFIG": str(tmp_path / "named.yaml")}
    assert load_settings(None, {}).server.port == 1
    assert load_settings(None, environment).server.port == 2
    assert load_settings(tmp_path / "given.yaml", environment).server.port == 3


def test_a_named_file_that_is_not_there_is_an_error_that_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*codespar init"):
        load_settings(None, {"CODESPAR_CONFIG": str(tmp_path / "none.yaml")})


def test_paths_are_relative_to_the_file_and_addresses_are_left_alone(tmp_path: Path) -> None:
    text = """\
data_dir: data
sandbox: {ca_bundle: ca.pem}
projects:
  - {name: a, repository: ../a.git}
  - {name: b, repository: /srv/b.git}
  - {name: c, repository: "https://git.example/c.git"}
  - {name: d, repository: "git@git.example:d.git"}
"""
    found = loaded(text, tmp_path)
    assert (found.data_dir, found.sandbox.ca_bundle) == (tmp_path / "data", tmp_path / "ca.pem")
    assert [project.repository for project in found.projects] == [
        str(tmp_path / "../a.git"),
        "/srv/b.git",
        "https://git.example/c.git",
        "git@git.example:d.git",
    ]


def test_names_and_aliases_lead_to_their_project_in_lower_case(tmp_path: Path) -> None:
    found = loaded(PROJECT + "    alias: [SH, Store]\n  - {name: api, repository: y}", tmp_path)
    assert found.aliases() == {"shop": "shop", "sh": "shop", "store": "shop", "api": "api"}


def test_limits_come_from_the_project_then_the_installation_then_the_defaults(tmp_path: Path) -> None:
    text = "limits: {cost: $4, wall: 30m}\n" + PROJECT + "    limits: {cost: $6.50}\n"
    found = loaded(text, tmp_path)
    limits = found.projects[0].task_limits(found)
    assert limits == Limits().evolve(cost_micros=6_500_000, wall_seconds=1800.0)


def test_caps_are_twice_the_limits_unless_they_are_set(tmp_path: Path) -> None:
    found = loaded("limits: {cost: $4}\nsandbox: {caps: {memory: 3g}}", tmp_path)
    caps, default = found.task_caps(), Limits()
    assert (caps.cost_micros, caps.turns, caps.memory_bytes) == (8 * MICROS, 200, 3 * 1024**3)
    assert (caps.wall_seconds, caps.stall_seconds, caps.cpus) == (7200, 600, 4)
    assert (caps.pids, caps.output_files) == (default.pids, default.output_files)


def test_a_project_may_go_up_to_the_cap_and_no_further(tmp_path: Path) -> None:
    text = PROJECT + "    limits: {turns: %d}\n"
    assert loaded(text % 200, tmp_path).projects[0].limits.turns == 200
    assert "set `sandbox.caps.turns`" in faults(text % 201, tmp_path)[0]
    assert loaded("sandbox: {caps: {turns: 201}}\n" + text % 201, tmp_path)


def test_every_limit_that_can_be_written_is_one_of_a_task() -> None:
    assert set(LIMIT_FIELDS.values()) == set(Limits.model_fields) - {"pids", "output_files"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_model_service_on_this_machine_may_do_without_a_key(host: str, tmp_path: Path) -> None:
    found = loaded(f"model: {{base_url: 'http://{host}:9/'}}", tmp_path)
    assert not found.model.needs_key and found.model.base_url == f"http://{host}:9"
    assert Settings().model.needs_key


@pytest.mark.parametrize(
    ("convert", "written", "means"),
    [
        (size, "512m", 512 * 1024**2),
        (size, "2G", 2 * 1024**3),
        (size, "1.5GiB", 3 * 1024**3 // 2),
        (size, " 64 kb ", 64 * 1024),
        (size, 4096, 4096),
        (duration, "90s", 90.0),
        (duration, "5M", 300.0),
        (duration, "1.5h", 5400.0),
        (duration, "2d", 172_800.0),
        (duration, "500ms", 0.5),
        (duration, 45, 45.0),
        (money, "$5", 5_000_000),
        (money, "$ 0.000001", 1),
        (money, "0.50", 500_000),
        (money, 5, 5_000_000),
        (money, 0.1, 100_000),
        (level, "L3", 3),
        (level, "l0", 0),
        (level, 5, 5),
    ],
)
def test_units_are_read_as_people_write_them(convert: Any, written: Any, means: Any) -> None:
    assert convert(written) == means


@pytest.mark.parametrize("convert", [size, duration, money, level])
@pytest.mark.parametrize(
    "written", ["", "x", "5x", "-5m", "1e3", "٣m", "5 m m", None, True, [], {}, float("nan"), float("inf"), 1e400]
)  # fmt: skip
def test_what_is_no_unit_is_refused_and_never_guessed(convert: Any, written: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        convert(written)


@WITHIN_REASON
@given(
    written=st.one_of(
        st.text(max_size=20), st.integers(), st.floats(), st.from_regex(r"\$?[0-9.]+[kmgtsdh]?")
    )
)
@pytest.mark.parametrize("convert", [size, duration, money, level])
def test_no_written_unit_raises_anything_but_a_value_error(convert: Any, written: Any) -> None:
    try:
        converted = convert(written)
    except ValueError:
        return
    assert isinstance(converted, int | float)


# .codespar.yaml


FULL_REPOSITORY = """\
environment:
  dockerfile: docker/Dockerfile.dev
  setup: [make deps]
  inputs: [requirements.txt]
  variables: {CI: "1", TOKEN_FILE_NAME: ""}
test: make test
limits: {memory: 3g, cost: $2}
blocked_paths: ["migrations/"]
blocked_commands: ["terraform apply"]
"""


def test_a_repository_says_how_it_is_built_tested_and_guarded() -> None:
    found = parse_repository_config(FULL_REPOSITORY.encode(), "o")
    assert dict(found.environment.variables) == {"CI": "1", "TOKEN_FILE_NAME": ""}
    assert (found.environment.dockerfile, tuple(found.environment.setup)) == (
        "docker/Dockerfile.dev",
        ("make deps",),
    )
    assert found.test == "make test"
    assert found.limits == {"memory_bytes": 3 * 1024**3, "cost_micros": 2 * MICROS}
    assert (found.blocked_paths, found.blocked_commands) == (("migrations/",), ("terraform apply",))


@pytest.mark.parametrize("text", [None, b"", b"# nothing\n"])
def test_a_repository_that_says_nothing_has_the_defaults(text: bytes | None) -> None:
    assert parse_repository_config(text, ".codespar.yaml") == RepositoryConfig()


BAD_REPOSITORY = [
    ("tests: make", "1: tests", "unknown key; did you mean `test`?"),
    ("test: ''", "1: test", "must not be empty"),
    ("test: [make]", "1: test", "must be text"),
    ("review:\n  approve_up_to: high", "2: review.approve_up_to", "must be one of 'none', 'low', 'medium'"),
    ("review:\n  ignores: [a]", "2: review.ignores", "unknown key; did you mean `ignore`?"),
    ("review:\n  request_changes_from: huge", "2: review.request_changes_from", "critical"),
    ("review:\n  analysers:\n    - name: Lint\n      command: x", "3: review.analysers[0].name", "lower-case letters, digits and dashes, 31 at most"),
    ("review:\n  analysers:\n    - {name: model, command: x}", "3: review.analysers[0].name", "`model` are CodeSpar's own; choose another name, such as `own-model`"),
    ("review:\n  analysers:\n    - {name: advisories, command: x}", "3: review.analysers[0].name", "CodeSpar's own"),
    ("review:\n  analysers:\n    - {name: ruff, command: x}", "3: review.analysers[0].name", "(`review.without: [ruff]` leaves ours out)"),
    ("review:\n  analysers:\n    - name: lint", "3: review.analysers[0].command", "is missing"),
    ("deploy: {}", "1: deploy", "is not available in this release"),
    ("health: {}", "1: health", "is not available in this release"),
    ("model:\n  name: x", "1: model", "unknown key"),
    ("autonomy: 5", "1: autonomy", "unknown key"),
    ("environment:\n  image: a\n  dockerfile: b", "1: environment", "exclude each other; keep one"),
    ("environment:\n  dockerfile: /etc/passwd", "2: environment.dockerfile", "must be a path inside the repository"),
    ("environment:\n  dockerfile: a/../../b", "2: environment.dockerfile", "must be a path inside"),
    ("environment:\n  inputs: [~/.ssh/id]", "2: environment.inputs[0]", "must be a path inside"),
    ("environment:\n  setup: make", "2: environment.setup", "must be a list"),
    ("environment:\n  variables: {'A B': x}", "2: environment.variables.A B", "must be the name of an environment"),
    ("environment:\n  variables: {CI: 1}", "2: environment.variables.CI", "must be text; put it in quotes"),
    ("environment:\n  variables: {NPM_TOKEN: x}", "2: environment.variables.NPM_TOKEN", "secrets never"),
    ("environment:\n  variables: {DB_PASSWORD_OLD: x}", "2: environment.variables.DB_PASSWORD_OLD", "secrets never"),
    ("environment:\n  variables: {AWS_SECRET_ACCESS_KEY: x}", "2: environment.variables.AWS_SECRET", "secrets never"),
    ("limits:\n  memory: 1k", "2: limits.memory", "must be at least 64m"),
    (f"limits:\n  tmp: {'9' * 400}t", "2: limits.tmp", "must be a size"),
    ("blocked_paths: '*.pem'", "1: blocked_paths", "must be a list"),
]  # fmt: skip


def test_no_analyser_of_a_repository_has_the_name_of_a_built_in_one() -> None:
    from codespar.sandbox.analysers import OURS

    assert tuple(one.name for one in OURS) == ANALYSERS


@pytest.mark.parametrize(("text", "where", "told"), BAD_REPOSITORY, ids=[row[1] for row in BAD_REPOSITORY])
def test_a_fault_of_a_repository_is_told_the_same_way(text: str, where: str, told: str) -> None:
    found = repository_faults(text)
    assert [fault for fault in found if fault.startswith(f".codespar.yaml:{where}") and told in fault], found


@WITHIN_REASON
@given(text=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode())))
def test_whatever_a_repository_writes_is_understood_or_refused_by_name(text: bytes) -> None:
    try:
        parse_repository_config(text, ".codespar.yaml")
    except ConfigError as error:
        assert str(error).startswith(".codespar.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["environment", "test", "limits", "blocked_paths", "blocked_commands", "setup", "review"]
)
INNER = st.dictionaries(st.sampled_from(["image", "setup", "variables", "memory", "cost", "wall"]), VALUES)


@WITHIN_REASON
@given(document=st.dictionaries(KEYS, VALUES | INNER, max_size=3))
def test_values_of_any_kind_under_any_key_are_understood_or_refused(document: dict[str, Any]) -> None:
    try:
        parse_repository_config(json.dumps(document).encode(), ".codespar.yaml")
    except ConfigError as error:
        assert str(error).startswith(".codespar.yaml:1: ")


# the schemas and the examples
PUBLISHED = published_schemas()
EDITOR = Draft202012Validator(settings_schema())


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_schema_is_what_the_code_generates(name: str) -> None:
    told = "out of date; run `python -m codespar.config.schema docs`"
    assert (DOCS / name).read_text(encoding="utf-8") == PUBLISHED[name], told


def test_no_other_schema_lies_about() -> None:
    assert {path.name for path in DOCS.glob("*.schema.json")} == set(PUBLISHED)


EXAMPLES = {
    "codespar.yaml": (example_config(), settings_schema()),
    ".codespar.yaml": (example_repository_config(), repository_schema()),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_example_is_valid_as_it_stands_and_with_every_key_put_in(kind: str, tmp_path: Path) -> None:
    example, schema = EXAMPLES[kind]
    whole = re.sub(r"^# (?= *(?:- |\w+:(?: |$)))", "", example, flags=re.MULTILINE)
    assert set(plain(whole)) == set(schema["properties"])
    Draft202012Validator.check_schema(schema)
    for text in (example, whole):
        Draft202012Validator(schema).validate(plain(text))
        if kind == "codespar.yaml":
            assert isinstance(loaded(text, tmp_path), Settings)
        else:
            assert parse_repository_config(text.encode(), kind).test == "make test"


def test_the_schema_refuses_unknown_keys_and_knows_every_key() -> None:
    schema = settings_schema()
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()) if "properties" in part)  # fmt: skip
    assert all("description" in field for field in schema["properties"].values())


BY_SCHEMA_AS_WELL = [
    row for row in BAD if row[2].startswith(("unknown key", "must be at", "is missing", "must not"))
]


@pytest.mark.parametrize(
    "text", [row[0] for row in BY_SCHEMA_AS_WELL], ids=[row[1] for row in BY_SCHEMA_AS_WELL]
)
def test_an_editor_with_the_schema_sees_the_same_faults(text: str) -> None:
    written_size_below_the_least = ("memory: 1m", "tmp: 1k", "stall: 4000d", ".nan")  # no pattern can tell
    if not text.endswith(written_size_below_the_least):
        assert not EDITOR.is_valid(plain(text))
