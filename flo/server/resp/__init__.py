"""The Redis protocol on the client port: requests, replies and the commands behind them (spec/redis.md)."""

from flo.server.resp.session import RespSpeaker

__all__ = ["RespSpeaker"]
