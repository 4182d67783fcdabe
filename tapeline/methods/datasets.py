"""Operations of the API: Datasets. Written by `make client`."""

from __future__ import annotations

from typing import Any

from tapeline.methods.calls import Calls


class Datasets(Calls):
    """Methods of ``Client``."""

    def datasets(self) -> list[dict[str, Any]]:
        """List the available datasets."""
        return self._items("GET", "/datasets")

    def delete_dataset(self, name: str) -> None:
        """Delete an uploaded dataset that no unfinished job uses.

        ``mine`` deletes all of its versions, ``mine@1a2b3c4d`` one. Jobs that were trained on it keep their results and
        their data: they can be forked, reproduced and used for predictions. The files are deleted with the last of
        these jobs.
        """
        self._nothing("DELETE", "/datasets/{name}", {"name": name})

    def dataset_columns(self, name: str) -> dict[str, Any]:
        """Show statistics of the columns of a table."""
        return self._send("GET", "/datasets/{name}/columns", {"name": name})

    def upload_progress(self, upload_id: str) -> dict[str, Any]:
        """Show the progress of an upload that is being received or read.

        Its sender chooses the id and may ask before the first byte has arrived: an upload that has not begun, or has
        ended, is ``absent``.
        """
        return self._send("GET", "/uploads/{upload_id}", {"upload_id": upload_id})
