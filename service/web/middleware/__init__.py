"""Processing of every request and response: access, origin, quotas, errors, headers, content negotiation, logging."""
