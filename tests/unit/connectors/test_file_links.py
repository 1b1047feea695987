"""The `file` source reads the files of its folder, and nothing that a link, a pipe or a swapped name leads to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import structlog
from file_runs import Run, opened, started
from structlog.testing import capture_logs

from connectors.file.archive import move_file
from connectors.file.progress import Seen
from connectors.file.root import Root
from trunkline.core.errors import ConfigurationError
from trunkline.core.folders import ROOTS, make_folder, opened_folder

GOOD = "id,n\na,1\n"
SECRET = "root:x:0:0\nadmin:y:0:0\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of the folder."""
    path = tmp_path / "passwd"
    path.write_text(SECRET)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The folder, with one good file."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "good.csv").write_text(GOOD)
    return folder


def root_of(folder: Path, links: str = "inside") -> Root:
    return Root(folder, links, structlog.get_logger())  # type: ignore[arg-type]


def seen(root: Root, name: str) -> Seen:
    with root.opened() as folder:
        found = root.seen(name, folder)
    assert found is not None
    return found


async def read(folder: Path, **config: object) -> Run:
    run = await started(folder, **({"pattern": "*.csv", "watch": False} | config))
    await run.drain_finite()
    return run


async def test_a_link_out_of_the_folder_is_not_read_and_that_is_said_once(inbox: Path, secret: Path) -> None:
    (inbox / "evil.csv").symlink_to(secret)
    with capture_logs() as logs:
        run = await read(inbox)
        await run.poll()
    assert run.values == [{"id": "a", "n": "1"}]
    assert run.rejected == []
    assert [line["file"] for line in logs if line["event"] == "file.link_not_followed"] == [str(inbox / "evil.csv")]


@pytest.mark.parametrize("target", ["../passwd", "sub/../../passwd", "chain.lnk"])
async def test_no_way_of_writing_a_link_leads_out(inbox: Path, secret: Path, target: str) -> None:
    (inbox / "sub").mkdir()
    (inbox / "chain.lnk").symlink_to(secret)
    (inbox / "evil.csv").symlink_to(target)
    run = await read(inbox)
    assert run.values == [{"id": "a", "n": "1"}]
    assert run.rejected == []


@pytest.mark.parametrize("target", ["evil.csv", "circle", "good.csv/x", "n" * 300, "gone.csv"])
async def test_a_link_that_leads_nowhere_stops_no_other_file(inbox: Path, target: str) -> None:
    (inbox / "circle").symlink_to("evil.csv")
    try:
        (inbox / "evil.csv").symlink_to(target)
    except OSError:
        pytest.skip("this file system has no link to so long a name")
    for links in ("inside", "follow"):
        assert (await read(inbox, links=links)).values == [{"id": "a", "n": "1"}]


