"""The gunicorn worker, with limits on connections and slow requests."""
