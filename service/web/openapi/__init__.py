"""The OpenAPI document and what endpoints contribute to it."""
