"""Scoring files of responses with a reward service, and comparing policies by them. Works with no torch installed."""
