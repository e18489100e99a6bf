"""Which runtime computes a model, and whether its numbers are the model's."""
