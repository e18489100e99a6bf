"""Scores that were computed before: in memory, and in a file that outlives the process."""
