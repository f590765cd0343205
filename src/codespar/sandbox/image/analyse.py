"""Runs one of our own analysers over the changed files of a work tree and writes SARIF 2.1.0; for the analysers' image alone.

`analyse.py <name>` reads the paths from the file that `$FILES` names and writes to `$SARIF`; what it passes over for its size, or could not
wholly look at, is named there, in notifications `not-looked-at`. It must never run or import anything of the
work tree, and never let the change decide how it is judged: settings of the repository count as they stand at the base commit, and what a
comment in the code suppresses is reported as suppressed.
"""
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
PROGRAMS = "/opt/codespar/analysers/bin"
RULES = f"{HERE}/rules"
LARGEST = 1024**2  # bytes: what is larger is not looked at, and named
BATCH = 500  # files a call
PYTHON = (".py", ".pyi")
RUFF_SELECT = (  # what is wrong in any code base, whatever its style
    "E9,F,PLE,ASYNC100,ASYNC210,ASYNC220,ASYNC221,ASYNC222,ASYNC251"
    ",B002,B003,B005,B006,B012,B015,B016,B017,B018,B020,B021,B022,B023,B025,B029,B030,B031,B032,B033,B035,B039"
    ",PLW0129,PLW0131,PLW0177,PLW0711,RUF006"
)
RUFF_IGNORE = "F403,F405,F722"  # star imports are a matter of style; annotations may hold other languages

Log = dict[str, Any]
Unlooked = dict[str, str]
"""Files that were not wholly looked at, and why: what stands behind "which"."""


def run(*command: str) -> tuple[int, str, str]:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    return ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")


def changed() -> list[str]:
    """The changed files of this tree."""
    with open(os.environ["FILES"], "rb") as file:
        return [os.fsdecode(path) for path in file.read().split(b"\0") if path]


def batches(paths: list[str]) -> Iterator[list[str]]:
    """As arguments: never an option, whatever a file is called."""
    for start in range(0, len(paths), BATCH):
        yield [f"./{path}" for path in paths[start : start + BATCH]]


def mentions(path: str, word: bytes) -> bool:
    with open(path, "rb") as file:
        return word in file.read()


def uri(path: str) -> str:
    """The path, relative to the work tree, as a URI reference."""
    root = os.getcwd() + "/"  # noqa: PTH109
    return quote(os.fsencode(os.path.normpath(path.removeprefix(root))))


def misread(paths: list[str]) -> Unlooked:
    """The Python files that say something else to Python than to who reads them as UTF-8, as ruff, semgrep and people do (PEP 263)."""
    found: Unlooked = {}
    for path in (path for path in paths if path.endswith(PYTHON)):
        with open(path, "rb") as file:
            content = file.read()
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            same = content.decode(encoding) == content.decode("utf-8-sig")
        except (SyntaxError, ValueError, LookupError):  # an encoding that is none, or not that of these bytes
            same = False
        if not same:
            found[path] = "Python does not read as UTF-8"
    return found


def log_of(
    name: str,
    version: str,
    rules: list[Log],
    results: list[Log],
    notes: list[str],
    unlooked: Mapping[str, str] | None = None,
    *,
    failed: bool = False,
) -> Log:
    said: list[Log] = [
        {"level": "error" if failed else "warning", "message": {"text": note[:2000]}} for note in notes[:20]
    ]
    said += [passed_over(path, why) for path, why in (unlooked or {}).items()]
    driver = {"name": name, "version": version, "rules": rules}
    invocation = {"executionSuccessful": not failed, "toolExecutionNotifications": said}
    return {
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "invocations": [invocation], "results": results}],
    }


def passed_over(path: str, why: str) -> Log:
    return {
        "level": "warning",
        "descriptor": {"id": "not-looked-at"},
        "message": {"text": why},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(path)}}}],
    }


