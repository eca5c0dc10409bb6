"""The bytes of the Flo wire protocol (dialect D2): frames, options, layouts. No sockets; for server and client."""
