from __future__ import annotations

import math
from collections.abc import Callable

from service.jobs.queries import lookup
from service.storage.database import Database
from tests.service.jobs.epochs import claim, commit


def test_the_last_value_is_that_of_the_last_epoch_with_a_finite_one(
    database: Database, submit: Callable[..., str]
) -> None:
    job_id = submit()
    held = claim(database)
    scores = ({"frechet_distance": 90.5}, {}, {"frechet_distance": 80.25}, {"frechet_distance": math.nan}, {})
    for epoch, score in enumerate(scores, 1):
        commit(database, held, epoch, g_loss=0.1 * epoch, **score)
    with database.read() as session:
        assert lookup.last_value(session, job_id, "frechet_distance", until=5) == (80.25, 3)
        assert lookup.last_value(session, job_id, "frechet_distance", until=2) == (90.5, 1)
        assert lookup.last_value(session, job_id, "g_loss", until=5) == (0.5, 5)
        assert lookup.last_value(session, job_id, "mode_coverage", until=5) is None
