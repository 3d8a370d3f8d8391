"""The command line: reads options, calls one function, prints for people. Holds no logic of its own.

Imports are inside the commands: `fraudguard doctor` must work where half the packages are missing, and only the
commands that score may load torch.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from fraudguard import __version__
from fraudguard.audit_commands import audit_app
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.domain import Role
from fraudguard.drift_commands import drift
from fraudguard.errors import FraudguardError
from fraudguard.models_commands import models_app
from fraudguard.rules_commands import lists_app, operator, rules_app
from fraudguard.users_commands import users_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Real-time fraud screening.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they print local variables: keys, texts
)
letters_app = typer.Typer(no_args_is_help=True, help="Events that could not be used.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys and their roles.")
bench_app = typer.Typer(no_args_is_help=True, help="What this machine does.")
app.command()(drift)
app.add_typer(bench_app, name="bench")
app.add_typer(rules_app, name="rules")
app.add_typer(lists_app, name="lists")
app.add_typer(models_app, name="model")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")
app.add_typer(users_app, name="users")

out, err = Console(), Console(stderr=True)


def main() -> None:
    """Entry point; what a person can mend is printed without a traceback and exits with 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to the model's server
    try:
        app()
    except FraudguardError as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error


@app.command()
def version() -> None:
    """The version of fraudguard."""
    print(__version__)


@app.command()
def doctor() -> None:
    """What this machine has, what it lacks, and how to get it; exits with 1 if something needed is missing."""
    from fraudguard.doctor import examine

    findings = examine(Settings())
    for finding in findings:
        mark = "ok     " if finding.ok else "MISSING" if finding.needed else "absent "
        print(f"{mark} {finding.name}: {finding.found}" + ("" if finding.ok else f"\n        fix: {finding.fix}"))
    raise typer.Exit(any(finding.needed and not finding.ok for finding in findings))


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    from fraudguard.decisions.migrate import upgrade

    upgrade(Settings().database_url.get_secret_value())
    print("the schema is current")


@app.command()
def topics() -> None:
    """Create the Kafka topics that are missing."""
    from fraudguard.events.topics import ensure_topics

    created = ensure_topics(Settings())
    print(f"created: {', '.join(created)}" if created else "all topics exist")


@app.command()
def worker() -> None:
    """Screen events from Kafka until stopped; start several to share the partitions."""
    from fraudguard.stream.app import run_worker

    run_worker(Settings())


@app.command()
def api() -> None:
    """Serve the REST API."""
    from fraudguard.api.app import serve

    serve(Settings())


@bench_app.callback()
def _bench() -> None:
    """Keeps `bench engine` a command of its own while there is only one."""


@bench_app.command("engine")
def bench_engine(
    seconds: Annotated[float, typer.Option(help="How long each load runs.")] = 8.0,
    target_ms: Annotated[float, typer.Option(help="Scores later than this do not count as goodput.")] = 50.0,
    out_file: Annotated[Path, typer.Option("--out", help="Writes this with .json and .png.")] = Path("bench-engine"),
) -> None:
    """The configured model alone: capacity, latency under load, cost by turn, share of what the machine could do."""
    from fraudguard.bench import bench_engine as run

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    run(Settings(), out, seconds=seconds, target_ms=target_ms, out=out_file)


@app.command()
def demo(once: Annotated[bool, typer.Option("--once", help="End after the summary.")] = False) -> None:
    """A scripted day on a real Kafka and PostgreSQL, then serve until Ctrl-C."""
    from fraudguard.demo import run_demo

    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it warns of every slow moment of the machine
    run_demo(Settings(), out, SystemClock(), once=once)


@app.command()
def screen(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="One event a line, each with its type.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Write decisions here, one a line.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Write refused lines' numbers and reasons here.")] = None,
    keep: Annotated[bool, typer.Option(help="Decide into the configured database, not a throw-away one.")] = False,
) -> None:
    """Screen a file of events without Kafka; decisions go to --out, or to standard output."""
    from fraudguard.offline import screen_file

    logging.getLogger().setLevel(logging.WARNING)
    screen_file(Settings(), SystemClock(), err, file, out_file, rejects, keep=keep)


@app.command()
def replay(
    decision_id: str,
    rescore: Annotated[bool, typer.Option(help="Also ask the model again.")] = False,
) -> None:
    """Prove a stored decision: the same inputs give the same hits, outcome and reasons; exits with 1 if not."""
    from fraudguard.replay import replay_one

    proof = asyncio.run(replay_one(Settings(), decision_id, rescore=rescore))
    decision = proof.record.decision
    print(f"decision   {decision.decision_id}  event {decision.event_id}  account {decision.account_id}")
    print(f"stored     {decision.outcome}  risk {decision.risk}  reasons {', '.join(decision.reasons) or '-'}")
    print(f"versions   rules {decision.rules_version}  policy {proof.record.policy_version}  model {decision.model}")
    print(f"timeline   lines {proof.timeline.start}..{decision.sequence}  sha256 {proof.timeline.hash[:16]}...")
    if rescore:
        print(f"rescored   {proof.rescored}")
    for difference in proof.differences:
        print(f"DIFFERS    {difference}")
    print("replayed   identical" if not proof.differences else "replayed   NOT identical")
    raise typer.Exit(bool(proof.differences))


