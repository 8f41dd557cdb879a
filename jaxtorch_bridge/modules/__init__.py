"""A torch module as a pure function of its parameters and buffers."""
