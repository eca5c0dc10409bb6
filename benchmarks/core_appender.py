"""Appends to a stream with 256 requests outstanding: `python benchmarks/core_appender.py PORT COUNT` prints appends/s.

One connection of the binary protocol; the frames are made before the clock starts.
"""

from __future__ import annotations

import socket
import sys
import time

from flo.wire import opcodes
from flo.wire.frames import encode_request

OUTSTANDING = 256
REPLY_BYTES = 48  # header, and the id of the record
PAYLOAD = b"p" * 64


def run(port: int, count: int) -> float:
    frames = [
        encode_request(opcodes.STREAM_APPEND, number + 1, "default", b"events", PAYLOAD, b"") for number in range(count)
    ]
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        sock.sendall(b"".join(frames[:OUTSTANDING]))
        sent, answered, rest = min(OUTSTANDING, count), 0, 0
        while answered < count:
            data = sock.recv(1 << 16)
            assert data, "the server closed the connection"
            done, rest = divmod(rest + len(data), REPLY_BYTES)
            answered += done
            if done and sent < count:
                sock.sendall(b"".join(frames[sent : sent + done]))
                sent = min(sent + done, count)
        return count / (time.perf_counter() - began)


print(run(int(sys.argv[1]), int(sys.argv[2])))
