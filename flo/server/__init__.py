"""The server's surfaces: connections, the wire protocol, RESP and WebSocket on one port, health and metrics."""