def result_of(
    rule: str, text: str, path: str, line: int, end: int, *, level: str, suppressed: bool, **properties: Any
) -> Log:
    place = {"artifactLocation": {"uri": uri(path)}, "region": {"startLine": line, "endLine": end}}
    made: Log = {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
    if properties:
        made["properties"] = properties
    if suppressed:
        made["suppressions"] = [{"kind": "inSource"}]
    return made


# ruff


def ruff_settings(folder: str) -> str | None:
    """The root's ruff settings at the base commit, written into `folder`; None where there are none or they lead to other files."""
    for name in (".ruff.toml", "ruff.toml", "pyproject.toml"):
        code, text, _ = run(
            "git",
            "--git-dir=.git",
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsmonitor=false",
            "show",
            f"HEAD:{name}",
        )
        if code:
            continue
        try:
            read = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return None
        own = read if name != "pyproject.toml" else read.get("tool", {}).get("ruff")
        if own is None:
            continue
        if not isinstance(own, dict) or "extend" in own:  # what it extends could be part of the change
            return None
        path = f"{folder}/{name}"
        with open(path, "w") as file:
            file.write(text)
        return path
    return None


def ruff(paths: list[str]) -> Log:
    program = f"{PROGRAMS}/ruff"
    version = run(program, "--version")[1].removeprefix("ruff ").strip()
    ours = ["--isolated", "--target-version=py314", f"--select={RUFF_SELECT}", f"--ignore={RUFF_IGNORE}"]
    ours += ["--per-file-ignores=__init__.py:F401"]
    always = ["check", "--no-cache", "--no-fix", "--exit-zero", "--quiet", "--output-format=sarif"]
    notes: list[str] = []
    unlooked = misread(paths)
    for batch in batches(paths):
        # no settings may hide what it cannot parse, for which it has no other rule
        code, out, said = run(
            program,
            *always,
            "--isolated",
            "--target-version=py314",
            "--select=E902",
            "--ignore-noqa",
            "--",
            *batch,
        )
        if code:
            return log_of("ruff", version, [], [], [said.strip()[-1500:]], failed=True)
        for result in json.loads(out)["runs"][0]["results"]:
            place = relative(result)["locations"][0]["physicalLocation"]
            path = unquote(place["artifactLocation"]["uri"])
            unlooked.setdefault(path, f"ruff cannot parse (line {place['region']['startLine']})")
    with tempfile.TemporaryDirectory() as folder:
        theirs = ruff_settings(folder)
        choices = (
            [[f"--config={theirs}", "--force-exclude", "--no-respect-gitignore"], ours] if theirs else [ours]
        )
        for settings in choices:
            results: list[Log] = []
            rules: dict[str, Log] = {}
            for batch in batches(paths):
                runs: list[Log] = []
                for extra in ([], ["--ignore-noqa"]):
                    code, out, said = run(program, *always, *settings, *extra, "--", *batch)
                    if code:
                        notes.append(said.strip())
                        break
                    runs.append(json.loads(out)["runs"][0])
                if len(runs) < 2:
                    break
                spoken = {shape(result) for result in runs[0]["results"]}
                for result in runs[1]["results"]:
                    if shape(result) not in spoken:
                        result["suppressions"] = [{"kind": "inSource"}]
                    results.append(relative(result))
                rules |= {rule["id"]: rule for rule in runs[1]["tool"]["driver"].get("rules", [])}
            else:
                shown = [short(rule) for rule in rules.values()]
                return log_of("ruff", version, shown, results, notes, unlooked)
            notes.append("the repository's settings are not understood by this ruff: it ran with ours")
    return log_of("ruff", version, [], [], notes, failed=True)


def shape(result: Log) -> str:
    return json.dumps([result.get("ruleId"), result.get("message"), result.get("locations")], sort_keys=True)


def relative(result: Log) -> Log:
    """The same with paths from the work tree's root."""
    places = [location["physicalLocation"]["artifactLocation"] for location in result.get("locations", [])]
    for fix in result.get("fixes", []):
        places += [change["artifactLocation"] for change in fix.get("artifactChanges", [])]
    for place in places:
        place["uri"] = uri(unquote(place["uri"].removeprefix("file://")))
    return result


def short(rule: Log) -> Log:
    """A rule without its manual."""
    kept = ("id", "shortDescription", "helpUri", "defaultConfiguration", "properties")
    return {key: rule[key] for key in kept if key in rule}


# bandit


def bandit(paths: list[str]) -> Log:
    """What bandit is at least moderately sure of and holds for at least moderately severe."""
    program = f"{PROGRAMS}/bandit"
    version = run(program, "--version")[1].partition("\n")[0].removeprefix("bandit ").strip()
    results: list[Log] = []
    rules: dict[str, Log] = {}
    unlooked: Unlooked = {}
    for batch in batches(paths):
        runs: list[Log] = []
        both = any(mentions(path, b"nosec") for path in batch)
        for extra in ([], ["--ignore-nosec"]) if both else [[]]:
            code, out, said = run(
                program,
                "--quiet",
                "--format=json",
                "--exit-zero",
                "-ll",
                "-ii",
                "--skip=B101",
                "--exclude=",  # else a path with `.git`, `CVS` or the like anywhere in it
                *extra,
                "--",
                *batch,
            )
            if code:
                return log_of("bandit", version, [], [], [said.strip()[-1500:]], failed=True)
            runs.append(json.loads(out))
        spoken = {(found["filename"], found["test_id"], found["line_number"]) for found in runs[0]["results"]}
        for found in runs[-1]["results"]:
            rule = found["test_id"]
            where = (found["filename"], rule, found["line_number"])
            cwe = (found.get("issue_cwe") or {}).get("id")
            tags = ["security", *([f"CWE-{cwe}"] if cwe else [])]
            rules[rule] = {
                "id": rule,
                "name": found["test_name"],
                "helpUri": found["more_info"],
                "properties": {"tags": tags},
            }
            results.append(
                result_of(
                    rule,
                    found["issue_text"],
                    found["filename"],
                    found["line_number"],
                    max(found["line_number"], *found["line_range"]),
                    level={"HIGH": "error", "MEDIUM": "warning"}.get(found["issue_severity"], "note"),
                    suppressed=where not in spoken,
                    issue_severity=found["issue_severity"],
                    issue_confidence=found["issue_confidence"],
                )
            )
        read = {os.path.normpath(path) for path in runs[-1]["metrics"]}
        read -= {os.path.normpath(problem["filename"]) for problem in runs[-1]["errors"]}
        unlooked |= {path: "bandit cannot parse" for path in map(os.path.normpath, batch) if path not in read}
    return log_of("bandit", version, list(rules.values()), results, [], unlooked)


# semgrep


SEMGREP = (".py", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".go")


def semgrep(paths: list[str]) -> Log:
    """Our own rules. Paths are given one by one, so no ignore file of the repository has a say."""
    os.environ |= {"SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0"}
    results: list[Log] = []
    rules: dict[str, Log] = {}
    unlooked = misread(paths)
    version = ""
    for batch in batches(paths):
        # The engine itself reads the options: Python's part of semgrep would take six times as long to start as this takes in all.
        code, out, said = run(
            f"{PROGRAMS}/semgrep", "scan", "--experimental", "--oss-only", "--metrics=off", "--disable-version-check", "--quiet",
            "--no-git-ignore", f"--config={RULES}", "--sarif", "--timeout=10", f"--max-target-bytes={LARGEST}", "--jobs=2", *batch,
        )  # fmt: skip
        if code:
            return log_of("semgrep", version, [], [], [said.strip()[-1500:]], failed=True)
        ran = json.loads(out)["runs"][0]
        version = ran["tool"]["driver"].get("semanticVersion", "")
        for result in ran["results"]:
            result["ruleId"] = result["ruleId"].rpartition(".")[
                2
            ]  # before it stands where the rules are on the disk
            for place in result["locations"]:
                artifact = place["physicalLocation"]["artifactLocation"]
                artifact["uri"] = uri(artifact["uri"])
                artifact.pop("uriBaseId", None)
            results.append(result)
        for rule in ran["tool"]["driver"].get("rules", []):
            rules[rule["id"].rpartition(".")[2]] = short(rule) | {"id": rule["id"].rpartition(".")[2]}
        for invocation in ran.get("invocations", []):
            for note in invocation.get("toolExecutionNotifications", []):
                path, why = trouble(note, batch)
                unlooked.setdefault(path, why)
    used = {result["ruleId"] for result in results}
    return log_of("semgrep", version, [rules[name] for name in sorted(used)], results, [], unlooked)


def trouble(note: Log, batch: list[str]) -> tuple[str, str]:
    """The file that semgrep complains about (empty where it names none), and of what. It does so in words alone: `… at line ./a.py:7:`, `… on
    ./a.py:`."""
    text, kind = note["message"]["text"], str(note.get("descriptor", {}).get("id", "")).lower()
    named = [path for path in batch if f" {path}:" in text]
    path = max(named, key=len, default="")
    line = re.match(r"[0-9]+", text.partition(f" {path}:")[2]) if path else None
    if "timeout" in kind:
        why = "semgrep had not the time for"
    elif "syntax" in kind or "lexical" in kind or "pars" in kind:
        why = "semgrep cannot wholly parse" + (f" (line {line[0]})" if line else "")
    else:
        why = f"semgrep could not wholly look at: {kind[:40]}"
    return path, why


# secrets: the detectors by which everything that leaves CodeSpar is screened, so that both judge alike


def secrets(paths: list[str]) -> Log:
    kinds_in, detectors = screening()
    results: list[Log] = []
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        for number, line in enumerate(content.decode(errors="replace").split("\n"), start=1):
            results += [
                result_of(
                    kind.lower().replace(" ", "-"),
                    f"{kind} in the code: take it out, and revoke it, for it stays in the history",
                    path,
                    number,
                    number,
                    level="error",
                    suppressed="pragma: allowlist" in line or "pragma: whitelist" in line,
                    tags=["security", "secret"],
                )
                for kind in sorted(kinds_in(line))
            ]
    return log_of("detect-secrets", detectors, [], results, [])


def screening() -> tuple[Callable[[str], set[str]], str]:
    """`kinds_in` of our screening, whose module stands beside this file in the image, and detect-secrets' version."""
    from detect_secrets.__version__ import VERSION

    found = importlib.util.spec_from_file_location("secretkinds", f"{HERE}/secretkinds.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["secretkinds"] = module
    found.loader.exec_module(module)
    return module.kinds_in, VERSION


def is_text(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" not in file.read(8000)  # as git has it: what it takes for text, people are shown as text


ANALYSERS: dict[str, tuple[Callable[[list[str]], Log], Callable[[str], bool]]] = {
    "ruff": (ruff, lambda path: path.endswith(PYTHON)),
    "bandit": (bandit, lambda path: path.endswith(".py")),
    "semgrep": (semgrep, lambda path: path.endswith(SEMGREP)),
    "detect-secrets": (secrets, is_text),
}
"""Each with what it is for."""


def main() -> None:
    analyser, concerns = ANALYSERS[sys.argv[1]]
    sizes = {path: os.stat(path, follow_symlinks=False).st_size for path in changed() if concerns(path)}
    log = analyser([path for path, size in sizes.items() if size <= LARGEST])
    notes = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    notes += [
        passed_over(path, f"has {size / 1024**2:.1f} MiB") for path, size in sizes.items() if size > LARGEST
    ]
    with open(os.environ["SARIF"], "w") as file:
        json.dump(log, file)


if __name__ == "__main__":
    main()
