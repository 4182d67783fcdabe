"""The former name of ``workers.scheduler``. Deprecated: removed in 0.3."""

from __future__ import annotations

import sys

from workers.scheduler import main

if __name__ == "__main__":
    sys.exit(main())
