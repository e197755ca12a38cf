"""Who is in a network now, and who of them is alive, as every member finds out for itself."""
