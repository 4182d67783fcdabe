"""Use cases that the API, the page and the CLI share. No Flask."""
