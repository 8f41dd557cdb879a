"""Arguments and results as trees: taken apart, put together, brought to the other side."""
