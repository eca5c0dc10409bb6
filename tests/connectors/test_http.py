"""The http connector against a real server on a real socket."""

from __future__ import annotations

import base64
import gzip
import socket
import zlib

import pytest

from flo.connectors.testing import Answer, RecordingServer
from tests.connectors.conftest import SECRET, Bench

MIB = 1024 * 1024


def test_every_method_sends_its_own_name(bench: Bench, web: RecordingServer):
    for method in ("get", "post", "put", "patch", "delete", "head", "options"):
        bench.ok(f"http.{method}", url=web.url + "/" + method)
    bench.ok("http.request", method="report", url=web.url + "/other")

    assert [one.method for one in web.seen()] == [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "REPORT",
    ]  # fmt: skip


def test_any_status_is_a_value_with_headers_text_and_parsed_json(bench: Bench, web: RecordingServer):
    raw = (
        b"HTTP/1.1 418 Teapot\r\nContent-Type: application/json\r\nX-Kind: pot\r\nSet-Cookie: a=1\r\n"
        b'Set-Cookie: b=2\r\nContent-Length: 42\r\n\r\n{"n":123456789012345678901234567890,"f":1}'
    )
    web.on("/teapot", Answer(raw=raw))

    got = bench.ok("http.get", url=web.url + "/teapot")

    assert got["status"] == 418
    assert got["headers"]["x-kind"] == "pot" and got["headers"]["set-cookie"] == "a=1, b=2"
    assert got["body"] == '{"n":123456789012345678901234567890,"f":1}'
    assert got["json"] == {"n": 123456789012345678901234567890, "f": 1}


def test_json_and_text_bodies_and_headers_arrive_as_given(bench: Bench, web: RecordingServer):
    bench.ok("http.post", url=web.url + "/json?q=1", json={"a": [1, None, "ü"]}, headers={"X-Mark": "m1", "X-N": 5})
    bench.ok("http.put", url=web.url + "/text", body="raw ✓", headers={"Content-Type": "text/csv"})
    bench.ok("http.post", url=web.url + "/null", json=None)
    bench.ok("http.post", url=web.url + "/none")

    posted, put = web.seen("/json")[0], web.seen("/text")[0]
    assert posted.json == {"a": [1, None, "ü"]} and posted.query == {"q": ["1"]}
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["x-mark"] == "m1" and posted.headers["x-n"] == "5"
    assert [web.seen(path)[0].body for path in ("/null", "/none")] == [b"null", b""]
    assert put.body.decode() == "raw ✓" and put.headers["content-type"] == "text/csv"


def test_a_body_that_is_no_utf8_is_read_in_its_charset_else_as_base64(bench: Bench, web: RecordingServer):
    web.on("/latin", Answer(body="grün".encode("latin-1"), headers={"Content-Type": "text/plain; charset=ISO-8859-1"}))
    web.on("/wide", Answer(body="grün".encode("utf-16"), headers={"Content-Type": 'text/plain; charset="utf-16"'}))
    web.on("/image", Answer(body=b"\x89PNG\xff", headers={"Content-Type": "image/png"}))
    web.on("/odd", Answer(body=b"\xff\xfe\xfd", headers={"Content-Type": "text/plain; charset=hex"}))

    assert bench.ok("http.get", url=web.url + "/latin")["body"] == "grün"
    assert bench.ok("http.get", url=web.url + "/wide")["body"] == "grün"
    image = bench.ok("http.get", url=web.url + "/image")
    assert image["encoding"] == "base64" and base64.b64decode(image["body"]) == b"\x89PNG\xff"
    assert bench.ok("http.get", url=web.url + "/odd")["encoding"] == "base64"


@pytest.mark.parametrize("body", ["", "<html>", "NaN", "[" * 100 + "]" * 100, "[" * 100_000, "1" * 5_000, '"\\ud800"'])
def test_what_is_no_usable_json_gives_none_and_keeps_the_text(bench: Bench, web: RecordingServer, body: str):
    web.on("/x", Answer(body=body))

    got = bench.ok("http.get", url=web.url + "/x")

    assert got["json"] is None and got["body"] == body


