"""Commands about the connection and the server: none of them changes what is stored (spec/redis.md §2)."""

from __future__ import annotations

import os
from binascii import crc_hqx
from typing import Final

from flo.api.version import VERSION
from flo.grid.store import Store
from flo.primitives.kv_rules import DEFAULT_NAMESPACE, check_namespace
from flo.server.resp.arguments import whole
from flo.server.resp.client import Client
from flo.server.resp.replies import (
    EMPTY_ARRAY,
    OK,
    PONG,
    ZERO,
    array,
    bulk,
    bulks,
    error,
    integer,
    mapping,
    shown,
    wrong_count,
)

REDIS_VERSION: Final = b"7.0.0"  # whose behaviour clients may count on
NAMESPACES: Final = 16  # that SELECT reaches
SLOTS: Final = 16_384
NAME_BYTES: Final = 128  # of a client or its library
NODE_ID: Final = b"f10" + b"0" * 37  # of the one node that there is
NO_PASSWORD: Final = error("AUTH called without any password configured")


def ping(client: Client, store: Store, args: list[bytes]) -> bytes:
    return PONG if len(args) == 1 else bulk(args[1])


def echo(client: Client, store: Store, args: list[bytes]) -> bytes:
    return bulk(args[1])


def leave(client: Client, store: Store, args: list[bytes]) -> bytes:
    """QUIT."""
    client.link.end()
    return OK


def reset(client: Client, store: Store, args: list[bytes]) -> bytes:
    client.reset()
    return b"+RESET\r\n"


def use(client: Client, store: Store, args: list[bytes]) -> bytes:
    ns = args[1].decode("utf-8", "replace")
    check_namespace(ns)
    client.ns = ns
    return OK


def select(client: Client, store: Store, args: list[bytes]) -> bytes:
    number = whole(args[1])
    if not 0 <= number < NAMESPACES:
        return error("DB index is out of range")
    client.ns = f"db{number}" if number else DEFAULT_NAMESPACE
    return OK


def auth(client: Client, store: Store, args: list[bytes]) -> bytes:
    return NO_PASSWORD


def hello(client: Client, store: Store, args: list[bytes]) -> bytes:
    protocol = client.protocol
    name = client.name
    if len(args) > 1:
        if args[1] not in (b"2", b"3"):
            return error("unsupported protocol version", "NOPROTO")
        protocol = int(args[1])
    at = 2
    while at < len(args):
        option = args[at].upper()
        if option == b"AUTH" and at + 2 < len(args):
            return NO_PASSWORD
        if option != b"SETNAME" or at + 1 == len(args):
            return error(f"Syntax error in HELLO option '{shown(args[at])}'")
        name = args[at + 1]
        if not _is_name(name):
            return BAD_NAME
        at += 2
    client.speak(protocol)
    client.name = name
    return mapping(
        [
            bulk(b"server"), bulk(b"flo"),
            bulk(b"version"), bulk(REDIS_VERSION),
            bulk(b"proto"), integer(protocol),
            bulk(b"id"), integer(client.id),
            bulk(b"mode"), bulk(b"standalone"),
            bulk(b"role"), bulk(b"master"),
            bulk(b"modules"), EMPTY_ARRAY,
        ],
        protocol,
    )  # fmt: skip


# -- CLIENT

BAD_NAME: Final = error("Client names cannot contain spaces, newlines or special characters.")


def client_command(client: Client, store: Store, args: list[bytes]) -> bytes:
    what = args[1].upper()
    count = len(args)
    if what == b"ID" and count == 2:
        return integer(client.id)
    if what == b"GETNAME" and count == 2:
        return bulk(client.name) if client.name else client.nil
    if what == b"SETNAME" and count == 3:
        if not _is_name(args[2]):
            return BAD_NAME
        client.name = args[2]
        return OK
    if what == b"SETINFO" and count == 4:
        return _set_info(client, args[2].lower(), args[3])
    if what == b"INFO" and count == 2:
        return bulk(_line(client))
    if what == b"LIST":
        return bulk(b"".join([_line(one) for one in _clients(client)]))
    if what in (b"NO-EVICT", b"NO-TOUCH") and count == 3:
        return OK
    return unknown_subcommand("client", args[1])


def _set_info(client: Client, attribute: bytes, value: bytes) -> bytes:
    if not _is_name(value):
        return error(f"{shown(attribute)} cannot contain spaces, newlines or special characters.")
    if attribute == b"lib-name":
        client.library = value
    elif attribute == b"lib-ver":
        client.library_version = value
    else:
        return error(f"Unrecognized option '{shown(attribute)}'")
    return OK


