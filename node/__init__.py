"""One peer on a real machine: its links, its trainer process, its disk, its terminal."""
