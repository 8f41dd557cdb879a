"""Primitives, their rules, and the lowering to the FFI call. No torch here."""
