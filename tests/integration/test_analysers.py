"""Analysers in real containers: what they find on both trees, that nothing of one spoils another, and that nothing runs twice."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from codespar.domain.reviews import Category, Severity
from codespar.domain.tasks import Limits
from codespar.sandbox.analysers import SandboxAnalysers, container_names
from codespar.sandbox.base import Analyser, AnalyserReport, AnalysisOrder, Container, Order, OutputRefused
from codespar.sandbox.docker import DockerSandbox

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),  # the first of them may have to build the images
    pytest.mark.skipif(
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode != 0,
        reason="no Docker Engine answers",
    ),
]
DATA = Path(os.environ.get("CODESPAR_TEST_CACHE", "/var/tmp/codespar-test-cache"))
CASES = Path(__file__).parent.parent / "support" / "analyser_rules"
TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9j0" + "K1l2M3n4O5p6Q7r8"  # of the right form, and nobody's
OLD = """import subprocess


def run(command):
    return subprocess.run(f"ls {command}", shell=True)


def old_name():
    return undefined_before
"""
NEW = """import hashlib
import os
import subprocess


def run(command):
    return subprocess.run(f"ls {command}", shell=True)


def old_name():
    return undefined_before


def digest(password):
    return hashlib.md5(password.encode()).hexdigest()


def quiet(path):
    os.system(f"rm {path}")  # nosec  # nosemgrep  # noqa


def new_name():
    return undefined_now
"""


def git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


class Bench:
    """A sandbox, and one small repository with a change to it."""

    def __init__(self, folder: Path, sandbox: DockerSandbox, installation: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.installation = installation
        self.said: list[str] = []
        self.analysers = SandboxAnalysers(sandbox, self.said.append)

    def order(
        self,
        before: dict[str, str],
        after: dict[str, str | None],
        *,
        analysers: tuple[Analyser, ...] = (),
        without: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> AnalysisOrder:
        """The change from the files `before` to these with those of `after` (None: removed)."""
        name = f"codespar-review-{uuid.uuid4().hex[:8]}"
        made = self.folder / name
        made.mkdir()
        git("init", "-q", "-b", "main", cwd=made)
        for files in (before, after):
            for path, content in files.items():
                place = made / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                if content is not None:
                    place.write_text(content)
            if files is before:
                git("add", "-A", cwd=made)
                git(
                    *("-c", "user.name=T", "-c", "user.email=t@example.org"),
                    *("commit", "-qm", "base", "--allow-empty"),
                    cwd=made,
                )
        git("add", "-A", "-f", cwd=made)
        patch = self.folder / f"{name}.patch"
        patch.write_text(git("diff", "--cached", "--binary", "--full-index", cwd=made))
        repository = self.folder / f"{name}.git"
        git("clone", "-q", "--bare", str(made), str(repository), cwd=self.folder)
        return AnalysisOrder(
            name=name,
            owner=name.removeprefix("codespar-"),
            project="demo",
            base_commit=git("rev-parse", "HEAD", cwd=made).strip(),
            repository=repository,
            patch=patch,
            changed=tuple(path for path, content in after.items() if content is not None),
            folder=self.folder / f"{name}-folder",
            limits=limits or Limits(),
            analysers=analysers,
            without=without,
        )

    async def reports(self, order: AnalysisOrder) -> dict[str, AnalyserReport]:
        return {report.analyser: report for report in await self.analysers.analyse(order)}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    installation = f"test-{uuid.uuid4().hex[:8]}"
    sandbox = DockerSandbox(None, DATA, installation)
    try:
        yield Bench(tmp_path, sandbox, installation)
    finally:
        await sandbox.sweep(set())
        await sandbox.close()


def found(report: AnalyserReport, tree: str = "head") -> set[tuple[str, int]]:
    findings = report.head if tree == "head" else report.base
    return {(finding.source.partition(":")[2], finding.start_line) for finding in findings}


def exists(name: str) -> bool:
    return subprocess.run(["docker", "inspect", name], capture_output=True).returncode == 0


def program(name: str, command: str, seconds: float = 180) -> Analyser:
    return Analyser(name=name, command=command, seconds=seconds)


SARIF = """python3 -c '
import json, os
place = {"artifactLocation": {"uri": "a.txt"}, "region": {"startLine": 1}}
text = "size is %d" % os.path.getsize("a.txt")
result = {"ruleId": "size", "message": {"text": text}, "locations": [{"physicalLocation": place}]}
log = {"runs": [{"tool": {"driver": {"name": "mine", "version": "7"}}, "results": [result]}]}
json.dump(log, open(os.environ["SARIF"], "w"))
'"""
ONLY_OWN = ("ruff", "bandit", "semgrep", "detect-secrets")


