"""The reward ledger: every score that was given, in a database, for later evaluation."""