def test_many_brackets_that_are_not_deep_are_parsed(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(json=[[] for _ in range(1_000)]))

    assert len(bench.ok("http.get", url=web.url + "/x")["json"]) == 1_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "two members"])
def test_a_compressed_answer_is_decompressed(bench: Bench, web: RecordingServer, encoding: str):
    text = b"hello " * 10_000
    raw = zlib.compressobj(wbits=-15)
    body = {
        "gzip": gzip.compress(text),
        "deflate": zlib.compress(text),
        "raw deflate": raw.compress(text) + raw.flush(),
        "two members": gzip.compress(text[:600]) + gzip.compress(text[600:]),
    }[encoding]
    name = "deflate" if "deflate" in encoding else "gzip"
    web.on("/x", Answer(body=body, headers={"Content-Encoding": name}))

    assert bench.ok("http.get", url=web.url + "/x")["body"] == text.decode()
    assert web.seen("/x")[0].headers["accept-encoding"] == "gzip, deflate"


def test_damaged_compression_is_a_transport_error(bench: Bench, web: RecordingServer):
    whole = gzip.compress(b"hello" * 1_000)
    web.on("/bad", Answer(body=b"no gzip", headers={"Content-Encoding": "gzip"}))
    web.on("/cut", Answer(body=whole[:-9], headers={"Content-Encoding": "gzip"}))

    place = f"the body of the answer to GET 127.0.0.1:{web.port}"
    assert bench.error("http.get", url=web.url + "/bad")["message"] == f"{place} is not valid gzip"
    assert bench.error("http.get", url=web.url + "/cut")["message"] == f"{place} ends in the middle of its gzip"


def test_a_head_answer_may_announce_any_length_and_encoding(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(headers={"Content-Length": str(20 * MIB), "Content-Encoding": "gzip"}))

    assert bench.ok("http.head", url=web.url + "/x")["status"] == 200


def test_a_body_over_the_limit_is_too_large_however_it_comes(bench: Bench, web: RecordingServer):
    def endless() -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * (17 * MIB)

    web.on("/announced", Answer(raw=f"HTTP/1.1 200 OK\r\nContent-Length: {10**15}\r\n\r\nx".encode()))
    web.on("/streamed", Answer(raw=endless()))
    web.on("/bomb", Answer(body=gzip.compress(b"\0" * (64 * MIB)), headers={"Content-Encoding": "gzip"}))

    place = f"the body of the answer to GET 127.0.0.1:{web.port}"
    error = bench.error("http.get", url=web.url + "/announced")
    assert error["kind"] == "too_large"
    assert error["message"] == f"{place} has 1,000,000,000,000,000 bytes, over the limit of 16 MiB"
    for path in ("/streamed", "/bomb"):
        error = bench.error("http.get", url=web.url + path)
        assert (error["kind"], error["message"]) == ("too_large", f"{place} is over the limit of 16 MiB")


