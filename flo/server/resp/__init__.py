"""The Redis protocol on the client port: requests, replies and the commands behind them (spec/redis.md)."""
