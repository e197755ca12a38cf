"""A node's trainer process, and what passes between the two."""