def test_text_and_parsed_json_must_fit_together(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(json="y" * (9 * MIB)))

    error = bench.error("http.get", url=web.url + "/x")

    assert error["kind"] == "too_large" and "the value has 18,8" in error["message"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "url is missing: a text that begins with http:// or https://"),
        ({"url": "ftp://host/x"}, "url must begin with http:// or https://, not with ftp:"),
        ({"url": "host/x"}, "url must begin with http:// or https://"),
        ({"url": "http:///x"}, "url names no host"),
        ({"url": "http://h:99999/"}, "url has the port 99999, which does not exist"),
        ({"url": "http://[::1"}, "url is malformed: Invalid port: ':1'"),
        ({"url": "http://h/\n"}, "url is malformed: Invalid non-printable ASCII character in URL"),
        ({"url": "{}", "json": 1, "body": "x"}, "a request has one body: json, body or secret_body"),
        ({"url": "{}", "body": 5}, "body must be a text, not int"),
        ({"url": "{}", "timeout": 0}, "timeout must be between 1 ms and 86400000 ms, not 0"),
        ({"url": "{}", "timeout": "5s"}, "timeout must be between"),
        ({"url": "{}", "redirects": 6}, "redirects must be between 0 and 5, not 6"),
        ({"url": "{}", "headers": {"a b": "x"}}, "'a b' is not a header's name"),
        ({"url": "{}", "headers": {"A": "x\r\nB: y"}}, "header A holds a line break or another control character"),
        ({"url": "{}", "headers": {"A": None}}, "header 'A' must be a text, not NoneType"),
        ({"url": "{}", "headers": {"Content-Length": "5"}}, "header Content-Length follows from the body"),
        ({"url": "{}", "headers": []}, "headers must be an object of texts"),
        ({"url": "{}", "secret_headers": {"A": ["Bearer", "TOKEN"]}}, "must have one {} for each secret"),
        ({"url": "{}", "secret_body": ["{}"]}, "secret_body must be a template and the names of its secrets"),
        ({"url": "{}", "secret_headers": {"A": "TOKEN"}}, "must be a template and the names of its secrets"),
        ({"url": "{}", "secret_headers": {"A": ["{}", "../x"]}}, "'../x' is not the name of a secret"),
        ({"url": "{}", "secret_headers": {"A": ["{}", "LINES"]}}, "header A with secret LINES holds a line break"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_is_sent(bench: Bench, web: RecordingServer, given, message: str):
    if given.get("url") == "{}":
        given = {**given, "url": web.url + "/x"}

    error = bench.error("http.post", **given)

    assert error["kind"] == "bad_argument" and message in error["message"], error
    assert web.connections == 0


def test_a_method_must_be_one(bench: Bench, web: RecordingServer):
    for method in ("GET /x", "", 5, "CONNECT"):
        error = bench.error("http.request", method=method, url=web.url)
        assert error == {**error, "kind": "bad_argument", "message": f"{method!r} is not a method"}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(drop="reset"), "connection reset by peer"),
        (Answer(drop="silent"), "server disconnected without sending a response"),
        (Answer(drop="headers"), ""),
        (Answer(drop="body", body="x" * 5_000), "received 2500 bytes, expected 5000"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"), "received 3 bytes, expected 50"),
        (Answer(raw=b"SSH-2.0-OpenSSH\r\n\r\n"), "illegal status line"),
    ],
)
def test_a_broken_exchange_is_one_request_and_a_retryable_error(
    bench: Bench, web: RecordingServer, answer: Answer, text: str
):
    web.on("/x", answer)

    error = bench.error("http.post", url=web.url + "/x", json={})

    assert error["kind"] == "connector" and error["retryable"] is True
    assert error["message"].startswith(f"POST 127.0.0.1:{web.port}: ") and text in error["message"], error
    assert error["details"] == {"host": f"127.0.0.1:{web.port}", "phase": "exchange"}
    assert web.count() == 1


def test_a_refused_connection_and_an_unknown_host_say_so(bench: Bench):
    refused = bench.error("http.get", url="http://127.0.0.1:1/x")
    unknown = bench.error("http.get", url="http://no-such-host.invalid/x")

    assert refused["message"] == "GET 127.0.0.1:1: cannot connect: connection refused"
    assert refused["details"]["phase"] == "connect" and refused["retryable"] is True
    assert unknown["message"].startswith("GET no-such-host.invalid: cannot connect: ")
    assert unknown["kind"] == "connector"


def test_tls_to_a_server_that_does_not_speak_it_says_so(bench: Bench, web: RecordingServer):
    error = bench.error("http.get", url=f"https://127.0.0.1:{web.port}/")

    assert error["kind"] == "connector" and "cannot connect: TLS failed" in error["message"]


def test_the_server_of_these_tests_leaves_who_does_not_speak_http(web: RecordingServer):
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 random bytes\n")  # as the first of TLS may be
        assert connection.recv(1) == b""


def test_a_slow_answer_is_a_timeout_and_one_request(bench: Bench, web: RecordingServer):
    web.hold("/slow")

    error = bench.error("http.get", url=web.url + "/slow", timeout=50)

    assert (error["kind"], error["message"]) == (
        "timeout", f"GET 127.0.0.1:{web.port} gave no whole answer within 50 ms",
    )  # fmt: skip
    assert web.count() == 1


