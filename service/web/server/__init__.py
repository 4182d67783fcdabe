"""gunicorn's worker and its limits on connections and slow requests."""
