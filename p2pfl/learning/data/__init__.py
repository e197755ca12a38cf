"""Data: the bundled sets, how they are divided among peers, and readers for one's own."""

from p2pfl.learning.data.own import from_csv, from_npz

__all__ = ["from_csv", "from_npz"]
