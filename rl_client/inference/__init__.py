"""Choosing among sampled texts by the served rewards, without training."""
