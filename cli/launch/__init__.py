"""What ``longlook up`` starts its processes with: the home directory, single processes, Redis, signals."""
