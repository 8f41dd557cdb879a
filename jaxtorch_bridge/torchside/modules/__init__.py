"""Modules as functions of their tensors."""
