"""What an op is, what it runs, and how its results get into buffers."""
