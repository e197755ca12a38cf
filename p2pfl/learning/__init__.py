"""What a peer computes: tasks, vectors, codecs, algorithms, aggregation. Knows no network."""
