"""Directories that others can write to, by real modes and owners."""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.core.errors import UsageError
from heteromig.runner.trust import exposed, require_unshared
from tests.core.histories import SPEC

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


def as_user(uid: int, action: Callable[[], object]) -> None:
    """Do it as another user, in a child; what it raises fails the test."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            action()
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            os.write(write_fd, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as said:
        wrong = said.read()
    os.waitpid(pid, 0)
    assert not wrong, wrong


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that only its owner can write to, and that others can look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="heteromig-test-trust-") as directory:
        home = Path(directory)
        home.chmod(0o755)
        yield home


def test_a_directory_of_this_user_whatever_is_there_yet(home: Path) -> None:
    (home / "runs").mkdir()
    assert exposed(home / "runs") is None
    assert exposed(home / "not" / "there" / "yet") is None
    assert exposed(home / "runs" / ".." / "runs") is None


@pytest.mark.parametrize("where", ["runs", ".", "deep"])
def test_whoever_is_anybody_can_write_to_it_or_above_it(home: Path, where: str) -> None:
    runs = home / "deep" / "runs" if where == "deep" else home / "runs"
    runs.mkdir(parents=True)
    (home / where).chmod(0o777)
    assert exposed(runs) == f"everybody can write to {home / where}: chmod o-w {home / where}"
    (home / where).chmod(0o1777)
    assert exposed(runs) is None, "in a sticky directory nobody removes what is another's"


def test_a_group_is_others_unless_it_is_the_users_own(home: Path) -> None:
    home.chmod(0o775)
    own = pwd.getpwuid(os.geteuid())
    private = grp.getgrgid(own.pw_gid).gr_name == own.pw_name
    assert (exposed(home) is None) == private
    if os.geteuid() == 0:
        os.chown(home, 0, NOBODY)
        name = grp.getgrgid(NOBODY).gr_name
        assert exposed(home) == f"the group {name} can write to {home}: chmod g-w {home}"
        os.chown(home, 0, 4_000_000)
        assert exposed(home) == f"the group 4000000 can write to {home}: chmod g-w {home}"


@AS_ROOT
def test_a_directory_of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    (home / "runs").mkdir()
    os.chown(home, NOBODY, NOBODY)
    assert exposed(home / "runs") == f"{home} belongs to another user (uid {NOBODY}): make it yours"
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert exposed(home / "runs") is None, "who became root by sudo can do everything anyway"


@AS_ROOT
def test_directories_of_root_are_fine_for_others_and_those_of_third_parties_are_not(home: Path) -> None:
    mine, theirs = home / "mine", home / "theirs"
    for directory, uid in ((mine, NOBODY), (theirs, 12345)):
        directory.mkdir(0o755)
        os.chown(directory, uid, uid)

    def look() -> None:
        os.environ["SUDO_UID"] = "12345"  # means nothing to who is not root
        assert exposed(mine / "runs") is None
        assert exposed(theirs / "runs") == f"{theirs} belongs to another user (uid 12345): make it yours"

    as_user(NOBODY, look)


def test_the_way_behind_a_link_counts(home: Path) -> None:
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    (home / "open" / "runs").mkdir()
    (home / "link").symlink_to("open")
    (home / "round").symlink_to("round")
    assert exposed(home / "link" / "runs") == f"everybody can write to {home / 'open'}: chmod o-w {home / 'open'}"
    assert exposed(home / "round") is None, "who opens it says what is wrong"


@AS_ROOT
def test_a_link_of_somebody_else_in_a_sticky_directory(home: Path) -> None:
    shared = home / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (home / "safe").mkdir()
    link = shared / "runs"
    link.symlink_to(home / "safe")
    assert exposed(link) is None
    os.lchown(link, NOBODY, NOBODY)
    assert exposed(link) == f"{link} is a link of another user: remove it"


def _spec(home: Path, *, allow: bool = False) -> Callable[[], None]:
    spec = replace(SPEC, runs_dir=str(home / "runs"), engines_dir=str(home / "engines"), allow_shared_dirs=allow)
    return lambda: require_unshared(spec)


@pytest.fixture
def engine(home: Path) -> Path:
    engine = home / "engines" / "bert-offline-99"
    engine.mkdir(parents=True)
    (engine / "engine.pt2").write_text("a program")
    (home / "engines" / ".bert-offline-99.lock").touch()
    (home / "engines" / ".bert-offline-99.lock").chmod(0o666)
    return engine


def test_an_engine_cache_of_ones_own(home: Path, engine: Path) -> None:
    assert engine.exists()
    _spec(home)()


def test_engines_that_others_can_change(home: Path, engine: Path) -> None:
    for path in (engine, engine / "engine.pt2"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o1002)
        with pytest.raises(UsageError, match=f"everybody can write to {path}: chmod o-w .*--allow-shared-dirs"):
            _spec(home)()
        _spec(home, allow=True)()
        path.chmod(mode)
    _spec(home)()


def test_engines_that_are_elsewhere(home: Path, engine: Path) -> None:
    elsewhere = engine.rename(home / "elsewhere")
    engine.symlink_to(elsewhere)
    with pytest.raises(UsageError, match=f"{engine} is a link, and what it points at may be anybody's: remove it"):
        _spec(home)()
    engine.unlink()
    elsewhere.rename(engine)
    (engine / "engine.pt2").rename(home / "program")
    (engine / "engine.pt2").symlink_to(home / "program")
    with pytest.raises(UsageError, match=r"engine\.pt2 is a link"):
        _spec(home)()


@AS_ROOT
def test_engines_of_somebody_else(home: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    os.chown(engine / "engine.pt2", NOBODY, NOBODY)
    with pytest.raises(UsageError, match=rf"engine\.pt2 belongs to another user \(uid {NOBODY}\)"):
        _spec(home)()
