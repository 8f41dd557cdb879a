"""The ways in which a derivative is found: one file each, all with one protocol."""
