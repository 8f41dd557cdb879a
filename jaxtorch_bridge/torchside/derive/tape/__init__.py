"""Tapes: what torch records of a forward run, and where it waits for the backward run."""