def test_a_connection_is_used_again_and_a_dead_one_is_not(bench: Bench, web: RecordingServer):
    for _ in range(3):
        bench.ok("http.get", url=web.url + "/x")
    assert [one.connection for one in web.seen()] == [1, 1, 1]

    web.on("/last", Answer(close=True))
    bench.ok("http.get", url=web.url + "/last")
    outcomes = [bench.outcome("http.post", url=web.url + "/after")[0] for _ in range(2)]

    # The close may cross with the first request; then that one fails, and is not sent anew.
    assert outcomes[1] == "+" and web.count("/after") == outcomes.count("+")


def test_a_request_on_a_connection_that_dies_is_not_sent_again(bench: Bench, web: RecordingServer):
    bench.ok("http.get", url=web.url + "/x")
    web.on("/pay", Answer(drop="silent"))

    error = bench.error("http.post", url=web.url + "/pay")

    assert error["kind"] == "connector"
    assert [(one.path, one.connection) for one in web.seen()] == [("/x", 1), ("/pay", 1)]


def test_nothing_is_carried_from_one_request_to_the_next(bench: Bench, web: RecordingServer):
    web.on("/login", Answer(headers={"Set-Cookie": "session=1; Path=/"}))

    bench.ok("http.get", url=web.url + "/login")
    bench.ok("http.get", url=web.url + "/after")

    assert "cookie" not in web.seen("/after")[0].headers


