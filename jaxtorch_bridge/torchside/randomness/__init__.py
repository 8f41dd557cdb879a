"""Torch's random generators: seeded, watched, handed on."""
