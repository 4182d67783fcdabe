"""The bodies of requests and responses. The OpenAPI document is generated from them."""
