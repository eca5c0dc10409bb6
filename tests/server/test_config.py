"""The server's configuration: where values come from, what is refused, and what is made of the table."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from flo.server.config import BadConfiguration, default_file, is_loopback, load, reference
from flo.server.settings import Settings, switches
from tests.support.flo_command import ROOT


@pytest.fixture
def toml(tmp_path: Path):
    """Writes a flo.toml and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "flo.toml"
        path.write_text(text)
        return str(path)

    return write


def refusal(*args: object) -> str:
    with pytest.raises(BadConfiguration) as refused:
        load(*args)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_anything_the_defaults_hold():
    loaded = load()

    assert loaded.settings == Settings()
    assert loaded.warnings == ()
    assert (loaded.settings.server.port, loaded.metrics_port, loaded.dashboard_port) == (9000, 9001, 9002)
    assert loaded.settings.storage.durability == "sync"


def test_a_flag_goes_before_the_environment_which_goes_before_the_file(toml):
    path = toml("[server]\nport = 9050\n[logging]\nlevel = 'warn'\n")

    assert load({}, {}, path).settings.server.port == 9050
    assert load({"server.port": None}, {"FLO_PORT": "9100"}, path).settings.server.port == 9100
    both = load({"server.port": 9200}, {"FLO_PORT": "9100"}, path)
    assert both.settings.server.port == 9200
    assert both.settings.logging.level == "warn"


def test_the_file_of_defaults_says_what_holds_anyway(toml):
    loaded = load({}, {}, toml(default_file()))

    assert loaded.settings == Settings()
    assert loaded.warnings == ()


def test_the_file_of_defaults_explains_every_setting():
    text = default_file()
    sections = set(tomllib.loads(text))

    assert sections == {switch.section.partition(".")[0] for switch in switches()}
    for switch in switches():
        assert f"{switch.key} = " in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1", "server.prot: there is no such setting; server.port is meant"),
        ("[servers]\nport = 1", "[servers]: there is no such section"),
        ("port = 1", "port: settings stand in a section"),
        ("[server]\nport = 'x'", "server.port: 'x' is no whole number"),
        ("[server]\nport = true", "server.port: true is no whole number"),
        ("[server]\nport = 70000", "server.port: 70000 is not in 1..65535"),
        ("[server]\nbind = 1", "server.bind: 1 is no text"),
        ("[server]\nbind = ''", "server.bind: '' is empty"),
        ("[server]\nshards = 257", "server.shards: 257 is not in 0..256"),
        ("[server]\nshards = 8\npartition_count = 4", "server.partition_count: 4 are fewer than the 8 shards"),
        ("[metrics]\nenabled = 1", "metrics.enabled: 1 is neither true nor false"),
        ("[storage]\ndurability = 'soon'", "storage.durability: 'soon' is none of sync, async_flush, ephemeral"),
        ("[dashboard]\nhosts = 'a'", "dashboard.hosts: 'a' is no list of texts"),
        ("[cold_storage.s3]\nbuckets = 'a'", "cold_storage.s3.buckets: there is no such setting"),
        ("[auth]\nenabled = true", "auth.enabled: true is not supported by this release yet"),
        ("[cluster]\nenabled = true", "cluster.enabled: true is not supported by this release yet"),
        ("[cold_storage]\nprovider = 's3'", "cold_storage.provider: 's3' is not supported by this release yet"),
        ("[metrics]\nport = 9002", "dashboard.port: 9002 is also metrics.port"),
        ("[server]\nport = 65534", "dashboard.port: 65536 is no port"),
        (
            "[cluster]\nelection_timeout_min_ms = 400",
            "cluster.election_timeout_min_ms: 400 is over cluster.election_timeout_max_ms",
        ),
        ("[cluster]\nheartbeat_interval_ms = 150", "cluster.heartbeat_interval_ms: 150 is not below"),
        ("[cluster]\nfailover_timeout_ms = 99", "cluster.failover_timeout_ms: 99 is not in 100.."),
        ("[server", "is no TOML"),
    ],
)
def test_a_wrong_file_is_refused_naming_what_is_wrong(toml, text, named):
    path = toml(text)

    assert named in refusal({}, {}, path)


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "missing.toml") in refusal({}, {}, str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLO_PORT", "x"),
        ("FLO_PORT", "0"),
        ("FLO_SHARD_COUNT", "257"),
        ("FLO_LOG_LEVEL", "loud"),
        ("FLO_NODE_ID", "-1"),
    ],
)
def test_a_wrong_variable_of_the_environment_is_named(name, value):
    assert refusal({}, {name: value}).startswith(f"{name}: ")


def test_the_environment_sets_what_it_names():
    loaded = load(
        {},
        {
            "FLO_DATA_DIR": "/d", "FLO_LISTEN_ADDR": "::1", "FLO_METRICS_PORT": "7", "FLO_METRICS_ADDR": "127.0.0.2",
            "FLO_CLUSTER_SEEDS": "a:9500, b:9500", "FLO_LOG_FORMAT": "json", "FLO_PORT": "",
        },
    ).settings  # fmt: skip

    assert (loaded.server.data_dir, loaded.server.bind, loaded.server.port) == ("/d", "::1", 9000)
    assert (loaded.metrics.port, loaded.metrics.bind) == (7, "127.0.0.2")
    assert loaded.cluster.seeds == ("a:9500", "b:9500")
    assert loaded.logging.format == "json"


def test_secrets_are_not_repeated_in_messages():
    assert "7" not in refusal({"cluster.secret": 7})


def test_flags_are_refused_by_their_own_names():
    with pytest.raises(BadConfiguration, match=r"^--durability: 'soon'") as refused:
        load({"storage.durability": "soon"})

    assert refused.value.flag


@pytest.mark.parametrize(("alias", "name"), [("async", "async_flush"), ("none", "ephemeral")])
def test_aliases_of_durability(alias, name):
    assert load({"storage.durability": alias}).settings.storage.durability == name


def test_durability_weaker_than_the_file_is_warned_of(toml):
    path = toml("[storage]\ndurability = 'async_flush'\n")

    assert load({"storage.durability": "sync"}, {}, path).warnings == ()
    (warning,) = load({"storage.durability": "ephemeral"}, {}, path).warnings
    assert "ephemeral is weaker than async_flush" in warning


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "flo.example.org"])
def test_an_address_that_others_reach_is_warned_of(bind):
    assert not is_loopback(bind)
    assert any("no authentication" in warning for warning in load({"server.bind": bind}).warnings)


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_an_address_of_this_machine_is_not(bind):
    assert load({"server.bind": bind}).warnings == ()


def test_the_page_is_current():
    """`python -m flo.server.config > docs/configuration.md` makes it."""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference()
