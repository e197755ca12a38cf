"""What a node says and hears, over ZeroMQ."""
