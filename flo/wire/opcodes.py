"""Numbers and names of the operations (dialect D2)."""

from __future__ import annotations

from typing import Final

PING: Final = 0x000
NAMESPACE_CREATE: Final = 0x010
NAMESPACE_DELETE: Final = 0x011
NAMESPACE_LIST: Final = 0x012
NAMESPACE_INFO: Final = 0x013
CLUSTER_STATUS: Final = 0x030
CLUSTER_MEMBERS: Final = 0x031

CALL: Final = 0x0F0  # our own operation: flo.wire.calls

KV_PUT: Final = 0x100
KV_GET: Final = 0x101
KV_MGET: Final = 0x102
KV_DELETE: Final = 0x103
KV_SCAN: Final = 0x104
KV_HISTORY: Final = 0x105
KV_INCR: Final = 0x10B
KV_JSON_GET: Final = 0x10C
KV_JSON_SET: Final = 0x10D
KV_JSON_DEL: Final = 0x10E
KV_BEGIN: Final = 0x110
KV_COMMIT: Final = 0x111
KV_ROLLBACK: Final = 0x112
KV_TOUCH: Final = 0x113
KV_PERSIST: Final = 0x114
KV_EXISTS: Final = 0x115

STREAM_APPEND: Final = 0x130
STREAM_READ: Final = 0x131
STREAM_TRIM: Final = 0x132
STREAM_INFO: Final = 0x133
STREAM_LIST: Final = 0x13B
STREAM_CREATE: Final = 0x13D
STREAM_ALTER: Final = 0x13F
STREAM_DELETE: Final = 0x140

GROUP_CREATE: Final = 0x150
GROUP_JOIN: Final = 0x151
GROUP_LEAVE: Final = 0x152
GROUP_READ: Final = 0x153
GROUP_ACK: Final = 0x154
GROUP_CLAIM: Final = 0x155
GROUP_PENDING: Final = 0x156
GROUP_NACK: Final = 0x159
GROUP_TOUCH: Final = 0x15A
GROUP_INFO: Final = 0x15B
GROUP_DELETE: Final = 0x15C

QUEUE_ENQUEUE: Final = 0x170
QUEUE_DEQUEUE: Final = 0x171
QUEUE_ACK: Final = 0x172
QUEUE_EXTEND_LEASE: Final = 0x173
QUEUE_NACK: Final = 0x174
QUEUE_DLQ_LIST: Final = 0x176
QUEUE_DLQ_DELETE: Final = 0x177
QUEUE_DLQ_REQUEUE: Final = 0x178
QUEUE_DLQ_STATS: Final = 0x179
QUEUE_STATS: Final = 0x17B
QUEUE_PEEK: Final = 0x17C
QUEUE_TOUCH: Final = 0x17D
QUEUE_ENQUEUE_MANY: Final = 0x17E
QUEUE_PURGE: Final = 0x17F
QUEUE_LIST: Final = 0x198

WEB_OPCODES: Final = frozenset(
    {
        PING,
        KV_GET,
        KV_MGET,
        KV_SCAN,
        KV_HISTORY,
        KV_JSON_GET,
        KV_EXISTS,
        STREAM_APPEND,
        STREAM_READ,
        STREAM_INFO,
        GROUP_JOIN,
        GROUP_LEAVE,
        GROUP_READ,
        GROUP_ACK,
        GROUP_NACK,
    }
)
"""What browsers may ask for; the rest is unauthorized there."""

_later: Final = (
    (range(0x1A0, 0x1A7), "time series"),
    (range(0x300, 0x320), "actions"),
    (range(0x320, 0x340), "workers"),
    (range(0x340, 0x360), "workflows"),
    (range(0x360, 0x380), "processing"),
)


def unknown(opcode: int) -> str:
    """What to say to an operation that is not served."""
    for numbers, what in _later:
        if opcode in numbers:
            return f"operation 0x{opcode:03x} ({what}) is not supported by this server yet"
    return f"operation 0x{opcode:03x} is not known to this server"
