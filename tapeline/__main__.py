"""``python -m tapeline``: the ``tapeline`` command."""

from service.cli import main

main(prog_name="tapeline")
