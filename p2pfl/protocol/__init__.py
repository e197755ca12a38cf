"""What a peer decides: bytes and events in, effects out. Knows no tensor, socket, clock or thread."""
