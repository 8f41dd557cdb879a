"""One call that a person asks about, and its plan as plain data."""
