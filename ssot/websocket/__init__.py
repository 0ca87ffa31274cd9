"""WebSocket Core: the wire protocol, the node and the client."""