@app.command()
def features(markdown: Annotated[bool, typer.Option(help="As docs/features.md.")] = False) -> None:
    """Every feature: name, type, unit, window, meaning; those that the rule files declare among them."""
    from fraudguard.features.registry import FEATURES, render_markdown
    from fraudguard.rules.registry import fields_of

    directory = Settings().rules_dir
    known = fields_of(directory, FEATURES) if directory.is_dir() else FEATURES
    if markdown:
        print(render_markdown([feature for feature in known if feature.group == "declared"]), end="")
        return
    for feature in known:
        facts = ", ".join(filter(None, (feature.type, feature.unit, feature.window)))
        print(f"{feature.name} ({facts})\n    {feature.meaning}")


@app.command()
def schemas(directory: Annotated[Path, typer.Argument(file_okay=False)] = Path("docs/schemas")) -> None:
    """Write the JSON Schemas of the wire format and, for editors, of the rule files."""
    from fraudguard.decisions import policy
    from fraudguard.events.schema import json_schemas
    from fraudguard.features.registry import FEATURES
    from fraudguard.rules import editor_schema
    from fraudguard.rules.registry import fields_of

    directory.mkdir(parents=True, exist_ok=True)
    made: dict[str, object] = {f"{name}.json": schema for name, schema in json_schemas().items()}
    made |= editor_schema.schemas(fields_of(Settings().rules_dir, FEATURES))
    made["policy.json"] = policy.json_schema()
    for name, schema in made.items():
        path = directory / name
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


@app.command("export-onnx")
def export_onnx(
    source: Annotated[str, typer.Argument(help='A release folder, or "starter".')],
    folder: Annotated[Path, typer.Argument(help="A folder to make; FRAUDGUARD_MODEL may name it.")],
    precision: Annotated[Literal["fp32", "int8"], typer.Option(help="int8 pays for larger bases only.")] = "fp32",
) -> None:
    """Make an ONNX release, which a worker can run without torch."""
    from fraudguard.engine import onnx_export

    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    moved = onnx_export.export(source, folder, precision)
    print(f"{folder}: risks differ from the torch model's by at most {moved:.1e}")


@letters_app.command("list")
def letters_list(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    reason: Annotated[str | None, typer.Option(help="Only this reason code.")] = None,
) -> None:
    """The newest dead letters, masked, and how many there are by reason."""
    from fraudguard.events.dead_letter import list_dead_letters

    listing = list_dead_letters(Settings(), limit, reason)
    for letter in listing.letters:
        again = "  replayed" if letter.replayed else f"  sent again {letter.replays}x before" if letter.replays else ""
        print(f"{letter.id:<10} {letter.time:%Y-%m-%d %H:%M:%S}  {letter.source}  {letter.code}{again}")
        print(f"           {f'{letter.path}: ' if letter.path else ''}{letter.reason}. Fix: {letter.hint}")
        print(f"           {letter.preview}")
    counts = ", ".join(f"{code} {count:,}" for code, count in sorted(listing.counts.items()))
    print(f"in all: {counts}" if counts else "no dead letters")


@letters_app.command("replay")
def letters_replay(
    ids: Annotated[list[str] | None, typer.Argument(help="PARTITION/OFFSET as listed; none: all.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason code.")] = None,
    again: Annotated[bool, typer.Option(help="Also those that were replayed before.")] = False,
) -> None:
    """Send dead letters to their topics again, after their cause was mended."""
    from fraudguard.events.dead_letter import Selection, replay_dead_letters

    try:
        places = frozenset((int(p), int(o)) for p, o in (text.split("/") for text in ids or ()))
    except ValueError as error:
        raise typer.BadParameter("give PARTITION/OFFSET, as `dead-letters list` shows") from error
    done = replay_dead_letters(Settings(), Selection(reason, places, again))
    print(f"sent {done.sent:,}, sent before and left {done.before:,}, cannot be sent {done.refused:,}")


@keys_app.command("create")
def keys_create(
    role: Role,
    owner: Annotated[str, typer.Argument(help="Who uses it.")],
    tenant: Annotated[str, typer.Option(help="Whose decisions and cases it sees; everybody's without.")] = "",
) -> None:
    """A new key; it is shown this once."""
    print(asyncio.run(_with_keys(lambda keys: keys.create(role, owner, operator(), SystemClock().now(), tenant))))


@keys_app.command("list")
def keys_list() -> None:
    """Every key, without its secret."""
    for key in asyncio.run(_with_keys(lambda keys: keys.list())):
        tenant = f"  of {key.tenant}" if key.tenant else ""
        revoked = f"  revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
        print(f"{key.key_id}  {key.role:<13} {key.created_at:%Y-%m-%d %H:%M}  {key.owner}{tenant}{revoked}")


@keys_app.command("revoke")
def keys_revoke(key_id: str) -> None:
    """End a key for good."""
    asyncio.run(_with_keys(lambda keys: keys.revoke(key_id, operator(), SystemClock().now())))


async def _with_keys(work: Callable[[Any], Awaitable[Any]]) -> Any:
    from fraudguard.decisions.repository import connect

    async with connect(Settings().database_url.get_secret_value()) as repository:
        return await work(repository.keys)


if __name__ == "__main__":
    main()
