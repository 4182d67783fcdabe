from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

from service.errors import SettingsError
from service.runtime.settings import Settings

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"


def read(**environ: str) -> Settings:
    return Settings.from_env({"TAPELINE_HOME": "/tmp/home", **environ}, cores=3)


def test_every_setting_is_optional() -> None:
    settings = read()
    assert settings.database_url == "sqlite:////tmp/home/tapeline.db"
    assert settings.broker_url is None
    assert (settings.host, settings.port, settings.workers, settings.lease_s) == ("127.0.0.1", 8000, 3, 15)
    assert settings.artifacts == Path("/tmp/home/artifacts")


def test_settings_round_trip_through_the_environment() -> None:
    settings = read(
        TAPELINE_DATABASE_URL="postgresql+psycopg://u:p@db/tapeline",
        TAPELINE_BROKER_URL="redis://broker",
        TAPELINE_ALLOWED_HOSTS="a.example, b.example",
        TAPELINE_PORTABLE_BITS="1",
        TAPELINE_LEASE_S="7.5",
        TAPELINE_KEEP_AUDIT_DAYS="365",
        TAPELINE_WORKER_NAME="gpu-room-2",
    )
    assert Settings.from_env(settings.to_env(), cores=1) == settings


def test_passwords_are_read_from_files(tmp_path: Path) -> None:
    database, broker = tmp_path / "database", tmp_path / "broker"
    database.write_text("a/b@c:d\n")
    broker.write_text("e%f#g")
    settings = read(
        TAPELINE_DATABASE_URL="postgresql+psycopg://user:old@db:5432/tapeline?sslmode=verify-full",
        TAPELINE_DATABASE_PASSWORD_FILE=str(database),
        TAPELINE_BROKER_URL="rediss://broker:6379/0",
        TAPELINE_BROKER_PASSWORD_FILE=str(broker),
    )
    url = make_url(settings.database_url)
    assert (url.username, url.password, url.host, url.port) == ("user", "a/b@c:d", "db", 5432)
    assert (url.database, url.query) == ("tapeline", {"sslmode": "verify-full"})
    assert settings.broker_url == "rediss://:e%25f%23g@broker:6379/0?ssl_cert_reqs=required"
    assert Settings.from_env(settings.to_env(), cores=1) == settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://broker", "rediss://broker?ssl_cert_reqs=required"),
        ("rediss://broker/0?ssl_ca_certs=/a/b", "rediss://broker/0?ssl_ca_certs=%2Fa%2Fb&ssl_cert_reqs=required"),
        ("rediss://broker/0?ssl_cert_reqs=none", "rediss://broker/0?ssl_cert_reqs=none"),
        ("redis://broker/0", "redis://broker/0"),
    ],
)
def test_the_brokers_certificate_is_verified_unless_the_url_disables_it(url: str, expected: str) -> None:
    assert read(TAPELINE_BROKER_URL=url).broker_url == expected


def test_a_password_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError) as caught:
        read(
            TAPELINE_DATABASE_URL="postgresql+psycopg://user@db/tapeline",
            TAPELINE_DATABASE_PASSWORD_FILE=str(tmp_path / "missing"),
            TAPELINE_BROKER_URL="redis://broker",
            TAPELINE_BROKER_PASSWORD_FILE=str(tmp_path / "empty"),
        )
    assert f"TAPELINE_DATABASE_PASSWORD_FILE: cannot read {tmp_path}/missing: No such file" in str(caught.value)
    assert f"TAPELINE_BROKER_PASSWORD_FILE: {tmp_path}/empty is empty" in str(caught.value)


def test_a_relative_database_path_is_made_absolute() -> None:
    assert read(TAPELINE_DATABASE_URL="sqlite:///jobs.db").database_url == f"sqlite:///{Path('jobs.db').absolute()}"


def test_all_invalid_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read(
            TAPELINE_PORT="eighty",
            TAPELINE_WORKERS="0",
            TAPELINE_AUTH="nobody",
            TAPELINE_DATABASE_URL="mysql://x",
            TAPELINE_BROKER_URL="amqp://x",
            TAPELINE_LEASE_S="nan",
            TAPELINE_PORTABLE_BITS="yes",
            TAPELINE_API_KEYS="long-enough-to-guess-for-ever,x",
            TAPELINE_KEEP_AUDIT_DAYS="0.5",
            TAPELINE_WORKER_NAME="two words",
            TAPELINE_WROKERS="2",
        )
    for name in [
        "PORT",
        "WORKERS",
        "AUTH",
        "DATABASE_URL",
        "BROKER_URL",
        "LEASE_S",
        "PORTABLE_BITS",
        "API_KEYS",
        "KEEP_AUDIT_DAYS",
        "WORKER_NAME",
        "WROKERS",
    ]:
        assert f"TAPELINE_{name}" in str(caught.value)


def test_a_service_beyond_loopback_requires_keys() -> None:
    assert read(TAPELINE_HOST="0.0.0.0").keys_required
    assert not read(TAPELINE_HOST="0.0.0.0", TAPELINE_AUTH="local").keys_required
    assert not read(TAPELINE_HOST="::1").keys_required
    assert read(TAPELINE_AUTH="keys").keys_required


def test_the_configuration_document_lists_each_variable_of_compose() -> None:
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("*.yml")]
    used = {name for path in files for name in re.findall(r"(?<!\$)\$\{([A-Z_]+)", path.read_text())} - {"LIKE_THIS"}
    assert len(used) > 20
    assert sorted(used - set(re.findall(r"`([A-Z_]+)`", DOCUMENT.read_text()))) == []
