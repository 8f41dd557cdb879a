"""Batched forms of ops."""