def _is_name(text: bytes) -> bool:
    return len(text) <= NAME_BYTES and all(33 <= byte <= 126 for byte in text)


def _clients(client: Client) -> list[Client]:
    clients = client.shared.clients
    return [clients[number] for number in sorted(clients)]


def _line(client: Client) -> bytes:
    host, port = client.link.local
    text = (
        f"id={client.id} addr={client.link.peer} laddr={host}:{port} name={client.name.decode()} "
        f"ns={client.ns} resp={client.protocol} lib-name={client.library.decode()} "
        f"lib-ver={client.library_version.decode()}\n"
    )
    return text.encode()


def unknown_subcommand(command: str, given: bytes) -> bytes:
    return error(f"unknown subcommand or wrong number of arguments for '{shown(given)}'. Try {command.upper()} HELP.")


# -- what the server says of itself


def config(client: Client, store: Store, args: list[bytes]) -> bytes:
    """There is nothing to configure from here: no pattern finds a setting."""
    if args[1].upper() != b"GET":
        return error("only CONFIG GET is supported; settings are in the server's configuration")
    return wrong_count("config|get") if len(args) < 3 else mapping([], client.protocol)


def info(client: Client, store: Store, args: list[bytes]) -> bytes:
    wanted = {section.lower() for section in args[1:]} - {b"default", b"all", b"everything"}
    keys = store.key_count(client.ns)
    connections = client.link.connections
    uptime_ms = connections.clock.monotonic_ms() - connections.opened_ms
    sections = {
        b"server": [
            f"redis_version:{REDIS_VERSION.decode()}",
            f"flo_version:{VERSION}",
            "redis_mode:standalone",
            f"process_id:{os.getpid()}",
            f"tcp_port:{client.link.local[1]}",
            f"uptime_in_seconds:{uptime_ms // 1_000}",
        ],
        b"clients": [f"connected_clients:{len(connections.links)}"],
        b"replication": ["role:master", "connected_slaves:0"],
        b"cluster": ["cluster_enabled:0"],
        b"keyspace": [f"db0:keys={keys},expires=0,avg_ttl=0"] if keys else [],
    }
    texts = [
        "\r\n".join([f"# {name.decode().capitalize()}", *lines, ""])
        for name, lines in sections.items()
        if not wanted or name in wanted
    ]
    return bulk("\r\n".join(texts).encode())


def time(client: Client, store: Store, args: list[bytes]) -> bytes:
    seconds, ms = divmod(store.now, 1_000)
    return bulks([b"%d" % seconds, b"%d" % (ms * 1_000)])


def cluster(client: Client, store: Store, args: list[bytes]) -> bytes:
    """One node that owns all slots."""
    what = args[1].upper()
    host, port = client.link.local
    address = host.encode()
    if what == b"KEYSLOT" and len(args) == 3:
        return integer(slot(args[2]))
    if what == b"MYID":
        return bulk(NODE_ID)
    if what == b"INFO":
        return bulk(CLUSTER_INFO)
    if what == b"NODES":
        return bulk(b"%b %b:%d@0 myself,master - 0 0 1 connected 0-16383\n" % (NODE_ID, address, port))
    if what == b"SLOTS":
        node = array([bulk(address), integer(port), bulk(NODE_ID)])
        return array([array([ZERO, integer(SLOTS - 1), node])])
    if what == b"SHARDS":
        node = array([
            bulk(b"id"), bulk(NODE_ID), bulk(b"port"), integer(port), bulk(b"ip"), bulk(address),
            bulk(b"endpoint"), bulk(address), bulk(b"role"), bulk(b"master"),
            bulk(b"replication-offset"), ZERO, bulk(b"health"), bulk(b"online"),
        ])  # fmt: skip
        slots = array([ZERO, integer(SLOTS - 1)])
        return array([array([bulk(b"slots"), slots, bulk(b"nodes"), array([node])])])
    return unknown_subcommand("cluster", args[1])


CLUSTER_INFO: Final = (
    b"cluster_enabled:0\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n"
    b"cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n"
    b"cluster_current_epoch:1\r\ncluster_my_epoch:1\r\n"
)


def slot(key: bytes) -> int:
    """The slot that clients of a Redis cluster compute: of what stands in the first `{…}`, if anything does."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def fine(client: Client, store: Store, args: list[bytes]) -> bytes:
    """What asks for nothing that would differ here: READONLY, READWRITE."""
    return OK
