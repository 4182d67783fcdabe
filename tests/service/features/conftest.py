"""Features are tested with the fixtures of the web process."""

from tests.service.web.conftest import app, client, either_app, make_app, make_worker, serve, submit, worker

__all__ = ["app", "client", "either_app", "make_app", "make_worker", "serve", "submit", "worker"]
