"""What every room uses: settings, errors, ids, logs, metrics, database, failpoints, vault, shares, sandbox."""
