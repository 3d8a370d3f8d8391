"""One Settings for every process: environment variables prefixed FRAUDGUARD_, then the defaults here.

The database is also accepted as DATABASE_URL, the name platforms hand out.
"""

import json
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AliasChoices, Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA database, like Asia/Shanghai") from error
    return name


def _text(value: object) -> str:
    """As an environment variable says it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, dict) else str(value)


OidcRole = Annotated[
    str, Field(pattern=r"^(viewer|analyst|lead|rule_editor|admin)(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")
]


class Settings(BaseSettings):
    """Everything an operator may set. Units are the last word of a name."""

    model_config = SettingsConfigDict(env_prefix="FRAUDGUARD_", extra="ignore", populate_by_name=True)

    kafka_bootstrap: str = "127.0.0.1:9092"
    topic_partitions: Annotated[int, Field(ge=1, le=1024)] = 8
    topic_replication: Annotated[int, Field(ge=1, le=5)] = 1
    consumer_group: str = "fraudguard"
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://fraudguard@127.0.0.1:5432/fraudguard"),
        validation_alias=AliasChoices("FRAUDGUARD_DATABASE_URL", "DATABASE_URL", "database_url"),
    )

    rules_dir: Path = Path("rules")
    policy_path: Path = Path("rules/policy.yaml")
    rules_approvals: Annotated[int, Field(ge=0, le=5)] = 1  # people besides its author who must agree to a release
    time_zone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"  # of local_time, weekday... in rules

    # "starter", "off", or a release directory. The registry's champion, where there is one, wins over it; "off" is off.
    model: str = "starter"
    model_margin: Annotated[float, Field(ge=0, le=1)] = 0.01  # how much worse than the champion a promoted one may be
    shadow_ms: Annotated[int, Field(ge=1)] = 50  # how long a batch's commit may wait for the challenger
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one
    # auto: bf16 on a GPU of compute capability 8.0 and on a CPU with AMX, int8 on one with VNNI alone, else fp32. bf16
    # on a CPU is fast with AMX or avx512_bf16 (lscpu), slower than fp32 without. int8-tensor and -tensor-asymmetric
    # need a release with ranges of activations; int4 saves memory, not time; fp8 needs a GPU of 8.9. An ONNX release
    # has its own.
    precision: Literal[
        "auto", "fp32", "bf16", "int8", "int8-asymmetric", "int8-tensor", "int8-tensor-asymmetric", "int4", "fp8"
    ] = "auto"
    # More threads than free cores wait for each other: 15 times slower beside Kafka and PostgreSQL on 2 cores.
    engine_threads: Annotated[int, Field(ge=0)] = 1  # 0: what torch or onnxruntime picks
    # Keys and values of timelines: 1.5 KiB a token with the starter, some 2,000 accounts; never less than a pass needs.
    engine_cache_mib: Annotated[int, Field(ge=0)] = 512
    # Beside a GPU: host memory for timelines that its cache has no room for, a power of two. 0: they are read anew.
    engine_host_cache_mib: Annotated[int, Field(ge=0)] = 0
    engine_graphs: bool = True  # on a GPU: passes captured as CUDA graphs at the start, some seconds; False: eager
    engine_pass_ms: Annotated[int, Field(ge=1)] = 100  # how long one pass of the model should take
    engine_queue_max: Annotated[int, Field(ge=1)] = 8_192  # requests that wait for the model
    engine_timeout_ms: Annotated[int, Field(ge=1)] = 5_000  # of one batch
    engine_failures_max: Annotated[int, Field(ge=1)] = 5  # consecutive, then the circuit opens
    engine_retry_ms: Annotated[int, Field(ge=1)] = 10_000  # how long the circuit stays open

    # A vLLM server that holds the model's base and adapter; here are only its tokenizer and head. None: all is here.
    engine_url: HttpUrl | None = None
    engine_key: SecretStr | None = None  # the server's --api-key
    engine_served_name: str | None = None  # what the server calls the model; None: name@version of the release

    timeline_tokens_max: Annotated[int, Field(ge=64)] = 256
    lateness_s: Annotated[int, Field(ge=0)] = 3_600
    future_s: Annotated[int, Field(ge=0)] = 300  # an event further ahead of its append time is refused
    label_delay_days: Annotated[int, Field(ge=1)] = 7
    base_currency: str = "CNY"
    rates_path: Path | None = None  # None: the approximate reference rates that ship (features/rates.yaml)
    accounts_cached_max: Annotated[int, Field(ge=1)] = 50_000

    batch_events_max: Annotated[int, Field(ge=1, le=4096)] = 256
    batch_wait_ms: Annotated[int, Field(ge=1, le=50)] = 10  # above 50 a stop signal is answered late
    batch_timeout_ms: Annotated[int, Field(ge=100)] = 30_000
    # An event that would be older than this once the model has read it is decided without; 0: never.
    deadline_ms: Annotated[int, Field(ge=0)] = 0
    conflict_retries_max: Annotated[int, Field(ge=1)] = 5
    watchdog_s: Annotated[float, Field(gt=0)] = 60.0
    session_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 0  # the worker's Prometheus endpoint; 0: none

    api_host: str = "127.0.0.1"
    api_port: Port = 8080
    review_percent: Annotated[float, Field(ge=0, le=100)] = 5.0  # of disposed cases, how many a second person looks at
    screen_deadline_ms: Annotated[int, Field(ge=1, le=60_000)] = 2_000

    session_idle_s: Annotated[int, Field(ge=60)] = 1_800  # a person who did nothing for that long signs in again
    session_max_s: Annotated[int, Field(ge=60)] = 43_200  # and in any case after that
    # Single sign-on: an OpenID provider that vouches for people, beside those with a password here.
    oidc_issuer: str | None = None  # its URL exactly as it writes it, https://; None: there is none
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None  # None: a public client, which PKCE alone protects
    oidc_name: str = "OpenID"  # how the sign-in page calls it
    oidc_scopes: str = "openid profile email"
    oidc_name_claim: str = "preferred_username"  # of the ID token: how the audit trail names a person
    oidc_role_claim: str = "groups"  # a text or a list; realm_access.roles is looked for in realm_access
    # As JSON, what of that claim gives which role, of a tenant as analyst@bank-a; of several the first. Whoever
    # has none gets in nowhere.
    oidc_roles: dict[str, OidcRole] = Field(default_factory=dict)
    public_url: str | None = None  # where browsers reach the console, https://fraud.bank.example: they come back there
    # How often one caller may ask, in each API process; 0: as often as they like.
    rate_service_s: Annotated[int, Field(ge=0)] = 2_000  # a key of role service, a second
    rate_caller_min: Annotated[int, Field(ge=0)] = 1_200  # any other key or person, a minute
    rate_sign_in_min: Annotated[int, Field(ge=0)] = 60  # sign-ins from one address, a minute
    # Fernet key that seals what must be read again: secrets of one-time codes and webhooks. Without it there are none.
    secrets_key: SecretStr | None = None
    # A server of OpenAI's chat completions, the URL with its /v1, that tells cases in words and is sent masked text for
    # it. None: a template tells them.
    narrative_url: HttpUrl | None = None
    narrative_model: str | None = None  # what the server calls the model; without it the template
    narrative_key: SecretStr | None = None

    raw_text_key: SecretStr | None = None  # Fernet key; without it unmasked text is never kept
    state_dir: Path = Path("var")  # where the embedded services and the demo keep their data

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these settings: those that differ from the defaults."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        revealed = {n: _text(v) for n, v in given.items()}
        return {f"FRAUDGUARD_{name.upper()}": value for name, value in revealed.items() if value != "None"}
