"""HTTP connections to hosts that others name: resolver, SSRF guard, deadlines."""
