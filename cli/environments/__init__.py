"""Virtual environments that Longlook makes. Needs the standard library alone: a bare Python runs it in a checkout."""
