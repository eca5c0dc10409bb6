"""Attaching, following and taking over, with fake grids that a real lock file guards."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from flo.api.errors import Conflict, NotFound, Unavailable
from flo.api.grid import RunView, StartRequest, Update
from flo.client.attach import Attachment, attach, data_directory
from flo.client.prepared import Prepared
from flo.client.remote import OwnerLeft, OwnerLost
from flo.client.session import Session
from flo.grid import gateway
from flo.log.errors import DirectoryLocked, DirectoryUnusable
from tests.client.fake_grid import FakeGrid


def prepared(id: str, flow: str = "fake::hold", args: str = "{}") -> Prepared:
    return Prepared(b"bundle", StartRequest(id=id, bundle=bytes(32), flow=flow, args=args))


class Directory:
    """A data directory, and what its owners in this process were."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.grids: list[FakeGrid] = []

    def open_owner(self, path: str) -> FakeGrid:
        grid = FakeGrid(path)
        self.grids.append(grid)
        return grid

    def attach(self, directory: str | None = None, *, stopping: threading.Event | None = None) -> Attachment:
        return attach(self.path, open_owner=self.open_owner, stopping=stopping)

    def session(self) -> Session:
        return Session(self.path, attach=self.attach)


@pytest.fixture
def directory(short_folder: os.PathLike[str]) -> Directory:
    return Directory(os.path.join(short_folder, "data"))


@pytest.fixture
def owner(directory: Directory) -> Iterator[Attachment]:
    attached = directory.attach()
    yield attached
    attached.close()


class Following:
    """A session that follows in a thread of its own."""

    def __init__(self, session: Session, work) -> None:  # type: ignore[no-untyped-def]
        self.lines: list[str] = []
        self.arrived: SimpleQueue[str] = SimpleQueue()
        self.error: BaseException | None = None
        self.value: object = None
        self._session = session
        self._work = work
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.value = self._work(self._session, self._update)
        except BaseException as error:  # noqa: BLE001 - raised again by result
            self.error = error

    def _update(self, id: str, update: Update) -> None:
        for line in update.lines:
            self.lines.append(line.text)
            self.arrived.put(line.text)
        if update.view is not None:
            self.arrived.put(update.view.status)

    def until(self, text: str) -> None:
        while self.arrived.get(timeout=20) != text:
            pass

    def result(self) -> object:
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def follow_run(session: Session, id: str, flow: str = "fake::hold") -> Following:
    return Following(session, lambda session, on_update: session.run(prepared(id, flow), on_update))


def test_the_first_becomes_the_owner_and_the_second_its_guest(directory: Directory) -> None:
    with directory.attach() as first, directory.attach() as second:
        assert first.owner and not second.owner
        first.grid.start(prepared("a").request)
        assert second.grid.show("a") == first.grid.show("a")


def test_a_directory_is_free_again_when_its_owner_has_left(directory: Directory) -> None:
    directory.attach().close()
    with directory.attach() as next:
        assert next.owner


def test_who_opens_the_lock_before_its_socket_is_waited_for(directory: Directory) -> None:
    """Between taking the lock and listening an owner replays its log."""
    locked = FakeGrid(directory.path)
    tries = 0

    def open_owner(path: str) -> FakeGrid:
        nonlocal tries
        tries += 1
        if tries == 3:
            locked.close()
        return FakeGrid(path)

    with attach(directory.path, open_owner=open_owner) as attached:
        assert attached.owner and tries >= 3


def test_a_directory_that_stays_locked_without_an_answer_is_given_up(directory: Directory) -> None:
    locked = FakeGrid(directory.path)
    with pytest.raises(Unavailable, match="in use by another process, which does not answer"):
        attach(directory.path, open_owner=FakeGrid, timeout_ms=30)
    locked.close()


def test_waiting_for_a_directory_can_be_stopped(directory: Directory) -> None:
    locked = FakeGrid(directory.path)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Unavailable, match="stopped while waiting"):
        attach(directory.path, open_owner=FakeGrid, stopping=stopping)
    locked.close()


