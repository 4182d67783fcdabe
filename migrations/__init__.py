"""Alembic's migrations, and the one function that applies them."""
