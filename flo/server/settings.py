"""Everything that can be set about a server: section by section, with defaults, bounds and explanations.

The file of defaults and docs/configuration.md are made from this (flo.server.config).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

MIB: Final = 1024 * 1024
DAY_MS: Final = 86_400_000
ANY: Final = 2**53
DURABILITY: Final = ("sync", "async_flush", "ephemeral")
DURABILITY_ALIASES: Final = {"async": "async_flush", "none": "ephemeral"}
LEVELS: Final = ("debug", "info", "warn", "error")
FORMATS: Final = ("text", "json")


@dataclass(frozen=True)
class Spec:
    """What is known of one setting besides its default."""

    text: str
    least: int = 0
    most: int = ANY
    choices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    flag: str = ""
    environment: str = ""
    only_default: bool = False  # what another value asks for is not built yet
    secret: bool = False


def setting(default: Any, text: str, **details: Any) -> Any:
    return field(default=default, metadata={"spec": Spec(text, **details)})


def port(default: int, text: str, *, least: int = 0, **details: Any) -> Any:
    return setting(default, text, least=least, most=65_535, **details)


@dataclass(frozen=True)
class Server:
    port: int = port(
        9000, "Port for clients: wire protocol, Redis protocol, WebSocket.", least=1, flag="--port",
        environment="FLO_PORT",
    )  # fmt: skip
    bind: str = setting(
        "127.0.0.1", "Address that clients connect to; 0.0.0.0 is every address of the machine.", flag="--bind",
        environment="FLO_LISTEN_ADDR",
    )  # fmt: skip
    data_dir: str = setting(
        "~/.flo/data", "Where everything is kept.", flag="--data-dir", environment="FLO_DATA_DIR"
    )  # fmt: skip
    shards: int = setting(
        0, "Parts of the data directory; 0: as it was made, one for a new one, which is what this release can make.",
        most=256, flag="--shards", environment="FLO_SHARD_COUNT",
    )  # fmt: skip
    partition_count: int = setting(
        0, "Slots that keys are placed in; 0: as the directory was made, else 4096 or 32 for each shard.",
        most=16_384, flag="--partitions",
    )  # fmt: skip


@dataclass(frozen=True)
class Storage:
    durability: str = setting(
        "sync", "When a write is acknowledged: on stable storage; handed to the system, which has it on stable storage "
        "about a millisecond later; never stored.",
        choices=DURABILITY, aliases=DURABILITY_ALIASES, flag="--durability",
    )  # fmt: skip
    hot_buffer_capacity: int = setting(64 * MIB, "Bytes of memory for the newest payloads of streams.")
    hot_flush_seconds: int = setting(
        300, "Accepted for files of other systems: everything is in the log's files at once.", most=86_400
    )
    max_hot_entries: int = setting(0, "Payloads in that memory; 0: bounded by its bytes alone.", only_default=True)
    max_local_segments: int = setting(
        100, "Files of the log that stay on this disk once there is cold storage.", least=1, most=1_000_000
    )
    enable_wal_truncation: bool = setting(
        True, "Whether the log that a snapshot has made needless is removed.", only_default=True
    )
    memory_budget: int = setting(
        2048 * MIB, "Bytes of memory for keys, queues and streams; above 85 % of it growing writes are refused.",
        least=8 * MIB,
    )  # fmt: skip


@dataclass(frozen=True)
class Queue:
    max_attempts: int = setting(
        5, "Deliveries of a message before it goes to the dead-letter queue.", least=1, most=1_000_000
    )
    dlq_capacity: int = setting(
        10_000, "Messages in a queue's dead-letter queue; above it the oldest goes.", least=1, most=10_000_000
    )


@dataclass(frozen=True)
class BackgroundTasks:
    namespace_deletion_interval_ms: int = setting(
        5_000, "Accepted for files of other systems: namespaces are deleted at once.", least=1, most=DAY_MS
    )


@dataclass(frozen=True)
class Kv:
    expose_internal_keys: bool = setting(False, "Whether keys such as `_sys:…` can be read and written by clients.")


@dataclass(frozen=True)
class Logging:
    level: str = setting(
        "info", "The least important events that are logged.", choices=LEVELS, aliases={"warning": "warn"},
        flag="--log-level", environment="FLO_LOG_LEVEL",
    )  # fmt: skip
    format: str = setting(
        "text", "Lines for people, or JSON objects for programs.", choices=FORMATS, flag="--log-format",
        environment="FLO_LOG_FORMAT",
    )  # fmt: skip


@dataclass(frozen=True)
class Auth:
    enabled: bool = setting(False, "Whether clients have to say who they are.", only_default=True)
    jwt_secret: str = setting("", "Secret of tokens signed with HS256.", secret=True)
    jwks_url: str = setting("", "Where the keys of tokens signed with RS256 or ES256 are published.")


@dataclass(frozen=True)
class WebSocket:
    rate_limit_requests: int = setting(
        1_000, "Requests of one connection within the window; 0: any number.", most=10_000_000
    )
    rate_limit_window_ms: int = setting(1_000, "The window, in milliseconds.", least=1, most=DAY_MS)
    ping_interval_ms: int = setting(30_000, "Between two pings to a quiet connection; 0: none.", most=DAY_MS)
    pong_timeout_ms: int = setting(10_000, "For the answer, before the connection is closed.", least=1, most=DAY_MS)


@dataclass(frozen=True)
class Metrics:
    enabled: bool = setting(True, "Whether there is a port for metrics.", flag="--no-metrics")
    port: int = port(
        0, "Port of `/metrics`; 0: the client port + 1.", flag="--metrics-port", environment="FLO_METRICS_PORT"
    )  # fmt: skip
    bind: str = setting("127.0.0.1", "Its address.", environment="FLO_METRICS_ADDR")


@dataclass(frozen=True)
class Dashboard:
    enabled: bool = setting(True, "Whether there is a port for `/health` and the dashboard.", flag="--no-dashboard")
    port: int = port(
        0, "That port; 0: the client port + 2.", flag="--dashboard-port", environment="FLO_DASHBOARD_PORT"
    )  # fmt: skip
    bind: str = setting("127.0.0.1", "Its address.")
    cors_origins: tuple[str, ...] = setting((), "Origins of other sites whose pages may use the API.")
    hosts: tuple[str, ...] = setting((), "Names of this machine that browsers may use, besides localhost.")


@dataclass(frozen=True)
class Cluster:
    enabled: bool = setting(False, "Whether several nodes keep one log.", only_default=True)
    node_id: int = setting(0, "This node's number; 0: chosen.", most=2**32 - 1, environment="FLO_NODE_ID")
    raft_port: int = port(0, "Port for other nodes; 0: the client port + 500.")
    seeds: tuple[str, ...] = setting(
        (), "`host:port` of other nodes, by their ports for nodes.", environment="FLO_CLUSTER_SEEDS"
    )
    secret: str = setting(
        "", "Shared by all nodes: see `flo server secret`.", secret=True, environment="FLO_CLUSTER_SECRET"
    )
    secret_file: str = setting("", "A file of mode 600 that holds the secret.")
    replication_factor: int = setting(3, "Nodes that hold each entry of the log.", least=1, most=9)
    failover_timeout_ms: int = setting(1_500, "Silence after which a leader is replaced.", least=100, most=DAY_MS)
    election_timeout_min_ms: int = setting(150, "The shortest wait for an election.", least=1, most=DAY_MS)
    election_timeout_max_ms: int = setting(300, "The longest.", least=1, most=DAY_MS)
    heartbeat_interval_ms: int = setting(50, "Between two signs of life of a leader.", least=1, most=DAY_MS)


@dataclass(frozen=True)
class ColdFile:
    base_path: str = setting("", "A folder.")
    create_dirs: bool = setting(True, "Whether it is made when it is missing.")
    sync_on_write: bool = setting(True, "Whether a copy is on stable storage before the original goes.")


@dataclass(frozen=True)
class ColdS3:
    bucket: str = setting("", "The bucket; credentials come from the environment.")
    region: str = setting("us-east-1", "Its region.")
    endpoint: str = setting("", "The address of another service that speaks the protocol.")
    use_path_style: bool = setting(False, "Whether the bucket stands in the path, not in the host name.")
    use_tls: bool = setting(True, "Whether connections are encrypted.")


@dataclass(frozen=True)
class ColdStorage:
    provider: str = setting(
        "none", "Where old files of the log go.", choices=("none", "file", "s3"), only_default=True
    )  # fmt: skip
    upload_workers: int = setting(2, "Copies that are made at a time.", least=1, most=64)
    restore_workers: int = setting(4, "Copies that are fetched at a time.", least=1, most=64)
    verify_checksums: bool = setting(True, "Whether what is fetched is checked.")
    compression_enabled: bool = setting(True, "Whether copies are compressed.")
    hot_retention_days: int = setting(7, "Days that a file stays on this disk.", most=36_500)
    file: ColdFile = field(default_factory=ColdFile)
    s3: ColdS3 = field(default_factory=ColdS3)


@dataclass(frozen=True)
class Settings:
    server: Server = field(default_factory=Server)
    storage: Storage = field(default_factory=Storage)
    queue: Queue = field(default_factory=Queue)
    background_tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    kv: Kv = field(default_factory=Kv)
    logging: Logging = field(default_factory=Logging)
    auth: Auth = field(default_factory=Auth)
    websocket: WebSocket = field(default_factory=WebSocket)
    metrics: Metrics = field(default_factory=Metrics)
    dashboard: Dashboard = field(default_factory=Dashboard)
    cluster: Cluster = field(default_factory=Cluster)
    cold_storage: ColdStorage = field(default_factory=ColdStorage)


@dataclass(frozen=True)
class Switch:
    """One setting, by its name: `server.port`."""

    name: str
    type: type[Any]  # int, bool, str, or tuple for a list of texts
    default: Any
    spec: Spec

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def flag(self) -> str:
        return self.spec.flag

    @property
    def environment(self) -> str:
        return self.spec.environment


@cache
def switches() -> tuple[Switch, ...]:
    """All settings, in the order of the file."""
    return tuple(_switches(Settings, ""))


def spec_of(each: dataclasses.Field[Any]) -> Spec | None:
    """None for a section."""
    spec = each.metadata.get("spec")
    assert spec is None or isinstance(spec, Spec)
    return spec


def _switches(kind: type[Any], section: str) -> Iterator[Switch]:
    for each in dataclasses.fields(kind):
        name = f"{section}.{each.name}" if section else each.name
        spec = spec_of(each)
        if spec is not None:
            yield Switch(name, type(each.default), each.default, spec)
        else:
            assert each.default_factory is not dataclasses.MISSING
            yield from _switches(type(each.default_factory()), name)
