"""What surrounds every request: access, origin, quotas, errors, headers, content negotiation, logging."""