async def test_ours_find_old_defects_in_the_base_and_new_ones_in_the_change(bench: Bench) -> None:
    after: dict[str, str | None] = {
        "app.py": NEW,
        "pkg/settings.txt": f"token = {TOKEN}\n",
        "b c.py": "def f(x, y=[]):\n    y.append(x)\n    return y\n",
    }
    order = bench.order({"app.py": OLD, "other.py": "undefined_but_unchanged\n"}, after)
    reports = await bench.reports(order)
    assert [report.problem for report in reports.values()] == [""] * 4
    assert list(reports) == ["ruff", "bandit", "semgrep", "detect-secrets"]
    assert all(re.match(r"\d+\.\d+", report.version) for report in reports.values())

    ruff = reports["ruff"]
    assert found(ruff, "base") == {("F821", 9)}
    assert found(ruff) == {("F821", 11), ("F821", 23), ("B006", 1)}
    undefined = next(one for one in ruff.head if one.start_line == 23)
    assert (undefined.path, undefined.line_text) == ("app.py", "    return undefined_now")
    assert (undefined.severity, undefined.category) == (Severity.HIGH, Category.CORRECTNESS)
    old, same = (
        next(one for one in tree if "undefined_before" in one.title) for tree in (ruff.base, ruff.head)
    )
    assert old.fingerprint == same.fingerprint

    assert ("B602", 5) in found(reports["bandit"], "base")
    assert {("B602", 7), ("B324", 15)} <= found(reports["bandit"])

    semgrep = reports["semgrep"]
    assert found(semgrep, "base") == {("python-shell-true", 5)}
    assert found(semgrep) >= {
        ("python-shell-true", 7),
        ("python-fast-hash-of-password", 15),
        ("python-mutable-default", 1),
    }
    shell = next(one for one in semgrep.head if one.start_line == 7)
    assert shell.title == "A shell runs a command that is put together from values"
    assert (shell.severity, shell.category) == (Severity.HIGH, Category.SECURITY)
    assert next(one for one in semgrep.head if one.path == "b c.py").line_text == "def f(x, y=[]):"

    suppressed = next(one for one in semgrep.head if one.start_line == 19)
    assert suppressed.severity is Severity.LOW and "suppressed" in suppressed.why

    (secret,) = reports["detect-secrets"].head
    assert (secret.path, secret.start_line, secret.category) == ("pkg/settings.txt", 1, Category.SECRET)
    assert TOKEN not in secret.model_dump_json()
    assert not exists(order.name)
    shutil.rmtree(order.repository)
    assert await bench.reports(order) == reports, "they are kept: nothing runs again"


async def test_each_bundled_rule_finds_its_wrong_cases_and_leaves_the_right_ones(bench: Bench) -> None:
    after: dict[str, str | None] = {
        path.name.removesuffix(".txt"): path.read_text() for path in CASES.glob("*.txt")
    }
    reports = await bench.reports(bench.order({}, after, without=("ruff", "bandit", "detect-secrets")))
    assert reports["semgrep"].problem == ""
    wanted = {
        (path, number + 1, mark[1])
        for path, text in after.items()
        for number, line in enumerate((text or "").splitlines(), start=1)
        if (mark := re.search(r"ruleid: (\S+)", line))
    }
    said = {
        (one.path, one.start_line, one.source.removeprefix("semgrep:")) for one in reports["semgrep"].head
    }
    assert said == wanted
    rules = Path(__file__).parents[2] / "src" / "codespar" / "sandbox" / "rules"
    named = {name for path in rules.glob("*.yaml") for name in re.findall(r"- id: (\S+)", path.read_text())}
    assert named == {rule for _, _, rule in wanted}


