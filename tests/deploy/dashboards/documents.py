"""The dashboards as files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tests.deploy.dashboards.owner import OWNER
from tests.deploy.dashboards.panels import Variable, dashboard
from tests.deploy.dashboards.queue import QUEUE
from tests.deploy.dashboards.service import SERVICE
from tests.deploy.dashboards.storage import STORAGE
from tests.deploy.dashboards.workers import WORKERS

FOLDER: Final = Path(__file__).parents[3] / "deploy" / "grafana"


@functools.cache
def documents() -> dict[str, str]:
    """The text of each file, by name."""
    owner = Variable("owner", "Owner", "tapeline_owner_running_jobs")
    built = {
        "service": dashboard("service", "Service", "Health, jobs and requests.", SERVICE),
        "queue": dashboard("queue", "Queue", "Why jobs wait, slots wanted and available, and fairness.", QUEUE),
        "workers": dashboard("workers", "Workers", "Workers, their work and their faults.", WORKERS),
        "storage": dashboard("storage", "Storage", "Space, growth and faults of the store.", STORAGE),
        "owner": dashboard("owner", "Owner", "What one owner uses. Needs a key of an admin.", OWNER, owner),
    }
    return {
        f"{name}.json": json.dumps(document, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, document in built.items()
    }
