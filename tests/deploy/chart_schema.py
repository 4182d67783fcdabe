"""The schema of the chart's values: the settings as declared, and a declaration of the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from service.runtime.settings import SETTINGS, Setting

Schema = dict[str, Any]

BY_THE_CHART: Final = {
    **dict.fromkeys(["DATABASE_URL", "DATABASE_PASSWORD_FILE"], "database"),
    **dict.fromkeys(["BROKER_URL", "BROKER_PASSWORD_FILE"], "broker"),
    **dict.fromkeys(["STORE", "STORE_ENDPOINT", "ARTIFACTS"], "store"),
    **dict.fromkeys(["CACHE", "CACHE_BYTES"], "web.cacheGiB and worker.cacheGiB"),
    **dict.fromkeys(["HOST", "PORT", "HOME"], "the image and the service"),
    **dict.fromkeys(["AUTH", "API_KEYS"], "auth: keys are always required"),
    "DATA": "data",
    "CA": "ca",
    "SIGNING_KEY": "signing",
    "WORKERS": "worker.slots, or the limit of processors",
    "WORKER_NAME": "the name of the node",
}
"""Settings that are not in ``settings``, with the value of the chart that they come from."""


def text(pattern: str = "") -> Schema:
    return {"type": "string"} | ({"pattern": pattern} if pattern else {})


def number(low: int, high: int | None = None) -> Schema:
    return {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})


def fields(**properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def needs(when: str, *names: str, value: Any = True) -> Schema:
    """That texts or lists are not empty if a field has a value."""
    wanted = {name: {"minLength": 1, "minItems": 1} for name in names}
    return {"if": {"properties": {when: {"const": value}}, "required": [when]}, "then": {"properties": wanted}}


def given(name: str) -> Schema:
    return {"properties": {name: {"minLength": 1}}, "required": [name]}


ANY: Final[Schema] = {"type": "object"}
FLAG: Final[Schema] = {"type": "boolean"}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": text()}
NAME: Final = text(r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")
"""Of an object of Kubernetes; may be empty."""
KEY: Final = text(r"^[A-Za-z0-9._-]+$")
ROLE: Final = text(r"^[A-Za-z0-9_]*$")
QUANTITY: Final[Schema] = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
COUNT_OR_SHARE: Final[Schema] = {"type": ["string", "integer"], "minimum": 0, "pattern": "^[0-9]+%$"}
LISTS: Final = list_of(ANY)


def connection(scheme: str, *, is_required: bool) -> Schema:
    """A URL without a password, with the Secret of a password, or a Secret with the whole URL."""
    declared = fields(
        url=text(rf"^({scheme}://([^:@/]*@)?[^@]*)?$") | {"not": {"pattern": "[?&](ssl)?password="}},
        existingSecret=NAME,
        key=KEY,
        passwordSecret=NAME,
        passwordKey=KEY,
    )
    both = {"allOf": [given("url"), given("existingSecret")]}
    either = {"anyOf": [given("url"), given("existingSecret")]}
    return declared | {"not": both} | (either if is_required else {})


DATABASE: Final = r"postgresql\+psycopg"
RESOURCES: Final = fields(
    **{part: {"type": "object", "additionalProperties": QUANTITY} for part in ("requests", "limits")}, claims=LISTS
)
PLACE: Final = {
    "resources": RESOURCES,
    "nodeSelector": TEXTS,
    "tolerations": LISTS,
    "affinity": ANY,
    "priorityClassName": NAME,
    "podAnnotations": TEXTS,
    "podLabels": TEXTS,
}
SPREAD: Final = list_of(
    fields(
        maxSkew=number(1),
        minDomains=number(1),
        topologyKey=text(),
        whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]},
        nodeAffinityPolicy={"enum": ["Honor", "Ignore"]},
        nodeTaintsPolicy={"enum": ["Honor", "Ignore"]},
        matchLabelKeys=list_of(text()),
    )
)
PEERS: Final = list_of(fields(ipBlock=ANY, namespaceSelector=ANY, podSelector=ANY))
EGRESS: Final = fields(to=PEERS, ports=list_of(number(1, 65535)))
EXTRA: Final = EGRESS | {
    "if": {"properties": {"to": {"minItems": 1}}, "required": ["to"]},
    "then": {"properties": {"ports": {"minItems": 1}}, "required": ["ports"]},
}
"""Without ports, there is no rule."""


def of_setting(setting: Setting) -> Schema:
    """The schema of a setting's value."""
    kinds: Mapping[Any, Schema] = {bool: FLAG, int: {"type": "integer"}, float: {"type": "number"}}
    found = {"description": setting.meaning, **kinds.get(setting.kind, text())}
    if setting.kind in (int, float):
        found |= {"minimum": setting.low, "maximum": setting.high}
    if isinstance(choices := getattr(setting.valid, "__self__", None), tuple):
        found |= {"enum": [*choices]}
    return found


