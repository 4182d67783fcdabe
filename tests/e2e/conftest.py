"""The whole service with an object store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tests.object_servers import BUCKET, credentials


@pytest.fixture(scope="module")
def in_bucket(seaweedfs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack whose store is a bucket."""
    environ = {"TAPELINE_HOME": str(tmp_path_factory.mktemp("home")), "TAPELINE_PORT": "0"}
    environ |= {"TAPELINE_STORE": f"s3://{BUCKET}/e2e", "TAPELINE_STORE_ENDPOINT": seaweedfs}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in credentials().items():
            patched.setenv(name, value)
        with LocalStack(Settings.from_env(environ, cores=2)) as running:
            yield running
