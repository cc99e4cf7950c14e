"""Models: loaded, pulled, saved, and those behind an endpoint."""
