"""The sandbox of an installation. What it is made of is imported when it is first made: requests are answered before."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from codespar.config import Settings
from codespar.config.private import kept_private
from codespar.sandbox.base import EnvironmentSetup

if TYPE_CHECKING:
    from codespar.sandbox.docker import DockerSandbox


def make_sandbox(settings: Settings) -> DockerSandbox:
    """The sandbox, whose containers are told from other installations' by a name made at first start."""
    from codespar.sandbox.docker import DockerSandbox

    folder = settings.data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    installation = kept_private(folder / "installation", lambda: secrets.token_hex(8))
    chosen = settings.sandbox
    return DockerSandbox(
        chosen.docker_host, folder, installation, base_image=chosen.base_image, ca_bundle=chosen.ca_bundle
    )


async def build_image(settings: Settings, say: Callable[[str], None]) -> None:
    """Have the standard task image, built if need be. Raises `EngineUnavailable`, `ImageMissing`."""
    sandbox = make_sandbox(settings)
    try:
        await ensure_standard_image(sandbox, say)
    finally:
        await sandbox.close()


async def ensure_standard_image(sandbox: DockerSandbox, say: Callable[[str], None]) -> None:
    """As `build_image`, in this sandbox."""
    await sandbox.ensure_image(
        project="", base_commit="", setup=EnvironmentSetup(), read_file=_no_file, say=say
    )


async def _no_file(commit: str, path: str) -> bytes | None:
    """The standard image is made from no file of any repository."""
    return None
