"""Connectors: what performs the actions that reach outside, and how to write one.

from flo.connectors import Connector, ConnectorError, Job
"""

from flo.connectors.contract import Connector, ConnectorContext, ConnectorError, Job, SecretSource
from flo.connectors.host import LocalHost
from flo.connectors.registry import Registry
from flo.connectors.secrets import SecretStore

__all__ = [
    "Connector",
    "ConnectorContext",
    "ConnectorError",
    "Job",
    "LocalHost",
    "Registry",
    "SecretSource",
    "SecretStore",
]
