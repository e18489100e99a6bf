"""The version of the wire contract.

The contract grows by adding optional fields; a change that would break a reader of v1 becomes v2 under a new
path. See proto/README.md for the rule.
"""

API_VERSION = "v1"
"""The path prefix of every native endpoint."""

CONTRACT_VERSION = "1.0.0"
"""Semantic version of the contract: minor for added optional fields, patch for wording."""
