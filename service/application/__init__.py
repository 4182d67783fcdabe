"""Use cases shared by the API, the page and the CLI. They do not depend on Flask."""
