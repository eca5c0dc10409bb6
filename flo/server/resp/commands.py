"""The table of commands: by name, how many arguments each takes and who performs it (spec/redis.md §2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from flo.grid.store import Store
from flo.server.resp import connection, json, keys, lists, streams, strings
from flo.server.resp.client import Client
from flo.server.resp.parser import ARGUMENTS
from flo.server.resp.replies import EMPTY_ARRAY, array, error, integer

Handler: TypeAlias = Callable[[Client, Store, list[bytes]], bytes | None]
"""Called in a turn, with the lock held: the reply, or None when it comes later. Raises Refused, FloError, Reject."""

SPELLINGS: Final = 4_096  # of names, in upper and lower case, that are found without a look at their letters


class Command:
    """`least` and `most`: words of the command, its name included."""

    __slots__ = ("handler", "least", "most", "name")

    def __init__(self, name: str, handler: Handler, least: int, most: int = ARGUMENTS) -> None:
        self.name = name
        self.handler = handler
        self.least = least
        self.most = most


def _refused(text: str) -> Handler:
    reply = error(text)

    def refuse(client: Client, store: Store, args: list[bytes]) -> bytes:
        return reply

    return refuse


def _describe(client: Client, store: Store, args: list[bytes]) -> bytes:
    """COMMAND."""
    if len(args) > 1:
        what = args[1].upper()
        if what == b"COUNT":
            return integer(len(_table))
        if what == b"INFO":
            return array([client.nil_array] * (len(args) - 2))
        if what not in (b"DOCS", b"LIST"):
            return connection.unknown_subcommand("command", args[1])
    return EMPTY_ARRAY


_no_transactions = _refused(
    "transactions are not supported over RESP; use conditional writes or the native transaction API"
)
_no_scripting = _refused("scripting is not supported")
_no_channels = _refused("pub/sub is not supported; use streams")
_not_supported = _refused("not supported")

_table: Final = [
    Command("ping", connection.ping, 1, 2),
    Command("echo", connection.echo, 2, 2),
    Command("quit", connection.leave, 1),
    Command("reset", connection.reset, 1, 1),
    Command("use", connection.use, 2, 2),
    Command("select", connection.select, 2, 2),
    Command("auth", connection.auth, 2, 3),
    Command("hello", connection.hello, 1),
    Command("client", connection.client_command, 2),
    Command("command", _describe, 1),
    Command("config", connection.config, 2),
    Command("info", connection.info, 1),
    Command("time", connection.time, 1, 1),
    Command("cluster", connection.cluster, 2),
    Command("readonly", connection.fine, 1, 1),
    Command("readwrite", connection.fine, 1, 1),
    Command("get", strings.get, 2, 2),
    Command("set", strings.put, 3),
    Command("setnx", strings.setnx, 3, 3),
    Command("setex", strings.setex, 4, 4),
    Command("psetex", strings.psetex, 4, 4),
    Command("getset", strings.getset, 3, 3),
    Command("getdel", strings.getdel, 2, 2),
    Command("append", strings.append, 3, 3),
    Command("strlen", strings.strlen, 2, 2),
    Command("mget", strings.mget, 2),
    Command("mset", strings.mset, 3),
    Command("incr", strings.incr, 2, 2),
    Command("decr", strings.decr, 2, 2),
    Command("incrby", strings.incrby, 3, 3),
    Command("decrby", strings.decrby, 3, 3),
    Command("incrbyfloat", _not_supported, 1),
    Command("del", keys.delete, 2),
    Command("unlink", keys.delete, 2),
    Command("exists", keys.exists, 2),
    Command("type", keys.kind, 2, 2),
    Command("dbsize", keys.dbsize, 1, 1),
    Command("expire", keys.expire, 3),
    Command("pexpire", keys.pexpire, 3),
    Command("expireat", keys.expireat, 3),
    Command("pexpireat", keys.pexpireat, 3),
    Command("persist", keys.persist, 2, 2),
    Command("ttl", keys.ttl, 2, 2),
    Command("pttl", keys.pttl, 2, 2),
    Command("expiretime", keys.expiretime, 2, 2),
    Command("pexpiretime", keys.pexpiretime, 2, 2),
    Command("scan", keys.scan, 2),
    Command("keys", keys.keys, 2, 2),
    Command("json.get", json.jget, 2, 3),
    Command("json.set", json.jset, 4, 5),
    Command("json.del", json.jdel, 2, 3),
    Command("json.forget", json.jdel, 2, 3),
    Command("lpush", lists.push, 3),
    Command("rpush", lists.push, 3),
    Command("lpop", lists.pop, 2, 3),
    Command("rpop", lists.pop, 2, 3),
    Command("blpop", lists.blocking_pop, 3),
    Command("brpop", lists.blocking_pop, 3),
    Command("llen", lists.length, 2, 2),
    Command("lrange", lists.peek, 4, 4),
    Command("flo.qpop", lists.take, 2),
    Command("flo.qack", lists.acknowledge, 3),
    Command("flo.qnack", lists.give_back, 3),
    Command("xadd", streams.add, 5),
    Command("xtrim", streams.trim, 4),
    Command("xlen", streams.length, 2, 2),
    Command("xrange", streams.forward, 4),
    Command("xrevrange", streams.backward, 4),
    Command("xread", streams.read, 4),
    Command("xdel", _refused("XDEL is not supported; use XTRIM"), 1),
    *[Command(name, _no_transactions, 1) for name in ("multi", "exec", "discard", "watch", "unwatch")],
    *[Command(name, _no_scripting, 1) for name in ("eval", "evalsha", "eval_ro", "evalsha_ro", "script", "function",
                                                   "fcall", "fcall_ro")],
    *[Command(name, _no_channels, 1) for name in ("subscribe", "unsubscribe", "psubscribe", "punsubscribe", "publish",
                                                  "ssubscribe", "sunsubscribe", "spublish", "pubsub")],
    *[Command(name, _not_supported, 1) for name in ("flushdb", "flushall", "object", "debug", "migrate", "save",
                                                    "bgsave", "replicaof", "slaveof")],
]  # fmt: skip

_by_name: Final[dict[bytes, Command]] = {command.name.upper().encode(): command for command in _table}
spelled: Final[dict[bytes, Command]] = dict(_by_name)  # by the name as clients write it


def find(name: bytes) -> Command | None:
    """The command of a name that is not among the spellings yet."""
    command = _by_name.get(name.upper())
    if command is not None and len(spelled) < SPELLINGS:
        spelled[name] = command
    return command