VALUES: Final = fields(
    **{"global": ANY},
    nameOverride=text("^([a-z]([a-z0-9-]{0,30}[a-z0-9])?)?$"),
    image=fields(
        repository=text("^[^ @]+$"),
        tag=text("^[A-Za-z0-9_.-]*$"),
        digest=text("^(sha256:[0-9a-f]{64})?$"),
        pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    ),
    imagePullSecrets=list_of(fields(name=NAME)),
    database=connection(DATABASE, is_required=True),
    broker=connection("rediss?", is_required=True),
    store=fields(
        url=text("^((s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._/-]*)?$"),
        endpoint=text("^(https?://.+)?$"),
        existingSecret=NAME,
        existingClaim=NAME,
    )
    | {"oneOf": [given("url"), given("existingClaim")]},
    signing=fields(existingSecret=NAME, key=KEY) | {"allOf": [given("existingSecret")]},
    ca=fields(existingSecret=NAME, key=KEY),
    proxy=fields(url=text("^(https?://[^@/]+/?)?$"), exceptions=list_of(text("^[^, ]+$"))),
    auth=fields(existingSecret=NAME, key=KEY),
    settings=fields(
        **{
            name: of_setting(setting)
            for name, setting in SETTINGS.items()
            if name.removeprefix("TAPELINE_") not in BY_THE_CHART
        }
    ),
    migrations=fields(
        mode={"enum": ["hook", "job", "none"]},
        database=connection(DATABASE, is_required=False),
        grantTo=ROLE,
        grantToWorkers=ROLE,
        grantDemandTo=ROLE,
        deadlineSeconds=number(60),
        resources=RESOURCES,
    ),
    web=fields(
        replicas=number(1),
        cacheGiB=number(1, 65536),
        homeGiB=number(1, 65536),
        # After the pause of 5 s, gunicorn waits 10 s for requests.
        terminationGracePeriodSeconds=number(20),
        service=fields(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, port=number(1, 65535), annotations=TEXTS
        ),
        podDisruptionBudget=fields(enabled=FLAG, minAvailable=COUNT_OR_SHARE),
        **PLACE,
        topologySpreadConstraints=SPREAD,
    ),
    worker=fields(
        replicas=number(0),
        slots=number(1, 1024) | {"type": ["integer", "null"]},
        cacheGiB=number(1, 65536),
        homeGiB=number(1, 65536),
        # Less would kill jobs that could be released.
        terminationGracePeriodSeconds=number(20),
        database=connection(DATABASE, is_required=False),
        podDisruptionBudget=fields(enabled=FLAG, maxUnavailable=COUNT_OR_SHARE),
        **PLACE,
        topologySpreadConstraints=SPREAD,
    ),
    scheduler=fields(homeGiB=number(1, 65536), terminationGracePeriodSeconds=number(5), **PLACE),
    backup=fields(
        enabled=FLAG,
        schedule=text(r"^(@(hourly|daily|midnight|weekly|monthly)|[^ ]+( [^ ]+){4})$"),
        timeZone=text("^[A-Za-z0-9_/+-]*$"),
        keep=number(1, 10000),
        files=FLAG,
        signingKey=FLAG,
        existingClaim=NAME,
        homeGiB=number(1, 65536),
        deadlineSeconds=number(60),
        **PLACE,
    )
    | needs("enabled", "existingClaim"),
    data=fields(existingClaim=NAME),
    serviceAccount=fields(create=FLAG, name=NAME, annotations=TEXTS),
    ingress=fields(enabled=FLAG, className=NAME, host=NAME, tlsSecret=NAME, annotations=TEXTS)
    | needs("enabled", "host"),
    httpRoute=fields(enabled=FLAG, parentRefs=LISTS, hostnames=list_of(text("^[a-z0-9.-]+$")), annotations=TEXTS)
    | needs("enabled", "parentRefs", "hostnames"),
    networkPolicy=fields(
        enabled=FLAG,
        webFrom=PEERS,
        **dict.fromkeys(("database", "broker", "store", "metadata", "proxy", "dns", "webhooks"), EGRESS),
        extra=EXTRA,
    ),
    serviceMonitor=fields(
        enabled=FLAG, interval=text("^[0-9]+(ms|s|m|h)$"), labels=TEXTS, apiKeySecret=NAME, apiKeyKey=KEY
    )
    | needs("enabled", "apiKeySecret"),
    prometheusRule=fields(enabled=FLAG, labels=TEXTS),
    dashboards=fields(enabled=FLAG, labels=TEXTS, annotations=TEXTS),
    keda=fields(
        enabled=FLAG,
        minReplicas=number(0),
        maxReplicas=number(1),
        pollingIntervalSeconds=number(1),
        cooldownSeconds=number(0),
        scaleDownStabilizationSeconds=number(0, 3600),
        connectionSecret=NAME,
        connectionKey=KEY,
    )
    | needs("enabled", "connectionSecret"),
    test=fields(apiKeySecret=NAME, apiKeyKey=KEY),
    extraEnv=list_of(ANY),
    extraVolumes=LISTS,
    extraVolumeMounts=LISTS,
    extraObjects=LISTS,
) | {"required": ["database", "broker", "store", "signing"]}


def document() -> str:
    """The text of ``values.schema.json``."""
    draft = "http://json-schema.org/draft-07/schema#"
    return json.dumps({"$schema": draft, "title": "Values of the chart tapeline"} | VALUES, indent=1) + "\n"
