"""The server's configuration: command line, then environment, then flo.toml, then defaults.

What can be set stands in flo.server.settings. A setting that is unknown, of a wrong type or out of its range stops
the start with a message that names it; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flo.api.errors import FloError
from flo.server.settings import ANY, DURABILITY, Settings, Switch, spec_of, switches

WEAKEST_FIRST: Final = ("ephemeral", "async_flush", "sync")
PORT_MAX: Final = 65_535
METRICS_PORT_OFFSET: Final = 1
DASHBOARD_PORT_OFFSET: Final = 2
RAFT_PORT_OFFSET: Final = 500
NOT_BUILT: Final = "not supported by this release yet"


class BadConfiguration(FloError):
    """A setting cannot be used. `flag`: it was given on the command line."""

    code = "bad_configuration"

    def __init__(self, message: str, *, hint: str = "", flag: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.flag = flag


@dataclass(frozen=True)
class Configuration:
    """What the server runs with. `warnings`: what its operator should be told."""

    settings: Settings
    warnings: tuple[str, ...] = ()

    @property
    def metrics_port(self) -> int:
        """0 when metrics are off."""
        metrics = self.settings.metrics
        return (metrics.port or self.settings.server.port + METRICS_PORT_OFFSET) if metrics.enabled else 0

    @property
    def dashboard_port(self) -> int:
        """0 when the dashboard is off."""
        dashboard = self.settings.dashboard
        return (dashboard.port or self.settings.server.port + DASHBOARD_PORT_OFFSET) if dashboard.enabled else 0


def load(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    path: str | None = None,
) -> Configuration:
    """`flags` by the names of settings ("server.port"), None for those not given; `path` of a flo.toml. Raises
    BadConfiguration."""
    known = {switch.name: switch for switch in switches()}
    given = _file(path, known) if path is not None else {}
    file_durability = given.get("storage.durability")
    for switch in known.values():
        text = (environment or {}).get(switch.environment, "") if switch.environment else ""
        if text:
            given[switch.name] = _checked(switch, _from_text(switch, text), switch.environment)
    for name, value in (flags or {}).items():
        if value is not None:
            switch = known[name]
            given[name] = _checked(switch, value, switch.flag, flag=True)
    settings = _build(Settings, "", given)
    warnings = _check_together(settings)
    durability = settings.storage.durability
    if file_durability is not None and _rank(durability) < _rank(file_durability):
        warnings.append(f"durability {durability} is weaker than {file_durability}, which {path} asks for")
    return Configuration(settings, tuple(warnings))


def _rank(durability: str) -> int:
    return WEAKEST_FIRST.index(durability)


def _file(path: str, known: Mapping[str, Switch]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise BadConfiguration(f"{path}: there is no such file", hint="flo server start --default-config") from None
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{path} is no TOML: {error}") from None
    found: dict[str, Any] = {}
    sections = {name.rpartition(".")[0] for name in known}
    _collect(path, content, "", sections, known, found)
    return found


def _collect(
    path: str,
    table: Mapping[str, Any],
    section: str,
    sections: set[str],
    known: Mapping[str, Switch],
    found: dict[str, Any],
) -> None:
    for key, value in table.items():
        name = f"{section}.{key}" if section else key
        if isinstance(value, dict) and name in sections:
            _collect(path, value, name, sections, known, found)
        elif name in known:
            found[name] = _checked(known[name], value, f"{path}: {name}")
        elif section:
            raise BadConfiguration(f"{path}: {name}: there is no such setting{_close(name, known)}")
        elif isinstance(value, dict):
            raise BadConfiguration(f"{path}: [{name}]: there is no such section{_close(name, sections)}")
        else:
            raise BadConfiguration(f"{path}: {name}: settings stand in a section, such as [server]")


def _close(name: str, known: Any) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"; {close[0]} is meant, perhaps" if close else ""


def _from_text(switch: Switch, text: str) -> object:
    """The value that this text of the environment stands for, or the text if it stands for none."""
    if switch.type is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if switch.type is int:
        try:
            return int(text)
        except ValueError:
            return text
    if switch.type is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _checked(switch: Switch, value: object, where: str, *, flag: bool = False) -> Any:
    """The value as Settings hold it. Raises BadConfiguration, naming `where` it came from."""
    spec = switch.spec
    wrong = ""
    if switch.type is tuple:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = tuple(value)
        else:
            wrong = "is no list of texts"
    elif type(value) is not switch.type:
        wrong = {int: "is no whole number", bool: "is neither true nor false", str: "is no text"}[switch.type]
    elif isinstance(value, int) and not isinstance(value, bool):
        if not spec.least <= value <= spec.most:
            wrong = f"is not in {spec.least}..{spec.most}"
    elif isinstance(value, str) and spec.choices:
        value = spec.aliases.get(value, value)
        if value not in spec.choices:
            wrong = f"is none of {', '.join(choice or 'none' for choice in spec.choices)}"
    elif value == "" and switch.default != "":
        wrong = "is empty"
    if not wrong and spec.only_default and value != switch.default:
        wrong = f"is {NOT_BUILT}"
    if wrong:
        shown = "it" if spec.secret else _shown(value)
        raise BadConfiguration(f"{where}: {shown} {wrong}", flag=flag)
    return value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def _build(kind: type[Any], section: str, given: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for each in dataclasses.fields(kind):
        name = f"{section}.{each.name}" if section else each.name
        if spec_of(each) is None:
            assert each.default_factory is not dataclasses.MISSING
            values[each.name] = _build(type(each.default_factory()), name, given)
        elif name in given:
            values[each.name] = given[name]
    return kind(**values)


def _check_together(settings: Settings) -> list[str]:
    """What no setting shows by itself; returns warnings. Raises BadConfiguration."""
    cluster = settings.cluster
    if cluster.election_timeout_min_ms > cluster.election_timeout_max_ms:
        raise BadConfiguration(
            f"cluster.election_timeout_min_ms: {cluster.election_timeout_min_ms} is over "
            f"cluster.election_timeout_max_ms, {cluster.election_timeout_max_ms}"
        )
    if cluster.heartbeat_interval_ms >= cluster.election_timeout_min_ms:
        raise BadConfiguration(
            f"cluster.heartbeat_interval_ms: {cluster.heartbeat_interval_ms} is not below "
            f"cluster.election_timeout_min_ms, {cluster.election_timeout_min_ms}"
        )
    server = settings.server
    if server.partition_count and server.partition_count < server.shards:
        raise BadConfiguration(
            f"server.partition_count: {server.partition_count} are fewer than the {server.shards} shards"
        )
    whole = Configuration(settings)
    used: dict[int, str] = {}
    listeners = [("server.port", server.port), ("metrics.port", whole.metrics_port)]
    listeners.append(("dashboard.port", whole.dashboard_port))
    if cluster.enabled:
        listeners.append(("cluster.raft_port", cluster.raft_port or server.port + RAFT_PORT_OFFSET))
    for name, port in listeners:
        if port > PORT_MAX:
            raise BadConfiguration(f"{name}: {port} is no port; set it, or choose a lower server.port")
        if port and port in used:
            raise BadConfiguration(f"{name}: {port} is also {used[port]}")
        used[port] = name
    warnings = []
    for name, bind in (("server.bind", server.bind), ("dashboard.bind", settings.dashboard.bind)):
        if not is_loopback(bind):
            warnings.append(
                f"{name} is {bind}: whoever reaches this address can read and write everything, for this release "
                "has no authentication"
            )
    return warnings


def is_loopback(bind: str) -> bool:
    """Whether only this machine reaches the address."""
    from ipaddress import ip_address

    try:
        return ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def default_file() -> str:
    """A flo.toml that says what holds anyway, with every setting explained."""
    from textwrap import wrap

    lines = ["# flo.toml: what `flo server start` runs with. Every setting has its default here;", "# "]
    lines[1] += "flags of the command line and the environment go before this file."
    section = ""
    for switch in switches():
        if switch.section != section:
            section = switch.section
            lines += ["", f"[{section}]"]
        lines += [f"# {line}" for line in wrap(f"{switch.spec.text}{_range(switch)}", 110)]
        unset = switch.type is str and switch.default == ""
        lines.append(f"{'# ' if unset else ''}{switch.key} = {_toml(switch.default)}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """docs/configuration.md."""
    parts = [_HEAD]
    section = ""
    for switch in switches():
        if switch.section != section:
            section = switch.section
            parts.append(f"\n## [{section}]\n\n| key | default | meaning |\n| --- | --- | --- |\n")
        ways = [f"`{way}`" for way in (switch.flag, switch.environment) if way]
        also = f" Also {', '.join(ways)}." if ways else ""
        default = "–" if switch.type is str and switch.default == "" else f"`{_toml(switch.default)}`"
        parts.append(f"| `{switch.key}` | {default} | {switch.spec.text}{_range(switch)}{also} |\n")
    return "".join(parts)


def _range(switch: Switch) -> str:
    spec = switch.spec
    if spec.only_default:
        return f" Anything else is {NOT_BUILT}."
    if spec.choices:
        aliases = "".join(f", `{alias}` for `{name}`" for alias, name in spec.aliases.items())
        return f" One of {', '.join(f'`{choice}`' for choice in spec.choices)}{aliases}."
    if switch.type is int:
        return f" {spec.least} to {spec.most}." if spec.most < ANY else f" At least {spec.least}."
    return ""


def _toml(value: object) -> str:
    import json

    if isinstance(value, tuple):
        return json.dumps(list(value))
    return json.dumps(value)


_HEAD: Final = """\
# Configuration of the server

`flo server start` reads `flo.toml` in its working directory if there is one, or the file that `--config` names. A flag
goes before the environment, the environment before the file, the file before the default. An unknown section or key, a
wrong type or a value out of range stops the start with a message that names it. `flo server start --default-config`
prints a file with all of this.

[Running a server](running-a-server.md) tells what to do with it.
"""

assert set(WEAKEST_FIRST) == set(DURABILITY)

if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
