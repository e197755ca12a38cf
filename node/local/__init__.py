"""Many real peers on one machine."""