async def test_a_workers_own_data_and_the_systems_folders_are_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home folder has the password of the broker; `/proc` shows the environment. References may not name them either."""
    home = tmp_path / "home"
    (home / "kafka").mkdir(parents=True)
    (home / "kafka" / "password").write_text("id\nsecret\n")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("TRUNKLINE_HOME", str(home))
    named = [
        home,
        home / "kafka",
        tmp_path / "link" / "kafka",
        tmp_path / "home" / ".." / "home",
        "/proc/self",
        "/dev",
        "/sys",
    ]
    for folder in named:
        for path, pattern in ((Path(folder), "*"), (Path(folder) / "password", None)):
            with pytest.raises(ConfigurationError) as refused:
                await started(path, pattern=pattern)
            assert refused.value.code == "file.not_allowed"
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "evil.csv").symlink_to(home / "kafka" / "password")
    run = await read(inbox, links="follow")
    assert (run.values, run.rejected) == ([], [])
    with pytest.raises(ConfigurationError):
        make_folder(home / "kafka" / "new", "folder")
    assert not (home / "kafka" / "new").exists()


async def test_a_link_within_the_folder_is_the_file_it_leads_to(inbox: Path) -> None:
    (inbox / "current.csv").symlink_to("good.csv")
    assert (await read(inbox)).values == [{"id": "a", "n": "1"}]
    assert (await read(inbox, pattern="current.*")).values == [{"id": "a", "n": "1"}]


async def test_links_are_followed_where_that_is_asked_for(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("id,n\nb,2\n")
    (inbox / "link.csv").symlink_to(tmp_path / "other.csv")
    assert (await read(inbox, pattern="link.csv", links="follow")).values == [{"id": "b", "n": "2"}]


async def test_the_folder_itself_may_be_a_link(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "door").symlink_to(inbox)
    assert (await read(tmp_path / "door")).values == [{"id": "a", "n": "1"}]


async def test_one_file_that_is_a_link_out_of_its_folder_is_refused_at_the_start(inbox: Path, secret: Path) -> None:
    (inbox / "one.csv").symlink_to(secret)
    with pytest.raises(ConfigurationError) as refused:
        await opened(inbox / "one.csv")
    assert refused.value.code == "file.link"
    run = await started(inbox / "one.csv", links="follow", watch=False, csv={"header": False, "columns": ["line"]})
    await run.drain_finite()
    assert run.values == [{"line": line} for line in SECRET.splitlines()]


def test_a_link_that_takes_a_files_name_after_the_listing_is_not_opened(inbox: Path, secret: Path) -> None:
    root = root_of(inbox)
    file = seen(root, "good.csv")
    (inbox / "good.csv").unlink()
    (inbox / "good.csv").symlink_to(secret)
    assert root.open(file) is None


def test_a_file_that_was_moved_out_is_not_opened_through_a_link_to_it(inbox: Path, tmp_path: Path) -> None:
    root = root_of(inbox)
    file = seen(root, "good.csv")
    (inbox / "good.csv").rename(tmp_path / "out.csv")
    (inbox / "good.csv").symlink_to(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").stat().st_ino == file.ino
    assert root.open(file) is None


def test_a_pipe_that_takes_a_files_name_after_the_listing_is_not_waited_on(inbox: Path) -> None:
    root = root_of(inbox)
    file = seen(root, "good.csv")
    (inbox / "good.csv").unlink()
    os.mkfifo(inbox / "good.csv")
    assert root.open(file) is None


async def test_pipes_sockets_folders_and_devices_are_passed_over(inbox: Path) -> None:
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "folder.csv").mkdir()
    (inbox / "zero.csv").symlink_to("/dev/zero")
    (inbox / "piped.csv").symlink_to("pipe.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(inbox)  # a socket's path has at most 107 bytes
        try:
            listener.bind("socket.csv")
        finally:
            os.chdir(here)
        for links in ("inside", "follow"):
            run = await read(inbox, links=links)
            assert run.values == [{"id": "a", "n": "1"}]
            assert run.rejected == []


class TestRoots:
    """What the worker's operator allows."""

    @pytest.fixture(autouse=True)
    def allowed(self, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "inbox-of-others").mkdir()
        monkeypatch.setenv(ROOTS, f"{tmp_path / 'nowhere'}{os.pathsep}{inbox}")

    async def test_a_folder_under_a_root_is_read(self, inbox: Path) -> None:
        assert (await read(inbox)).values == [{"id": "a", "n": "1"}]

    @pytest.mark.parametrize("where", ["inbox-of-others", "inbox/../inbox-of-others", "inbox/door", "."])
    async def test_all_others_are_refused_however_they_are_written(self, tmp_path: Path, where: str) -> None:
        (tmp_path / "inbox" / "door").symlink_to(tmp_path / "inbox-of-others")
        with pytest.raises(ConfigurationError) as refused:
            await opened(tmp_path / where, pattern="*.csv")
        assert refused.value.code == "file.not_allowed"
        assert ROOTS in (refused.value.hint or "")

    async def test_a_folder_that_becomes_a_link_out_of_the_roots_is_refused_from_then_on(
        self, inbox: Path, tmp_path: Path
    ) -> None:
        folder = inbox / "today"
        folder.mkdir()
        run = await started(folder, pattern="*.csv")
        await run.poll()
        folder.rmdir()
        (tmp_path / "inbox-of-others" / "theirs.csv").write_text(GOOD)
        folder.symlink_to(tmp_path / "inbox-of-others")
        with pytest.raises(ConfigurationError, match="not under a folder that this worker allows"):
            await run.poll()
        assert run.values == []

    async def test_links_are_not_followed_out_of_the_roots_whatever_the_setting(
        self, inbox: Path, secret: Path
    ) -> None:
        (inbox / "evil.csv").symlink_to(secret)
        run = await read(inbox, links="follow")
        assert run.values == [{"id": "a", "n": "1"}]
        assert run.rejected == []

    async def test_done_files_are_not_moved_out_of_the_roots_and_no_folder_is_made(
        self, inbox: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigurationError) as refused:
            await opened(inbox, pattern="*.csv", when_done="move", move_to=str(tmp_path / "done"))
        assert (refused.value.code, refused.value.where) == ("file.not_allowed", "move_to")
        assert not (tmp_path / "done").exists()


def test_a_done_file_is_copied_where_it_can_not_be_renamed_and_no_planted_link_is_written_through(
    inbox: Path, secret: Path
) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == inbox.stat().st_dev:
        pytest.skip("needs two file systems")
    target = shared / f"trunkline-{os.getpid()}"
    target.mkdir()
    try:
        (target / ".good.csv.part").symlink_to(secret)
        before = (inbox / "good.csv").stat()
        with opened_folder(inbox, "path") as here, opened_folder(target, "move_to") as there:
            move_file("good.csv", here, lambda: os.open(inbox / "good.csv", os.O_RDONLY), there)
        assert (target / "good.csv").read_text() == GOOD
        assert (target / "good.csv").stat().st_mtime_ns == before.st_mtime_ns
        assert secret.read_text() == SECRET
        assert list(inbox.iterdir()) == []
    finally:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
