"""Data: the bundled sets, how they are divided among peers, and readers for one's own."""
