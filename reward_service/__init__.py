"""A batched HTTP microservice that serves fine-grained reward models."""

__version__ = "0.1.0"
