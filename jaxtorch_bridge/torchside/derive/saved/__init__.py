"""A captured forward that saves residuals, and its backward."""
