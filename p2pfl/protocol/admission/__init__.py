"""Who may be in a network, shown by chains of signatures that lead to its root key."""