async def test_a_change_cannot_loosen_what_judges_it(bench: Bench) -> None:
    base = {"ruff.toml": '[lint]\nselect = ["F401"]\n', "a.pyi": "import os\nmissing\n"}
    after: dict[str, str | None] = {
        "ruff.toml": '[lint]\nselect = ["E501"]\n',
        "pyproject.toml": '[tool.ruff.lint]\nignore = ["ALL"]\n[tool.bandit]\nskips = ["B602"]\n',
        ".semgrepignore": "*\n",
        ".bandit": "[bandit]\nexclude = /\n",
        ".gitignore": "*\n",
        "a.pyi": "import os\nmissing\n",
        "b.py": "import subprocess\nsubprocess.run(f'ls {missing}', shell=True)\n",
    }
    reports = await bench.reports(bench.order(base, after))
    assert [report.problem for report in reports.values()] == [""] * 4
    assert found(reports["ruff"]) == found(reports["ruff"], "base") == {("F401", 1)}  # by the base's settings
    assert ("B602", 2) in found(reports["bandit"])
    assert ("python-shell-true", 2) in found(reports["semgrep"])


@pytest.mark.parametrize(
    "settings", ['required-version = "==0.1.0"\n', 'extend = "other.toml"\n', "nonsense [[\n"]
)
async def test_ruff_settings_that_cannot_be_used_give_way_to_ours(bench: Bench, settings: str) -> None:
    order = bench.order(
        {"ruff.toml": settings, "other.toml": "[lint]\nselect = []\n"},
        {"a.py": "print(missing)\n"},
        without=("bandit", "semgrep", "detect-secrets"),
    )
    report = (await bench.reports(order))["ruff"]
    assert report.problem == "" and found(report) == {("F821", 1)}


async def test_what_concerns_no_changed_file_is_not_started(bench: Bench) -> None:
    reports = await bench.reports(bench.order({}, {"README.md": "hello\n"}))
    assert list(reports) == ["detect-secrets"]
    removed = bench.order({"a.py": "x = 1\n"}, {"a.py": None})
    assert await bench.reports(removed) == {}
    assert not exists(removed.name)


async def test_a_broken_a_missing_a_hanging_and_a_greedy_program_spoil_nobody_else(bench: Bench) -> None:
    order = bench.order(
        {"a.txt": "old\n"},
        {"a.txt": "newer\n"},
        without=ONLY_OWN,
        analysers=(
            program("broken", "echo went wrong; exit 3"),
            program("missing", "no-such-program --sarif"),
            program("hanging", "sleep 600", seconds=1),
            program("greedy", "head -c 1G /dev/zero > $SARIF"),
            program("filling", "head -c 1G /dev/zero > /tmp/one; head -c 1G /dev/zero > /tmp/two; true"),
            program("chatty", "yes | head -c 300M; (setsid sleep 600 &)"),
            program("nonsense", "echo '{\"runs\": 3}' > $SARIF"),
            program("link", "ln -s /etc/passwd $SARIF"),
            program("vandal", "rm -rf * /tmp/work/.git /tmp/.codespar; chmod 0 /tmp/work"),
            program("good", SARIF),
        ),
        limits=Limits(tmp_bytes=128 * 1024**2),
    )
    reports = await bench.reports(order)
    problems = {name: report.problem for name, report in reports.items()}
    assert "ended with 3: went wrong" in problems["broken"]
    assert "no-such-program" in problems["missing"] and "127" in problems["missing"]
    assert problems["hanging"].startswith("on the base: it was ended after 1 s")
    assert "more than 8 MiB" in problems["greedy"]
    assert "no SARIF" in problems["filling"] and "no SARIF" in problems["chatty"]
    assert "no SARIF log" in problems["nonsense"]
    assert "cannot be opened" in problems["link"]
    assert "no SARIF" in problems["vandal"]
    good = reports["good"]
    assert (good.problem, good.version) == ("", "7")
    assert [one.title for one in good.base] == ["size is 4"] and [one.title for one in good.head] == [
        "size is 6"
    ]
    assert [one.line_text for one in (*good.base, *good.head)] == ["old", "newer"]


