"""The Flask app: REST API, event streams and pages."""
