"""The record of a run and its page, the same for a demo, a node and a simulation."""