async def test_a_program_has_no_network_and_cannot_write_where_it_should_not(bench: Bench) -> None:
    command = (
        "python3 -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 3)' 2>&1 | tail -1;"
        " touch /workspace/x /run/codespar/x /opt/x; cat /proc/net/dev | grep -c :; grep CapEff /proc/self/status; id -u"
    )
    order = bench.order({}, {"a.txt": "x\n"}, without=ONLY_OWN, analysers=(program("probe", command),))
    said = (await bench.reports(order))["probe"].problem
    assert "Network is unreachable" in said and "Read-only file system" in said
    assert re.search(r"\n1\nCapEff:\s+0+\n(?!0\n)", said), said


async def test_a_patch_that_does_not_apply_is_told_of_every_analyser(bench: Bench) -> None:
    order = bench.order({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"})
    order.patch.write_text(order.patch.read_text().replace("x = 1", "y = 1"))
    reports = await bench.reports(order)
    assert len(reports) == 4 and all("a.py" in report.problem for report in reports.values())


async def test_without_the_projects_environment_ours_still_report(bench: Bench) -> None:
    order = bench.order({}, {"a.txt": f"{TOKEN}\n"}, analysers=(program("own", SARIF),))
    reports = await bench.reports(order.evolve(environment_image="codespar/environment:gone"))
    assert "codespar/environment:gone" in reports["own"].problem
    assert len(reports["detect-secrets"].head) == 1


async def test_told_to_end_the_runner_ends_its_program_and_says_so(bench: Bench) -> None:
    slow = program("slow", "sleep 600", seconds=900)
    order = bench.order({}, {"a.txt": "x\n"}, without=ONLY_OWN, analysers=(slow,))
    running = asyncio.create_task(bench.analysers.analyse(order))
    events = order.folder / "own" / "out" / "events.ndjson"
    async with asyncio.timeout(120):
        while not (events.is_file() and "analysing base" in events.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.to_thread(
        subprocess.run, ["docker", "stop", "-t", "60", container_names(order.name)[1]], capture_output=True
    )
    (report,) = await asyncio.wait_for(running, 120)
    assert "its container ended" in report.problem
    result = json.loads((order.folder / "own" / "out" / "result.json").read_text())
    assert result["outcome"] == "stopped"


async def test_a_link_in_place_of_the_patch_is_refused(bench: Bench) -> None:
    order = bench.order({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"})
    order.patch.unlink()
    order.patch.symlink_to("/etc/hostname")
    with pytest.raises(OutputRefused, match="link"):
        await bench.analysers.analyse(order)


async def test_links_and_large_files_of_the_change_are_not_looked_at(bench: Bench) -> None:
    order = bench.order({}, {"big.txt": f"{TOKEN}\n" + "x" * 2 * 1024**2, "a.txt": f"{TOKEN}\n"})
    made = bench.folder / order.name
    (made / "link.txt").symlink_to("/dev/zero")
    (made / "folder").symlink_to("/proc/self")
    git("add", "-A", cwd=made)
    order.patch.write_text(git("diff", "--cached", "--binary", "--full-index", cwd=made))
    order = order.evolve(changed=(*order.changed, "link.txt", "folder", "folder/environ", "../../etc/passwd"))
    report = (await bench.reports(order))["detect-secrets"]
    assert report.problem == "" and [one.path for one in report.head] == ["a.txt"]


async def test_each_analyser_names_the_files_it_was_to_look_at_and_did_not_for_their_size(
    bench: Bench,
) -> None:
    large = "# " + "x" * 80 + "\n"
    after: dict[str, str | None] = {
        "big, 100%.py": large * 20_000,
        "notes.txt": large * 20_000,
        "image.bin": "\0" + large * 20_000,
        "just.py": NEW + large * 12_500,  # beyond a million bytes, and under 1 MiB
    }
    reports = await bench.reports(bench.order({"big, 100%.py": "x = 1\n"}, after))
    assert {name: (report.problem, report.unlooked) for name, report in reports.items()} == {
        "ruff": ("", {"big, 100%.py": "has 1.6 MiB"}),
        "bandit": ("", {"big, 100%.py": "has 1.6 MiB"}),
        "semgrep": ("", {"big, 100%.py": "has 1.6 MiB"}),
        "detect-secrets": ("", {"big, 100%.py": "has 1.6 MiB", "notes.txt": "has 1.6 MiB"}),
    }
    for name in ("ruff", "bandit", "semgrep"):
        assert "just.py" in {one.path for one in reports[name].head}, name


async def test_each_analyser_names_the_changed_files_that_it_could_not_read_and_says_what_is_nothing_new(
    bench: Bench,
) -> None:
    shell = 'import subprocess\ndef f(x):\n    subprocess.run(f"ls {x}", shell=True)\n'
    noted = SARIF.replace(
        '"results": [result]}', '"results": [result], "invocations": [{"toolExecutionNotifications": notes}]}'
    ).replace(
        "log =",
        'notes = [{"locations": [{"physicalLocation": {"artifactLocation": {"uri": p}}}], "message": {"text": "odd"}} for p in ("half.js", "a.txt")]\nlog =',
    )
    template = "import {{ name }}\n"
    after: dict[str, str | None] = {
        "broken.py": f"{shell}def g(:\n",
        "template.py": f"{template}x = 1\n",
        "hidden.py": "# coding: utf-7\nx = 1 #+AAo-import os\n",
        "half.js": "function f(a) { return a }\n@@@ ((\nfunction g(req) { eval(req.query.x) }\n",
        "new.py": f"type X = int\n{shell}",
        ".github/scripts/a.py": shell,
        "src/CVSS.py": shell,
        "ruff.toml": "[lint]\nselect = []\n",
    }
    base = {"template.py": template, "a.txt": "x\n", "ruff.toml": '[lint]\nignore = ["ALL"]\n'}
    order = bench.order(base, after, analysers=(program("own", noted),))
    reports = await bench.reports(order)
    assert {name: report.problem for name, report in reports.items()} == dict.fromkeys(reports, "")
    utf7 = {"hidden.py": "Python does not read as UTF-8"}
    assert reports["ruff"].unlooked == utf7 | {
        "broken.py": "ruff cannot parse (line 4)",
        "template.py": "ruff cannot parse (line 1), as before this change",
    }
    assert reports["bandit"].unlooked == {
        "broken.py": "bandit cannot parse",
        "template.py": "bandit cannot parse, as before this change",
        "new.py": "bandit cannot parse",  # by the image's Python
    }
    assert reports["semgrep"].unlooked == utf7 | {
        "template.py": "semgrep cannot wholly parse (line 1), as before this change",
        "half.js": "semgrep cannot wholly parse (line 2)",
    }
    assert reports["detect-secrets"].unlooked == {}
    # a.txt did not change
    assert reports["own"].unlooked == {"half.js": "own had trouble with: odd, as before this change"}
    passed_over_by_default = {".github/scripts/a.py", "src/CVSS.py"}
    assert {
        one.path for one in reports["bandit"].head if one.source == "bandit:B602"
    } == passed_over_by_default
    shells = {one.path for one in reports["semgrep"].head if one.source == "semgrep:python-shell-true"}
    assert {*passed_over_by_default, "new.py"} <= shells


async def test_running_out_of_memory_is_told(bench: Bench) -> None:
    hungry = program("hungry", "python3 -c 'x = bytearray(600 * 1024**2)'")
    order = bench.order(
        {},
        {"a.txt": "x\n"},
        without=ONLY_OWN,
        analysers=(hungry, program("good", SARIF)),
        limits=Limits(memory_bytes=200 * 1024**2, tmp_bytes=64 * 1024**2),
    )
    reports = await bench.reports(order)
    assert "ran out of memory" in reports["hungry"].problem
    assert reports["good"].problem.startswith("on the base")  # where there is no a.txt
    assert len(reports["good"].head) == 1


async def test_all_that_wrote_too_much_is_ended_and_what_was_done_is_kept(bench: Bench) -> None:
    flood = program("flood", "while :; do head -c 1M /dev/zero > /output/$(date +%N); done")
    order = bench.order(
        {"a.txt": "x\n"},
        {"a.txt": "xy\n"},
        without=ONLY_OWN,
        analysers=(program("good", SARIF), flood),
        limits=Limits(output_bytes=16 * 1024**2),
    )
    reports = await bench.reports(order)
    assert "limits.output" in reports["flood"].problem
    assert [one.title for one in reports["good"].base] == ["size is 2"]
    assert "limits.output" in reports["good"].problem  # it never came to the change


class Noting(DockerSandbox):
    """One that notes whether what it started was there before."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.adopted: list[bool] = []

    async def start(self, order: Order) -> Container:
        container = await super().start(order)
        self.adopted.append(container.adopted)
        return container


async def test_asked_again_after_a_crash_the_running_container_is_taken_and_nothing_runs_twice(
    bench: Bench,
) -> None:
    going_on = "while [ ! -e /output/go-on ]; do sleep 0.1; done"
    count = program("count", f"{going_on}; {SARIF}; echo >> /output/runs")
    order = bench.order({"a.txt": "x\n"}, {"a.txt": "xy\n"}, without=ONLY_OWN, analysers=(count,))
    own = container_names(order.name)[1]
    killed = asyncio.create_task(bench.analysers.analyse(order))
    async with asyncio.timeout(120):
        while not exists(own):  # noqa: ASYNC110 (the engine does not call back)
            await asyncio.sleep(0.1)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert exists(own)
    sandboxes = [Noting(None, DATA, bench.installation) for _ in range(2)]
    try:
        asked = [
            asyncio.create_task(SandboxAnalysers(one, bench.said.append).analyse(order)) for one in sandboxes
        ]
        async with asyncio.timeout(120):
            while not all(one.adopted for one in sandboxes):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        (order.folder / "own" / "out" / "go-on").touch()
        first, second = await asyncio.gather(*asked)
    finally:
        for one in sandboxes:
            await one.close()
    assert [one.adopted for one in sandboxes] == [[True], [True]]
    assert first == second and [one.title for one in first[0].head] == ["size is 3"]
    assert (order.folder / "own" / "out" / "runs").read_text() == "\n\n"  # the base and the change, each once
    assert not exists(own)
    shutil.rmtree(order.repository)
    assert await bench.analysers.analyse(order) == first


async def test_half_of_what_a_removed_container_wrote_is_not_taken(bench: Bench) -> None:
    order = bench.order(
        {"a.txt": "x\n"}, {"a.txt": "xy\n"}, without=ONLY_OWN, analysers=(program("good", SARIF),)
    )
    stale = order.folder / "own" / "out" / "analysis"
    stale.mkdir(parents=True)
    (stale / "00-base.json").write_text('{"skipped": true}')
    (stale / "00-head.json").symlink_to("/etc/passwd")
    (report,) = await bench.analysers.analyse(order)
    assert report.problem == "" and len(report.base) == len(report.head) == 1


async def test_stopped_it_ends_and_says_so(bench: Bench) -> None:
    slow = program("slow", "sleep 600", seconds=900)
    order = bench.order({}, {"a.txt": "x\n"}, without=ONLY_OWN, analysers=(slow,))
    await bench.analysers.stop(order.name)  # no error when there is none
    running = asyncio.create_task(bench.analysers.analyse(order))
    async with asyncio.timeout(120):
        while not exists(container_names(order.name)[1]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await bench.analysers.stop(order.name)
    (report,) = await asyncio.wait_for(running, 120)
    assert report.problem == "it was stopped"
    assert not exists(container_names(order.name)[1])
