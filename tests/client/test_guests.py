"""The owner's socket and the guests' end of it, over a fake grid and a real socket."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import msgspec
import pytest

from flo.api import guests
from flo.api.errors import BadArgument, Conflict, FloError, NotFound, Overloaded, ScriptError, Unavailable
from flo.api.grid import LogLine, RunView, StartRequest, Update
from flo.client import remote
from flo.client.remote import OwnerLeft, OwnerLost, RemoteGrid
from flo.grid import gateway
from flo.grid.gateway import Gateway, outside_path, socket_path
from tests.client.fake_grid import FakeGrid

DIGEST = bytes(range(32))


def request(id: str, flow: str = "fake::hold", args: str = "{}") -> StartRequest:
    return StartRequest(id=id, bundle=DIGEST, flow=flow, args=args)


@pytest.fixture
def grid() -> FakeGrid:
    return FakeGrid()


@pytest.fixture
def served(grid: FakeGrid, tmp_path: os.PathLike[str]) -> Iterator[Gateway]:
    opened = Gateway(grid, str(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def guest(served: Gateway) -> Iterator[RemoteGrid]:
    attached = RemoteGrid(served.path)
    yield attached
    attached.close()


def watch(grid: RemoteGrid | FakeGrid, id: str) -> SimpleQueue[Update]:
    updates: SimpleQueue[Update] = SimpleQueue()
    grid.watch(id, updates.put)
    return updates


def test_every_call_of_the_grid_answers_a_guest_as_it_answers_the_owner(grid: FakeGrid, guest: RemoteGrid) -> None:
    assert not guest.has_bundle(DIGEST)
    guest.put_bundle(DIGEST, b"a bundle")
    assert guest.has_bundle(DIGEST) and grid.bundles == {DIGEST: b"a bundle"}
    assert guest.start(request("a"), execute=False) == grid.views["a"]
    grid.print("a", "line")
    assert guest.show("a") == grid.show("a")
    assert guest.list() == grid.list()
    assert guest.logs("a") == [LogLine(at=2, task="0", channel="print", text="line")]
    assert guest.history("a") == grid.history("a")
    guest.signal("a", "go", "[1]")
    assert guest.execute(None) == ["a"] and guest.execute(["a"]) == ["a"] and grid.executed == [None, ["a"]]
    guest.cancel("a", "enough")
    assert guest.show("a").status == "cancelled" and guest.show("a").error == grid.show("a").error
    assert grid.signals == [("a", "go", "[1]")]


@pytest.mark.parametrize("value", [None, 2**200, -(2**64), 1.5, "ä\u2028", [[], {}], {"k": [None, True]}])
def test_results_reach_a_guest_unchanged(grid: FakeGrid, guest: RemoteGrid, value: object) -> None:
    guest.start(request("a"))
    grid.finish("a", value)
    view = guest.show("a")
    assert view.result is not None and msgspec.json.decode(view.result) == value


def test_a_run_without_a_result_has_none_for_a_guest(grid: FakeGrid, guest: RemoteGrid) -> None:
    guest.start(request("a"))
    assert guest.show("a").result is None


def test_errors_keep_class_message_and_hint(grid: FakeGrid, guest: RemoteGrid) -> None:
    with pytest.raises(NotFound) as caught:
        guest.show("nobody")
    assert (caught.value.message, caught.value.hint) == ("there is no run nobody", "flo runs list")
    guest.start(request("a"))
    with pytest.raises(Conflict):
        guest.start(request("a", args='{"n":1}'))


def test_every_error_class_crosses() -> None:
    def classes(root: type[FloError]) -> Iterator[type[FloError]]:
        for found in root.__subclasses__():
            if found.__module__.startswith("flo.") and found.__init__ is FloError.__init__:
                yield found
            yield from classes(found)

    for found in classes(FloError):
        crossed = guests.decode_error(guests.encode_error(found("what", hint="how")))
        assert (crossed.code, crossed.message, crossed.hint) == (found.code, "what", "how")
    script = guests.decode_error(guests.encode_error(ScriptError("bad", where="x.flow:1:2")))
    assert isinstance(script, ScriptError) and script.where == "x.flow:1:2"


def test_a_fault_of_the_owner_is_told_and_the_connection_lives_on(grid: FakeGrid, guest: RemoteGrid) -> None:
    def fault(name: str) -> None:
        raise ZeroDivisionError("by zero")

    grid.before_call = fault
    with pytest.raises(FloError, match="ZeroDivisionError: by zero"):
        guest.show("a")
    grid.before_call = lambda name: None
    guest.start(request("a"))


def test_batches_cross_as_one_call_with_an_answer_for_each(grid: FakeGrid, guest: RemoteGrid) -> None:
    answers = guest.start_many([request("a"), request("b"), request("a", args="[]")])
    assert [answer.id if isinstance(answer, RunView) else answer.code for answer in answers] == ["a", "b", "conflict"]
    assert grid.batches == [3]
    errors = guest.signal_many([("a", "go", "1"), ("nobody", "go", "2")])
    assert errors[0] is None and isinstance(errors[1], NotFound)


def test_a_watch_tells_all_since_the_beginning_what_follows_and_the_end(grid: FakeGrid, guest: RemoteGrid) -> None:
    guest.start(request("a"))
    grid.print("a", "before")
    updates = watch(guest, "a")
    grid.print("a", "after")
    grid.finish("a", 7)
    seen = [updates.get(timeout=10) for _ in range(3)]
    assert [line.text for update in seen for line in update.lines] == ["before", "after"]
    assert seen[-1].view == grid.show("a") and seen[-1].view.output == ["before", "after"]


def test_watching_a_run_that_is_not_there_is_refused(guest: RemoteGrid) -> None:
    with pytest.raises(NotFound):
        guest.watch("nobody", lambda update: None)


def test_unwatch_ends_a_watch_also_from_its_own_callback(grid: FakeGrid, guest: RemoteGrid) -> None:
    guest.start(request("a"))
    updates: SimpleQueue[Update] = SimpleQueue()
    guest.watch("a", lambda update: None)()
    assert not grid.watchers["a"]
    stop: list[object] = []

    def once(update: Update) -> None:
        if stop and update.lines:
            stop.pop()()  # type: ignore[operator]
            updates.put(update)

    stop.append(guest.watch("a", once))
    grid.print("a", "one")
    assert updates.get(timeout=10).lines[-1].text == "one"
    guest.show("a")  # behind the unwatch
    assert not grid.watchers["a"]


def test_much_output_comes_in_several_updates(grid: FakeGrid, guest: RemoteGrid) -> None:
    guest.start(request("a"))
    for n in range(5):
        grid.print("a", str(n) * (guests.UPDATE_BYTES // 2))
    updates = watch(guest, "a")
    lines: list[str] = []
    count = 0
    while len(lines) < 5:
        lines += [line.text[0] for line in updates.get(timeout=10).lines]
        count += 1
    assert lines == list("01234") and count == 3


def test_a_killed_owner_ends_calls_and_watches(grid: FakeGrid, served: Gateway, guest: RemoteGrid) -> None:
    guest.start(request("a"))
    updates = watch(guest, "a")
    assert updates.get(timeout=10).view is not None
    begun, go_on = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        begun.set()
        go_on.wait()

    grid.before_call = hang
    caught: SimpleQueue[BaseException] = SimpleQueue()

    def call() -> None:
        try:
            guest.show("a")
        except Unavailable as error:
            caught.put(error)

    threading.Thread(target=call, daemon=True).start()
    begun.wait()
    for connection in list(served._guests):
        connection._sock.shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that was killed
    assert updates.get(timeout=10) == Update(lines=[])
    assert isinstance(caught.get(timeout=10), OwnerLost)
    go_on.set()
    with pytest.raises(OwnerLeft):
        guest.show("a")


def test_an_owner_that_leaves_answers_the_call_in_progress_and_begins_no_other(
    grid: FakeGrid, served: Gateway, guest: RemoteGrid
) -> None:
    guest.start(request("a"))
    begun, go_on = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        begun.set()
        go_on.wait()

    grid.before_call = hang
    results: SimpleQueue[object] = SimpleQueue()

    def call(number: int) -> None:
        try:
            results.put(guest.show("a"))
        except Unavailable as error:
            results.put(error)

    first = threading.Thread(target=call, args=(1,), daemon=True)
    first.start()
    begun.wait()
    second = threading.Thread(target=call, args=(2,), daemon=True)
    second.start()
    leaving = threading.Thread(target=served.close)
    leaving.start()
    go_on.set()
    leaving.join()
    got = [results.get(timeout=10), results.get(timeout=10)]
    assert all(isinstance(answer, RunView | OwnerLeft) for answer in got) and isinstance(got[0], RunView)
    assert not os.path.exists(served.path)
    with pytest.raises(OwnerLeft):
        RemoteGrid(served.path)


def test_a_guest_that_goes_leaves_no_watch_behind(grid: FakeGrid, served: Gateway) -> None:
    guest = RemoteGrid(served.path)
    guest.start(request("a"))
    watch(guest, "a")
    assert len(grid.watchers["a"]) == 1
    threads = [thread for thread in threading.enumerate() if thread.name == "flo-guest"]
    guest.close()
    for thread in threads:
        thread.join(10)
    assert grid.watchers["a"] == [] and served.guests == 0


def test_a_slow_reader_is_dropped_with_an_error_and_others_are_not(grid: FakeGrid, tmp_path: os.PathLike[str]) -> None:
    served = Gateway(grid, str(tmp_path), buffer_bytes_max=1_000_000)
    slow, quick = RemoteGrid(served.path), RemoteGrid(served.path)
    slow.start(request("a"))
    reading = threading.Event()
    updates: SimpleQueue[Update] = SimpleQueue()

    def stuck(update: Update) -> None:
        reading.wait()
        updates.put(update)

    # the first update is told before the call's answer: the thread that reads hangs in it
    threading.Thread(target=slow.watch, args=("a", stuck), daemon=True).start()
    lines = watch(quick, "a")
    got = 0
    for _ in range(40):
        grid.print("a", "x" * 100_000)
        while got < len(grid.lines["a"]):
            got += len(lines.get(timeout=10).lines)
    reading.set()
    while updates.get(timeout=10) != Update(lines=[]):
        pass
    with pytest.raises(Unavailable, match="reads too slowly"):
        slow.show("a")
    assert quick.show("a").status == "running"
    quick.close()
    served.close()


def test_guests_over_the_limit_are_refused(grid: FakeGrid, tmp_path: os.PathLike[str]) -> None:
    served = Gateway(grid, str(tmp_path), guests_max=2)
    attached = [RemoteGrid(served.path), RemoteGrid(served.path)]
    with pytest.raises(Overloaded, match="2 processes are attached"):
        RemoteGrid(served.path)
    for guest in attached:
        guest.close()
    served.close()


def test_another_protocol_is_refused_and_named(grid: FakeGrid, tmp_path: os.PathLike[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    served = Gateway(grid, str(tmp_path), version="9.9")
    served._hello = guests.Hello(2, "9.9", 77)
    with pytest.raises(Conflict, match=r"process 77 .* another version of Flo \(9\.9\)"):
        RemoteGrid(served.path)
    served.close()


def test_another_users_process_is_not_served(served: Gateway, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(guests, "is_same_user", lambda sock: False)
    with pytest.raises(Conflict, match="another user"):
        RemoteGrid(served.path)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(served.path)
    assert sock.recv(1) == b""
    sock.close()


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">I", guests.REQUEST_BYTES + 1), struct.pack(">I", 3) + b"\xc1\xc1\xc1"],
    ids=["foreign protocol", "frame over the limit", "no MessagePack"],
)
def test_what_is_no_frame_ends_that_connection_only(grid: FakeGrid, served: Gateway, sent: bytes) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(served.path)
    sock.sendall(sent)
    sock.settimeout(10)
    frame = guests.FrameReader(sock, guests.ANSWER_BYTES).read()
    assert frame is not None
    answer = guests.decode_answer(frame)
    assert answer.kind == guests.ERROR and "not understood" in guests.decode_error(answer.body).message
    sock.close()
    RemoteGrid(served.path).close()


def test_an_unknown_call_or_wrong_arguments_are_an_error(guest: RemoteGrid) -> None:
    with pytest.raises(BadArgument, match="knows no call 'close'"):
        guest._ask("close")
    with pytest.raises(FloError, match="Expected"):
        guest._ask("show", 7)


def test_a_message_over_the_limit_is_refused_before_it_is_sent(guest: RemoteGrid) -> None:
    with pytest.raises(BadArgument, match="over the limit"):
        guest.put_bundle(DIGEST, bytes(guests.REQUEST_BYTES))
    assert guest.list() == []


def test_the_socket_is_the_users_alone(served: Gateway) -> None:
    found = os.stat(served.path)
    assert stat.S_IMODE(found.st_mode) == 0o600 and stat.S_ISSOCK(found.st_mode)


def test_a_long_directory_has_its_socket_in_a_private_one(grid: FakeGrid, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    runtime = tmp_path / "run"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    served = Gateway(grid, str(deep))
    assert served.path == socket_path(str(deep)) == outside_path(str(deep)) and len(served.path) <= 100
    if len(str(runtime)) < 60:
        assert served.path.startswith(str(runtime))
    assert stat.S_IMODE(os.stat(os.path.dirname(served.path)).st_mode) == 0o700
    RemoteGrid(served.path).close()
    served.close()
    assert not os.path.exists(served.path)


def test_a_directory_that_holds_no_sockets_has_its_own_elsewhere(grid: FakeGrid, short_folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder / "run"))
    bind = gateway._bind

    def refuse(path: str) -> socket.socket:
        if path == socket_path(str(short_folder)):
            raise PermissionError(1, "no sockets here")
        return bind(path)

    monkeypatch.setattr(gateway, "_bind", refuse)
    served = Gateway(grid, str(short_folder))
    assert served.path == outside_path(str(short_folder)) != socket_path(str(short_folder))
    RemoteGrid(served.path).close()
    served.close()


def test_a_private_directory_of_somebody_else_is_not_used(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(Unavailable, match="belongs to somebody else"):
        gateway._make_private(str(tmp_path))


def test_a_socket_left_by_a_killed_owner_is_replaced(grid: FakeGrid, tmp_path: os.PathLike[str]) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(os.path.join(tmp_path, gateway.SOCKET_NAME))
    stale.close()
    served = Gateway(grid, str(tmp_path))
    RemoteGrid(served.path).close()
    served.close()


def test_an_owner_that_says_nothing_is_given_up(tmp_path: os.PathLike[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.05)
    path = os.path.join(tmp_path, "silent.sock")
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(path)
    silent.listen()
    with pytest.raises(OwnerLeft, match="does not answer"):
        RemoteGrid(path)
    silent.close()
