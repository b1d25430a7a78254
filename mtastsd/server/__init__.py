"""The sockets on which the daemon is asked."""