def test_an_owner_that_listens_elsewhere_says_so_in_the_lock(directory: Directory, short_folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("flo.grid.gateway._listen", lambda path: _listen_at(str(short_folder / "else.sock")))
    with directory.attach() as owner:

        def locked(path: str) -> FakeGrid:
            raise DirectoryLocked("in use", socket=directory.grids[0].socket)

        with attach(directory.path, open_owner=locked) as guest:
            assert not guest.owner and guest.grid.list() == owner.grid.list()


def _listen_at(path: str) -> tuple[socket.socket, str]:
    return gateway._bind(path), path


def test_what_else_is_wrong_with_a_directory_is_said_at_once(directory: Directory) -> None:
    def refuse(path: str) -> FakeGrid:
        raise DirectoryUnusable(f"{path} is not writable")

    with pytest.raises(DirectoryUnusable):
        attach(directory.path, open_owner=refuse)


def test_the_lock_is_given_up_when_the_socket_cannot_be_made(directory: Directory, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fail(directory: str) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("flo.grid.gateway._listen", fail)
    with pytest.raises(PermissionError):
        directory.attach()
    FakeGrid(directory.path).close()


def test_the_data_directory_is_named_or_from_the_environment_or_at_home(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("FLO_DATA_DIR", raising=False)
    assert data_directory() == "/home/ann/.flo/data"
    monkeypatch.setenv("FLO_DATA_DIR", "/srv/flo")
    assert data_directory() == "/srv/flo"
    assert data_directory("~/here") == "/home/ann/here"


def test_a_run_is_followed_to_its_end(directory: Directory) -> None:
    with directory.session() as session:
        lines: list[str] = []
        view = session.run(
            prepared("a", "fake::echo", "[1]"), lambda id, update: lines.extend(line.text for line in update.lines)
        )
        assert view.status == "completed" and lines == ["echo [1]"] and session.owner
    assert directory.grids[0].closed and directory.grids[0].bundles == {bytes(32): b"bundle"}


def test_a_paused_run_ends_the_following(directory: Directory) -> None:
    with directory.session() as session:
        following = follow_run(session, "a")
        following.until("running")
        directory.grids[0].pause("a", "NonDeterministic: expected this")
        view = following.result()
        assert isinstance(view, RunView) and view.status == "running" and view.paused


def test_a_detached_start_is_executed_by_an_owner_that_is_there(directory: Directory, owner: Attachment) -> None:
    with directory.session() as session:
        assert session.run(prepared("a", "fake::echo"), detach=True).status == "completed"


def test_a_detached_start_without_an_owner_executes_nothing(directory: Directory) -> None:
    with directory.session() as session:
        assert session.run(prepared("a", "fake::echo"), detach=True).status == "running"


def test_errors_of_a_start_reach_the_caller(directory: Directory, owner: Attachment) -> None:
    owner.grid.start(prepared("a").request)
    with directory.session() as session, pytest.raises(Conflict):
        session.run(prepared("a", args='{"n":2}'))


def test_resuming_shows_named_runs_that_had_ended_and_waits_for_the_others(directory: Directory) -> None:
    with directory.attach() as before:
        before.grid.start(prepared("done", "fake::echo").request)
        before.grid.start(prepared("open").request)
    with directory.session() as session:
        ended: list[str] = []
        following = Following(
            session,
            lambda session, on_update: session.resume(
                ["open", "done", "open"], on_update, lambda view: ended.append(view.id)
            ),
        )
        following.until("completed")
        directory.grids[-1].finish("open", 1)
        views = following.result()
        assert [view.id for view in views] == ["open", "done"] and ended == ["done", "open"]  # type: ignore[attr-defined]
        assert directory.grids[-1].executed == [["open", "done"]]


def test_resuming_all_when_nothing_is_unfinished_gives_nothing(directory: Directory) -> None:
    with directory.session() as session:
        assert session.resume(None) == []


def test_resuming_an_unknown_run_is_not_found(directory: Directory) -> None:
    with directory.session() as session, pytest.raises(NotFound):
        session.resume(["nobody"])


def test_a_guest_takes_over_and_repeats_no_line(directory: Directory) -> None:
    first = directory.attach()
    with directory.session() as session:
        following = follow_run(session, "a")
        following.until("running")
        directory.grids[0].print("a", "one")
        directory.grids[0].print("a", "two")
        following.until("two")
        first.close()
        following.until("running")
        assert session.owner
        directory.grids[-1].print("a", "three")
        directory.grids[-1].finish("a", 5)
        view = following.result()
        assert isinstance(view, RunView) and view.status == "completed"
        assert following.lines == ["one", "two", "three"]
        assert len(directory.grids[-1].requests) == 1


def test_resumed_runs_go_on_with_the_next_owner(directory: Directory) -> None:
    first = directory.attach()
    for id in "abc":
        first.grid.start(prepared(id).request)
    directory.grids[0].finish("a", 1)
    with directory.session() as session:
        following = Following(session, lambda session, on_update: session.resume(None, on_update))
        following.until("running")
        following.until("running")
        directory.grids[0].finish("b", 2)
        following.until("completed")
        first.close()
        following.until("running")
        assert directory.grids[-1].executed == [["c"]]
        directory.grids[-1].finish("c", 3)
        views = following.result()
        assert [view.id for view in views] == ["b", "c"]  # type: ignore[attr-defined]


def test_an_owner_whose_node_is_lost_ends_with_an_error(directory: Directory) -> None:
    with directory.session() as session:
        following = follow_run(session, "a")
        following.until("running")
        directory.grids[0].lose()
        with pytest.raises(Unavailable, match="cannot be used any more"):
            following.result()


def test_a_call_that_was_not_begun_is_made_again(directory: Directory) -> None:
    calls = 0

    def once_left(grid: object) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OwnerLeft("left")
        return "answer"

    with directory.session() as session:
        assert session.call(once_left, repeatable=False) == "answer"


def test_a_call_with_an_unknown_outcome_is_made_again_only_if_repeatable(directory: Directory) -> None:
    calls = 0

    def once_lost(grid: object) -> int:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise OwnerLost("lost")
        return calls

    with directory.session() as session:
        assert session.call(once_lost) == 2
        with pytest.raises(OwnerLost):
            session.call(once_lost, repeatable=False)


class LosingGrid(FakeGrid):
    """Its owner dies while a watch is asked for: both the watch and the call tell so."""

    def watch(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        on_update(Update(lines=[]))
        raise OwnerLost("gone")


def test_what_a_lost_owner_still_tells_is_not_taken_for_the_next_ones_loss(directory: Directory) -> None:
    attachments = iter([Attachment(LosingGrid(), owner=False), Attachment(FakeGrid(), owner=True)])

    def attaching(path: str, *, stopping: threading.Event) -> Attachment:
        return next(attachments)

    with Session(directory.path, attach=attaching) as session:
        assert session.run(prepared("a", "fake::echo")).status == "completed"


def test_ctrl_c_while_the_directory_stays_locked_does_not_wait_for_it(directory: Directory) -> None:
    locked = FakeGrid(directory.path)
    asked = iter([True])

    def open_owner(path: str) -> FakeGrid:
        if next(asked, False):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return FakeGrid(path)

    def attaching(path: str, *, stopping: threading.Event) -> Attachment:
        return attach(path, open_owner=open_owner, stopping=stopping)

    with pytest.raises(KeyboardInterrupt), Session(directory.path, attach=attaching) as session:
        session.run(prepared("a"))
    locked.close()


def test_ctrl_c_while_a_run_is_followed_leaves_as_planned(directory: Directory) -> None:
    def interrupt(id: str, update: Update) -> None:
        _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt), directory.session() as session:
        session.run(prepared("a"), interrupt)
    assert directory.grids[0].closed
    with directory.attach() as next:
        assert next.owner and next.grid.show("a").status == "running"
