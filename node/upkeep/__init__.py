"""What keeps a node up for months, and shows how it is."""
