"""Which files nobody wrote by hand, so that nobody has to read them: lock files, vendored, minified and generated ones.

A guess by path and by what the file's head says. Whoever proposes a change decides both, so a file that counts as generated is named
wherever it is left out, and must never be taken for one that was reviewed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LOCKS = frozenset(
    [
        ".terraform.lock.hcl",
        "bun.lock",
        "bun.lockb",
        "buf.lock",
        "cargo.lock",
        "cartfile.resolved",
        "chart.lock",
        "composer.lock",
        "conda-lock.yml",
        "deno.lock",
        "flake.lock",
        "gemfile.lock",
        "go.sum",
        "go.work.sum",
        "gradle.lockfile",
        "gopkg.lock",
        "glide.lock",
        "mix.lock",
        "module.bazel.lock",
        "npm-shrinkwrap.json",
        "package-lock.json",
        "package.resolved",
        "packages.lock.json",
        "paket.lock",
        "pdm.lock",
        "pipfile.lock",
        "pixi.lock",
        "pnpm-lock.yaml",
        "podfile.lock",
        "poetry.lock",
        "project.assets.json",
        "pubspec.lock",
        "pylock.toml",
        "stack.yaml.lock",
        "uv.lock",
        "yarn.lock",
    ]
)
_VENDORED = frozenset(
    [
        "vendor",
        "vendored",
        "node_modules",
        "bower_components",
        "third_party",
        "third-party",
        "thirdparty",
        "godeps",
        "pods",
        "jspm_packages",
        "site-packages",
    ]
)
_MINIFIED = re.compile(
    r"[.-]min\.(?:js|mjs|cjs|css)$|\.(?:bundle|chunk)\.(?:js|css)$|\.(?:js|mjs|cjs|css)\.map$"
)
_GENERATED = re.compile(
    r"_pb2(?:_grpc)?\.pyi?$"
    r"|[._]pb\.(?:go|cc|h|swift|dart|rb|js|ts)$|\.pb\.gw\.go$|_grpc_pb\.(?:js|ts|d\.ts)$|_pb\.(?:d\.ts|rb)$"
    r"|[._]generated\.[a-z]+$|\.gen\.[a-z]+$|(?:^|/)zz_generated[._][^/]*$|(?:^|/)__generated__/"
    r"|\.g\.(?:cs|dart)$|\.g\.i\.cs$|\.designer\.cs$|\.freezed\.dart$|\.snap$|(?:^|/)\.pnp\.[a-z.]+$"
    r"|(?:^|/)gradlew(?:\.bat)?$|(?:^|/)mvnw(?:\.cmd)?$|\.xcodeproj/project\.pbxproj$|(?:^|/)\.yarn/(?:releases|plugins|cache)/"
)
_POINTER = "version https://git-lfs.github.com/spec/v1"
_COMMENT = re.compile(r"\s*(?:#|//|/?\*|--|;|%|<!--|\"\"\"|'''|REM\b|@)")
_MARKER = re.compile(
    r"code generated .{0,500}do not edit"
    r"|@generated\b"
    r"|\b(?:auto-?|automatically )generated\b.{0,500}\bdo not (?:edit|modify|change)"
    r"|\bdo not (?:edit|modify|change)\b.{0,500}\b(?:auto-?|automatically )generated\b",
    re.IGNORECASE,
)


def generated_as(path: str, head: Sequence[str] = ()) -> str:
    """What kind of file nobody wrote `path` is, or an empty text. `head` are the first lines of its new text, where they are known."""
    if head and head[0] == _POINTER:
        return "a pointer of Git LFS: what it stands for is not part of the diff"
    lower = path.lower()
    folders, _, name = lower.rpartition("/")
    if name in _LOCKS or name.endswith(".lock"):
        return "a lock file"
    if not _VENDORED.isdisjoint(folders.split("/")):
        return "vendored"
    if _MINIFIED.search(lower):
        return "minified"
    if _GENERATED.search(lower):
        return "generated, by its name"
    if any(_COMMENT.match(line[:1000]) and _MARKER.search(line[:1000]) for line in head):
        return "generated, by what its head says"
    return ""
