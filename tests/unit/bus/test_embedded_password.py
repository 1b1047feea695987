"""The password of our own clients: who can have read it, and what becomes of a file that is damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from trunkline.bus.embedded.password import FILE, keep_to_oneself, kept_password


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_for_its_user_only(tmp_path: Path) -> None:
    password = kept_password(tmp_path)

    assert len(password) == 43, "256 random bits"
    assert kept_password(tmp_path) == password
    assert mode(tmp_path / FILE) == 0o600
    assert kept_password(tmp_path / "another") != password


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"x" * 43 + b"y", b'"; user_x="y";' + b"x" * 29, b"\xff" * 43]
)
def test_a_file_that_is_damaged_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    (tmp_path / FILE).chmod(0o600)

    password = kept_password(tmp_path)

    assert password.encode() != content
    assert (tmp_path / FILE).read_text().strip() == password


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o666])
def test_what_others_could_read_or_write_is_replaced(tmp_path: Path, rights: int) -> None:
    before = kept_password(tmp_path)
    (tmp_path / FILE).chmod(rights)

    assert kept_password(tmp_path) != before
    assert mode(tmp_path / FILE) == 0o600


def test_a_link_to_somewhere_else_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("a" * 43)
    elsewhere.chmod(0o600)
    (tmp_path / FILE).symlink_to(elsewhere)

    assert kept_password(tmp_path) != "a" * 43
    assert not (tmp_path / FILE).is_symlink()
    assert elsewhere.read_text() == "a" * 43


def test_one_that_clients_were_given_stays_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    known = kept_password(tmp_path)
    (tmp_path / FILE).unlink()

    assert kept_password(tmp_path, known) == known
    assert kept_password(tmp_path) == known, "the next command finds it"


def test_a_folder_that_others_could_look_into_is_its_users_alone_afterwards(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o775)

    keep_to_oneself(home)

    assert mode(home) == 0o700


@pytest.mark.parametrize("rights", [0o1777, 0o2775])
def test_a_folder_that_is_shared_on_purpose_stays_shared(tmp_path: Path, rights: int) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    home.chmod(rights)

    keep_to_oneself(home)

    assert mode(home) == rights


def test_the_working_directory_and_the_users_own_folder_keep_their_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, here = tmp_path / "own", tmp_path / "here"
    monkeypatch.setenv("HOME", str(own))
    for folder in (own, here):
        folder.mkdir()
        folder.chmod(0o755)
    monkeypatch.chdir(here)

    keep_to_oneself(own)
    keep_to_oneself(here)

    assert (mode(own), mode(here)) == (0o755, 0o755)
