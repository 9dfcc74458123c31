"""Live sockets, one adapter a wire protocol: it moves frames between a connection and the protocol's state machine."""
