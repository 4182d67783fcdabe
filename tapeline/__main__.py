"""``python -m tapeline``: the ``tapeline`` command, which comes with the server."""

import sys

try:
    from service.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: the command comes with the server; install it with: uv tool install tapeline, or pipx")

main(prog_name="tapeline")
