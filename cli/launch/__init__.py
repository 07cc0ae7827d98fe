"""Starting processes for ``longlook up``: the home directory, one process, Redis, signals."""