def test_proxies_of_the_environment_are_ignored(bench: Bench, web: RecordingServer, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert bench.ok("http.get", url=web.url + "/x")["status"] == 200


def test_a_name_and_password_in_the_url_are_sent_and_not_shown(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(), Answer(drop="silent"))
    url = web.url.replace("://", "://me:pass%20word@") + "/x"

    bench.ok("http.get", url=url)
    error = bench.error("http.get", url=url)

    assert web.seen()[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:pass word").decode()
    assert "pass" not in str(error)


# ---------------------------------------------------------------------------------------------- redirects


def test_redirects_are_followed_with_the_method_that_the_status_says(bench: Bench, web: RecordingServer):
    for status in (301, 302, 303, 307, 308):
        web.on(f"/{status}", Answer(status, headers={"Location": f"/to{status}?a=1"}))
        got = bench.ok("http.post", url=f"{web.url}/{status}", json={"n": 1})
        assert got["json"]["path"] == f"/to{status}"

    sent = {one.path: (one.method, one.body) for one in web.seen() if one.path.startswith("/to")}
    assert sent == {
        "/to301": ("GET", b""), "/to302": ("GET", b""), "/to303": ("GET", b""),
        "/to307": ("POST", b'{"n":1}'), "/to308": ("POST", b'{"n":1}'),
    }  # fmt: skip
    assert "content-type" not in web.seen("/to303")[0].headers


def test_five_redirects_are_followed_and_a_sixth_is_an_error(bench: Bench, web: RecordingServer):
    for number in range(7):
        web.on(f"/{number}", Answer(302, headers={"Location": f"/{number + 1}"}))

    assert bench.ok("http.get", url=web.url + "/2")["json"]["path"] == "/7"
    error = bench.error("http.get", url=web.url + "/0")

    assert error["kind"] == "connector"
    assert error["message"] == f"GET 127.0.0.1:{web.port} was redirected more than 5 times"
    assert web.count("/6") == 1, "asked for by the first chain only"


def test_redirects_can_be_looked_at_instead(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(302, headers={"Location": "/y"}, body="moved"))

    got = bench.ok("http.get", url=web.url + "/x", redirects=False)

    assert (got["status"], got["headers"]["location"], got["body"]) == (302, "/y", "moved")
    assert web.count("/y") == 0


def test_a_redirect_without_a_location_is_an_answer(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(302, body="?"))

    assert bench.ok("http.get", url=web.url + "/x")["status"] == 302


@pytest.mark.parametrize("location", ["ftp://h/x", "http://[::1", "http://h:99999/"])
def test_a_redirect_to_nowhere_is_an_error_of_the_exchange(bench: Bench, web: RecordingServer, location: str):
    web.on("/x", Answer(302, headers={"Location": location}))

    error = bench.error("http.get", url=web.url + "/x")

    assert error["kind"] == "connector" and "redirects wrongly: its location" in error["message"]


# ---------------------------------------------------------------------------------------------- secrets


def test_a_secret_reaches_the_server_and_no_outcome(bench: Bench, web: RecordingServer, caplog):
    caplog.set_level("DEBUG")
    web.on("/echo", lambda request: Answer(json={"got": request.headers["authorization"]}, headers={"X": SECRET}))

    outcome = bench.outcome("http.post", url=web.url + "/echo",
                            secret_headers={"Authorization": ["Bearer {}", "TOKEN"]}, secret_body="TOKEN")  # fmt: skip

    seen = web.seen("/echo")[0]
    assert seen.headers["authorization"] == f"Bearer {SECRET}" and seen.body.decode() == SECRET
    assert SECRET not in outcome and outcome.count("[secret TOKEN]") == 3, outcome
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if "flo" in record.name)


def test_a_secret_is_masked_in_a_binary_answer_too(bench: Bench, web: RecordingServer):
    web.on("/x", Answer(body=b"\xff" + SECRET.encode()))

    got = bench.ok("http.get", url=web.url + "/x", secret_headers={"X": ["{}", "TOKEN"]})

    assert base64.b64decode(got["body"]) == b"\xff[secret TOKEN]"


def test_a_missing_secret_is_named_and_nothing_is_sent(bench: Bench, web: RecordingServer):
    for given in (
        {"secret_headers": {"X": ["{}", "NOT_THERE"]}}, {"secret_body": "NOT_THERE"},
        {"secret_body": ["{}", "NOT_THERE"]},
    ):  # fmt: skip
        error = bench.error("http.get", url=web.url + "/x", **given)
        assert error["kind"] == "not_found"
        assert error["message"].startswith("secret NOT_THERE does not exist: set FLO_SECRET_NOT_THERE or write ")
    assert web.connections == 0


def test_a_secret_stays_with_its_host_when_redirected(bench: Bench, web: RecordingServer):
    given = {"secret_headers": {"X-Token": ["{}", "TOKEN"]}, "headers": {"Authorization": "plain", "X-Keep": "1"}}
    with RecordingServer() as other:
        web.on("/same", Answer(307, headers={"Location": "/here"}))
        web.on("/away", Answer(307, headers={"Location": other.url + "/back"}))
        other.on("/back", Answer(307, headers={"Location": web.url + "/again"}))
        web.on("/body", Answer(307, headers={"Location": other.url + "/body"}))

        bench.ok("http.get", url=web.url + "/same", **given)
        bench.ok("http.get", url=web.url + "/away", **given)
        error = bench.error("http.post", url=web.url + "/body", secret_body="TOKEN")

        assert web.seen("/here")[0].headers["x-token"] == SECRET
        for request in (other.seen("/back")[0], web.seen("/again")[0]):
            assert not {"x-token", "authorization"} & set(request.headers) and request.headers["x-keep"] == "1"
        assert other.count("/body") == 0 and error["kind"] == "connector"
        assert "a secret body is not sent on to another host" in error["message"]


def test_a_host_that_is_not_allowed_gets_no_connection(web: RecordingServer, tmp_path):
    from flo.connectors import LocalHost
    from flo.connectors.http import HttpConnector
    from flo.connectors.testing import FakeCore

    host = LocalHost([HttpConnector(hosts=["*.example.com"])], directory=tmp_path)
    core = FakeCore()
    host.attach(core)
    try:
        error = Bench(host, core, tmp_path).error("http.get", url=web.url + "/x")
    finally:
        host.stop(1_000)

    assert error["message"] == f"GET 127.0.0.1:{web.port}: requests to this host are not allowed"
    assert web.connections == 0
