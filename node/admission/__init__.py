"""Who may be in the network, on a real machine: papers, doors, and the acts of their holders."""
