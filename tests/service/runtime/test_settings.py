from __future__ import annotations

import re
from base64 import b64encode
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


def test_a_folder_as_store_is_the_folder_for_artifacts() -> None:
    settings = read(TAPELINE_STORE="file:///srv/my%20files", TAPELINE_ARTIFACTS="/srv/my files")
    assert (settings.store, settings.artifacts) == ("", Path("/srv/my files"))
    assert Settings.from_env(settings.to_env(), cores=1) == settings


def test_with_a_bucket_the_folder_for_artifacts_is_the_default() -> None:
    settings = read(TAPELINE_STORE="s3://bucket/a/b", TAPELINE_STORE_ENDPOINT="http://127.0.0.1:8333")
    assert (settings.store, settings.artifacts) == ("s3://bucket/a/b", Path("/tmp/home/artifacts"))
    assert Settings.from_env(settings.to_env(), cores=1) == settings


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TAPELINE_STORE": "s3://"}, "TAPELINE_STORE must be file:///folder, s3://"),
        ({"TAPELINE_STORE": "ftp://host/x"}, "TAPELINE_STORE must be"),
        ({"TAPELINE_STORE": "file://relative"}, "TAPELINE_STORE must be"),
        ({"TAPELINE_STORE": "s3://key:secret@bucket"}, "TAPELINE_STORE must be"),
        ({"TAPELINE_STORE": "s3://bucket", "TAPELINE_ARTIFACTS": "/x"}, "remove the one that you do not mean"),
        ({"TAPELINE_STORE": "file:///y", "TAPELINE_ARTIFACTS": "/x"}, "remove the one that you do not mean"),
        ({"TAPELINE_STORE": "s3://bucket", "TAPELINE_STORE_ENDPOINT": "host:1"}, "TAPELINE_STORE_ENDPOINT must be"),
        ({"TAPELINE_STORE": "gs://bucket", "TAPELINE_STORE_ENDPOINT": "http://h:1"}, "only for TAPELINE_STORE=s3"),
        ({"TAPELINE_STORE_REDIRECT": "1"}, "needs an object store: set TAPELINE_STORE=s3://bucket/prefix"),
        ({"TAPELINE_STORE_REDIRECT": "1", "TAPELINE_STORE": "file:///x"}, "needs an object store"),
    ],
)
def test_a_store_that_is_not_clear_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(**environ)


def test_a_bucket_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install obstore"):
        read(TAPELINE_STORE="s3://bucket")


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
        ("rediss://broker/0?ssl_ca_certs=/a/b", "rediss://broker/0?ssl_ca_certs=/a/b&ssl_cert_reqs=required"),
        ("rediss://broker/0?ssl_cert_reqs=none", "rediss://broker/0?ssl_cert_reqs=none"),
        ("redis://broker/0", "redis://broker/0"),
    ],
)
def test_the_brokers_certificate_is_verified_unless_the_url_disables_it(url: str, expected: str) -> None:
    assert read(TAPELINE_BROKER_URL=url).broker_url == expected


PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("is_content", [True, False], ids=["content", "file"])
def test_one_authority_verifies_database_broker_and_store(tmp_path: Path, is_content: bool) -> None:
    (tmp_path / "our.crt").write_text(PEM)
    settings = Settings.from_env(
        {
            "TAPELINE_HOME": str(tmp_path / "home"),
            "TAPELINE_CA": b64encode(PEM.encode()).decode() if is_content else str(tmp_path / "our.crt"),
            "TAPELINE_DATABASE_URL": "postgresql+psycopg://u:p@db/t?connect_timeout=3",
            "TAPELINE_BROKER_URL": "rediss://broker",
        },
        cores=1,
    )
    authority = tmp_path / "home" / "run" / "ca.crt" if is_content else tmp_path / "our.crt"
    assert (settings.ca, authority.read_text()) == (str(authority), PEM)
    query = dict(make_url(settings.database_url).query)
    assert query == {"connect_timeout": "3", "sslmode": "verify-full", "sslrootcert": settings.ca}
    assert settings.broker_url == f"rediss://broker?ssl_cert_reqs=required&ssl_ca_certs={authority}"
    assert Settings.from_env(settings.to_env(), cores=1) == settings


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u@/t?host=/run/pg", "postgresql+psycopg://u@db/t?sslmode=disable&sslrootcert=/x"]
)
def test_an_authority_changes_no_url_of_a_socket_or_with_its_own_parameters(tmp_path: Path, url: str) -> None:
    (tmp_path / "ca.crt").write_text(PEM)
    assert read(TAPELINE_CA=str(tmp_path / "ca.crt"), TAPELINE_DATABASE_URL=url).database_url == url


@pytest.mark.parametrize("value", ["/nowhere/ca.crt", "not base64", b64encode(b"no certificate").decode()])
def test_an_authority_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(
        SettingsError, match="TAPELINE_CA must be the absolute path of a PEM file, or its content in base64: "
    ):
        read(TAPELINE_CA=value)


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
