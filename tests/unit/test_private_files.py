"""Files that their owner alone may read: whole or not at all, never readable by others, never written through a link."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codespar.config.private import kept_private, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_private_file_and_its_new_folder_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "own" / "token", "Grüße\n")
    finally:
        os.umask(before)
    assert (tmp_path / "own" / "token").read_text(encoding="utf-8") == "Grüße\n"
    assert (mode(tmp_path / "own" / "token"), mode(tmp_path / "own")) == (0o600, 0o700)


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as whoever_had_it_open:
        write_private(path, "new")
        assert whoever_had_it_open.read() == "old"
    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_a_link_that_lies_there_is_replaced_and_what_it_leads_to_stays_as_it_is(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "token"
    elsewhere.write_text("others' own")
    path.symlink_to(elsewhere)
    write_private(path, "secret")
    assert elsewhere.read_text() == "others' own"
    assert (path.is_symlink(), path.read_text()) == (False, "secret")


def test_what_cannot_be_written_whole_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "half of it \ud800")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "token" / "in").mkdir(parents=True)
    with pytest.raises(OSError, match="token"):
        write_private(tmp_path / "token", "secret")
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_many_writers_at_once_leave_one_whole_text(tmp_path: Path) -> None:
    path, texts = tmp_path / "token", [str(number) * 20_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: write_private(path, text), texts * 4))
    assert path.read_text() in texts
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_what_is_kept_is_made_once(tmp_path: Path) -> None:
    made = iter(["first", "second"])
    assert kept_private(tmp_path / "id", lambda: next(made)) == "first"
    assert kept_private(tmp_path / "id", lambda: next(made)) == "first"
    assert (tmp_path / "id").read_text() == "first\n"


def test_an_empty_file_is_filled_anew(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("\n")
    assert kept_private(tmp_path / "id", lambda: "made") == "made"
    assert (tmp_path / "id").read_text() == "made\n"
