"""Writes deploy/grafana: ``python -m tests.deploy.dashboards``."""

from tests.deploy.dashboards.documents import FOLDER, documents

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
