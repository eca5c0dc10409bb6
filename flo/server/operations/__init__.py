"""The operations of the wire protocol on a store: what each request does, and the bytes that answer it."""
