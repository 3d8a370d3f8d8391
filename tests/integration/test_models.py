"""Models on the real PostgreSQL: the command line and its gate, takeover by a pipeline, shadow scores exactly once."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packs import label, message, opened, payment, received, records
from sealed import metrics_of, sealed
from sqlalchemy import select
from support import settings_for
from typer.testing import CliRunner

from fraudguard import metrics, models_commands
from fraudguard.__main__ import app
from fraudguard.assembly import Parts, load_engine, load_parts, open_scorer_of, registered_champion
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.repository import Repository, connect
from fraudguard.decisions.tables import AUDIT, SHADOW_SCORES
from fraudguard.domain import DecisionRecord, Outcome
from fraudguard.engine.release import STARTER, seal, verify
from fraudguard.errors import BadModel, StoreUnavailable
from fraudguard.models import Releasing
from fraudguard.pipeline import Pipeline
from fraudguard.replay import replay_one

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
RISK_TOLERANCE = 1e-5  # fp32: docs/model-card.md


def settings_of(url: str, **others: object) -> Settings:
    """Of the test's database."""
    return settings_for("unused:1", url, **{"precision": "fp32", **others})


@pytest.fixture(scope="module")
def rules() -> Iterator[Parts]:
    """Rules and policy, no model."""
    parts = load_parts(settings_of("postgresql://unused", model="off"))
    yield parts
    parts.close()


@pytest.fixture
def parts(rules: Parts) -> Iterator[Parts]:
    """With the configured model, the starter; a test may put another one in its place."""
    scorer = load_engine(settings_of("postgresql://unused"))
    assert scorer is not None
    yield replace(rules, scorer=scorer)
    scorer.close()


class Terminal:
    """`fraudguard model` on a database."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        for name, value in settings_of(url).environment().items():
            monkeypatch.setenv(name, value)

    def __call__(self, *words: str, user: str = "ana") -> str:
        """What the command says; what is refused begins with `refused:`."""
        self._patch.setattr(models_commands, "operator", lambda: f"cli:{user}")
        done = CliRunner().invoke(app, ["model", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return f"refused: {done.exception}"
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Of ana."""
    return Terminal(database_url, monkeypatch)


def release(folder: Path, version: str, digest: str = "d" * 64, **measures: float) -> str:
    """A sealed copy of the starter, measured so on the fixed set."""
    names = {"recall": "recall_at_1%_fpr"}
    named = {names.get(name, name): value for name, value in measures.items()}
    return str(sealed(folder / version, version, offset=1.0, metrics=metrics_of(version, named, digest)))


async def audited(url: str) -> list[tuple[str, str, dict[str, object]]]:
    """The registry's audit rows as (action, actor, detail)."""
    engine = open_engine(url)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(AUDIT).order_by(AUDIT.c.id))).all()
    await engine.dispose()
    return [(row.action, row.actor, row.detail) for row in rows if row.action.startswith("models.")]


def test_a_model_goes_from_a_folder_to_champion_and_back(database_url: str, shell: Terminal, tmp_path: Path) -> None:
    """In shadow, refused where nothing can be compared, forced with a reason, promoted by the gate, rolled back."""
    first, second = (
        release(tmp_path, version, average_precision=0.6 + n / 10) for n, version in enumerate(("1.0", "2.0"))
    )
    digest = verify(Path(first))
    assert shell("seal", first).strip() == f"sealed {first}: {digest}"
    assert "champion: FRAUDGUARD_MODEL=starter, for the registry names none" in shell("list")
    said = shell("shadow", first, "--note", "labels of October")
    assert f"starter@1.0 is in shadow: digest {digest[:12]}, a sample payment's risk 0." in said
    assert "restart" not in said
    refused = shell("promote", "starter@1.0")
    assert refused.startswith("refused: the gate refuses it:\nthey were measured on different events: starter@0.3.0+")
    assert "--force --reason TEXT" in refused
    assert shell("promote", "starter@1.0", "--force") == "refused: --reason: must say why the gate does not count"
    forced = shell("promote", digest[:12], "--force", "--reason", "the starter was measured on other talk")
    assert "forced over: they were measured on different events" in forced
    assert "starter@1.0 is champion; workers score with it once they have loaded it" in forced
    shell("shadow", second)
    assert "starter@2.0 is champion" in shell("promote", "starter@2.0", user="ben")
    rows = [line.split() for line in shell("list").splitlines()[1:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("starter@2.0", "champion", "0.7000"),
        ("starter@1.0", "former", "0.6000"),
    ]
    assert shell("rollback", "--note", "too many alerts") == "starter@1.0 is champion again\n"
    assert shell("rollback") == "the model that FRAUDGUARD_MODEL names is champion again\n"
    assert shell("rollback") == "refused: no other model was champion before"
    done = asyncio.run(audited(database_url))
    assert [(action, actor) for action, actor, _ in done] == [
        ("models.add", "cli:ana"), ("models.shadow", "cli:ana"), ("models.promote", "cli:ana"),
        ("models.add", "cli:ana"), ("models.shadow", "cli:ana"), ("models.promote", "cli:ben"),
        ("models.rollback", "cli:ana"), ("models.rollback", "cli:ana"),
    ]  # fmt: skip
    assert "measured on different events" in str(done[2][2]["forced_over"])
    assert done[2][2]["note"] == "the starter was measured on other talk"
    assert "forced_over" not in done[5][2]


def test_the_gate_names_what_is_worse(
    database_url: str, shell: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each measure with both values and the margin; other events, and no measures, cannot pass either."""
    shell("shadow", release(tmp_path, "1.0"))
    shell("promote", "starter@1.0", "--force", "--reason", "the first")
    shell("shadow", release(tmp_path, "2.0", average_precision=0.55, recall=0.495, calibration_error=0.2))
    assert shell("promote", "starter@2.0") == (
        "refused: the gate refuses it:\n"
        "average precision: 0.5500, the champion's is 0.6000: worse by 0.0500, more than 0.01\n"
        "1 - calibration error: 0.8000, the champion's is 0.9700: worse by 0.1700, more than 0.01"
        " (--force --reason TEXT goes over it)"
    )
    shell("shadow", release(tmp_path, "3.0", digest="e" * 64, average_precision=0.9))
    assert "measured on different events: starter@1.0+int8 on fixed (dddddddddddd)" in shell("promote", "starter@3.0")
    shell("shadow", str(sealed(tmp_path / "4.0", "4.0")))
    assert "starter@4.0 brings no metrics.json: measure it with" in shell("promote", "starter@4.0")
    monkeypatch.setenv("FRAUDGUARD_MODEL_MARGIN", "0.2")
    assert "starter@2.0 is champion" in shell("promote", "starter@2.0")
    assert shell("promote", "starter@9.0").startswith("refused: no model 'starter@9.0'")


def test_what_cannot_score_cannot_be_registered(shell: Terminal, tmp_path: Path) -> None:
    """Not sealed, changed since, torn weights under a good seal, other timelines; changed before it is promoted."""
    folder = Path(release(tmp_path, "1.0"))
    (folder / "SHA256SUMS").unlink()
    assert "no readable SHA256SUMS (fraudguard model seal FOLDER" in shell("shadow", str(folder))
    seal(folder)
    (folder / "notes.md").write_text("x")
    assert "SHA256SUMS does not name notes.md" in shell("shadow", str(folder))
    torn = Path(release(tmp_path, "1.1"))
    (torn / "head" / "head.safetensors").write_bytes(b"torn")
    seal(torn)
    assert shell("shadow", str(torn)).startswith("refused: ")
    later = sealed(tmp_path / "1.2", "1.2", timeline=2)
    assert "timelines of version 2, this build writes version 1" in shell("shadow", str(later))
    assert "for the registry names none" in shell("list")
    good = Path(release(tmp_path, "1.3"))
    assert "is in shadow" in shell("shadow", str(good))
    (good / "metrics.json").write_text(json.dumps(metrics_of("1.3", {"average_precision": 1.0})))
    assert "metrics.json: is not the file that SHA256SUMS names" in shell("promote", "starter@1.3")
    seal(good)
    assert "is not the release that was registered (shadow it again)" in shell("promote", "starter@1.3")


def test_another_tokenizer_is_said_to_need_a_restart(shell: Terminal, tmp_path: Path) -> None:
    """It can be in shadow and promoted; running workers will not take it over."""
    folder = Path(release(tmp_path, "1.0"))
    file = folder / "base" / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    seal(folder)
    assert "running workers refuse it, restart them after the promotion" in shell("shadow", str(folder))
    assert "restart them after the promotion" in shell("promote", "starter@1.0", "--force", "--reason", "a test")


def test_a_challenger_is_retired(shell: Terminal, tmp_path: Path) -> None:
    """And can be called back."""
    folder = release(tmp_path, "1.0")
    shell("shadow", folder)
    assert shell("compare") == "starter@1.0 has scored no decision in shadow\n"
    assert shell("retire", "starter@1.0") == "starter@1.0 is in shadow no more\n"
    assert "there is no challenger" in shell("compare")
    assert "starter@1.0 has scored" in shell("compare", "starter@1.0")
    assert shell("retire", "starter@1.0") == "refused: starter@1.0 is no challenger (only a challenger can be retired)"
    assert "is in shadow" in shell("shadow", folder)


# ---------------------------------------------------------------- a pipeline


async def in_role(url: str, folder: Path, *, champion: bool = False) -> None:
    """Put the release in shadow, or in force."""
    async with connect(url) as repository:
        releasing = Releasing(settings_of(url), repository)
        made = await releasing.shadow(folder, "ana", "", NOW)
        if champion:
            await releasing.promote(made.model.digest, "ana", "a test", NOW, force=True)


async def loaded(pipeline: Pipeline) -> None:
    """Look at the registry, and let what it names be loaded (or refused)."""
    await pipeline.look_for_models()
    assert pipeline._serving is not None
    places = pipeline._serving._champion, pipeline._serving._challenger
    if loading := [place._loading for place in places if place._loading]:
        await asyncio.wait(loading)


async def shadow_rows(url: str) -> dict[str, tuple[str, float, str]]:
    """(model, risk, outcome) by decision."""
    engine = open_engine(url)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(SHADOW_SCORES))).all()
    await engine.dispose()
    assert len({row.decision_id for row in rows}) == len(rows)
    return {row.decision_id: (row.model, row.risk, row.outcome) for row in rows}


async def test_a_pipeline_takes_a_champion_over_between_batches(
    database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """The configured model until it is loaded, then the champion, with its own risks; each decision says whose."""
    async with opened(database_url, parts, precision="fp32") as pipeline:
        (before,) = records(await pipeline.screen(received(payment("t-1", "a-1"))))
        await in_role(database_url, sealed(tmp_path / "2.0", "2.0", offset=1.0), champion=True)
        await loaded(pipeline)
        (after,) = records(await pipeline.screen(received(payment("t-2", "a-2"))))
    assert (before.decision.model, after.decision.model) == ("starter@0.3.0+fp32", "starter@2.0+fp32")
    assert before.score is not None
    assert after.score is not None
    assert after.score.risk > before.score.risk + 10 * RISK_TOLERANCE  # the same payment, another calibration
    champion = await registered_champion(settings_of(database_url))
    assert champion is not None
    assert await registered_champion(settings_of(database_url, model="off")) is None
    shutil.rmtree(champion.location)
    with pytest.raises(BadModel, match=r"no release\.json"):  # a worker that starts without its champion stops
        load_parts(settings_of(database_url), champion)


async def test_a_champion_that_cannot_be_loaded_changes_nothing(
    database_url: str, parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its folder lost a byte after the promotion: counted, logged, the old one goes on; mended, it is taken over."""
    folder = sealed(tmp_path / "2.0", "2.0")
    refusals = metrics.MODEL_REFUSALS.labels("champion")._value
    before = refusals.get()
    async with opened(database_url, parts, precision="fp32") as pipeline:
        await in_role(database_url, folder, champion=True)
        weights = folder / "base" / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1])
        await loaded(pipeline)
        (record,) = records(await pipeline.screen(received(payment("t-1"))))
        assert record.decision.model == "starter@0.3.0+fp32"
        assert refusals.get() == before + 1
        assert "still scoring with starter@0.3.0+fp32: cannot load starter@2.0" in caplog.text
        assert "is not the file that SHA256SUMS names" in caplog.text
        weights.write_bytes(content)
        assert pipeline._serving is not None
        pipeline._serving._champion._again_at = 0.0
        await loaded(pipeline)
        (record,) = records(await pipeline.screen(received(payment("t-2", minute=1))))
        assert record.decision.model == "starter@2.0+fp32"


async def test_off_is_off_whatever_the_registry_says(database_url: str, rules: Parts, tmp_path: Path) -> None:
    """No champion, no challenger, no score: rules alone, and every decision says so."""
    await in_role(database_url, sealed(tmp_path / "2.0", "2.0"), champion=True)
    await in_role(database_url, sealed(tmp_path / "3.0", "3.0"))
    off = settings_of(database_url, model="off")
    assert await registered_champion(off) is None
    assert load_engine(off) is None
    async with opened(database_url, rules, model="off") as pipeline:
        await pipeline.look_for_models()
        pipeline.reload_model()
        made = [records(await pipeline.screen(received(payment(f"t-{n}", minute=n))))[0] for n in range(2)]
    assert {record.decision.model for record in made} == {"off"}
    assert {record.decision.reasons for record in made} == {("ENGINE_OFF",)}
    assert await shadow_rows(database_url) == {}


async def test_a_challenger_is_scored_and_never_acted_on(
    database_url: str, second_database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """The same decisions as without it, bit for bit; beside them its risks, and the outcomes that policy would give."""
    events = [
        *(payment(f"t-{n}", f"a-{n % 5}", n, amount="900.00", counterparty_id=f"c-{n}") for n in range(20)),
        *(message(f"m-{n}", "急用钱，马上转到安全账户", f"a-{n}", 30 + n) for n in range(5)),
    ]
    batches = [events[:7], events[7:20], events[20:]]
    await in_role(database_url, sealed(tmp_path / "2.0", "2.0", offset=8.0))

    async def run(url: str) -> list[DecisionRecord]:
        async with opened(url, parts, precision="fp32", shadow_ms=60_000) as pipeline:
            await loaded(pipeline)
            return [r for batch in batches for r in records(await pipeline.screen(received(*batch)))]

    made, twins = await run(database_url), await run(second_database_url)
    for record, twin in zip(made, twins, strict=True):
        assert (record.score, record.hits, record.features) == (twin.score, twin.hits, twin.features)
        assert (record.decision.outcome, record.decision.reasons) == (twin.decision.outcome, twin.decision.reasons)
    rows = await shadow_rows(database_url)
    assert rows.keys() == {record.decision.decision_id for record in made}
    assert await shadow_rows(second_database_url) == {}
    assert {model for model, _, _ in rows.values()} == {"starter@2.0+fp32"}
    risks = [(r.score.risk, rows[r.decision.decision_id][1]) for r in made if r.score]
    assert all(shadow > live for live, shadow in risks)
    assert {outcome for _, risk, outcome in rows.values() if risk > 0.95} == {Outcome.BLOCK}


async def test_shadow_scores_are_written_once(
    database_url: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the commit: none; after it, before anybody knew: one, also when the events come again."""
    await in_role(database_url, sealed(tmp_path / "2.0", "2.0"))
    batch = received(*(payment(f"t-{n}", f"a-{n}", n) for n in range(3)))
    commit = Repository.commit

    async def before(repository: Repository, changes: object) -> None:
        raise StoreUnavailable("killed")

    async def after(repository: Repository, changes: object) -> None:
        await commit(repository, changes)  # type: ignore[arg-type]  # passed on
        raise StoreUnavailable("killed, but stored")

    for fault, stored in ((before, 0), (after, 3)):
        async with opened(database_url, parts, precision="fp32", shadow_ms=60_000) as pipeline:
            await loaded(pipeline)
            monkeypatch.setattr(Repository, "commit", fault)
            with pytest.raises(StoreUnavailable, match="killed"):
                await pipeline.screen(batch)
            monkeypatch.setattr(Repository, "commit", commit)
        assert len(await shadow_rows(database_url)) == stored
    rows = await shadow_rows(database_url)
    async with opened(database_url, parts, precision="fp32", shadow_ms=60_000) as pipeline:
        await loaded(pipeline)
        await pipeline.screen(batch)
        await pipeline.screen([batch[1], batch[1], *received(payment("t-9", "a-9"))])
    assert rows.items() < (await shadow_rows(database_url)).items()
    assert len(await shadow_rows(database_url)) == 4


async def test_no_time_for_the_challenger_costs_no_decision(database_url: str, parts: Parts, tmp_path: Path) -> None:
    """A batch that is older than the deadline by the time it is decided has no shadow, and is committed."""
    await in_role(database_url, sealed(tmp_path / "2.0", "2.0"))
    late = metrics.SHADOW.labels("late")._value
    before = late.get()
    async with opened(database_url, parts, precision="fp32", deadline_ms=60_000, shadow_ms=1) as pipeline:
        await loaded(pipeline)
        batch = [payment(f"t-{n}", f"a-{n}", n) for n in range(64)]
        made = records(await pipeline.screen(received(*batch)))
    assert len(made) == 64
    assert not any(record.decision.degraded for record in made)
    assert late.get() - before + len(await shadow_rows(database_url)) == 64
    assert late.get() > before


async def test_replay_asks_the_model_that_scored(database_url: str, parts: Parts, tmp_path: Path) -> None:
    """After a promotion and a rollback each decision is proven by its own release; a stranger's cannot be."""
    folder = sealed(tmp_path / "2.0", "2.0", offset=1.0)
    async with opened(database_url, parts, precision="fp32") as pipeline:
        (old,) = records(await pipeline.screen(received(payment("t-1", "a-1"))))
        await in_role(database_url, folder, champion=True)
        await loaded(pipeline)
        (new,) = records(await pipeline.screen(received(payment("t-2", "a-2"))))
    async with connect(database_url) as repository:
        await Releasing(settings_of(database_url), repository).rollback(None, "ana", "", NOW)
    settings = settings_of(database_url, precision="bf16")  # whatever is configured: the decision names its precision
    for record in (old, new):
        proof = await replay_one(settings, record.decision.decision_id, rescore=True)
        assert proof.differences == ()
        assert record.score is not None
        assert proof.rescored == pytest.approx(record.score.risk, abs=RISK_TOLERANCE)
    async with connect(database_url) as repository:
        with pytest.raises(BadModel, match=r"of starter@7\.0\+fp32, which is neither registered nor the configured"):
            await open_scorer_of(settings, repository, "starter@7.0+fp32")
    (folder / "head" / "head.json").write_text("{}")
    with pytest.raises(BadModel, match="is not the file that SHA256SUMS names"):
        await replay_one(settings, new.decision.decision_id, rescore=True)


async def test_labels_say_who_was_right(
    database_url: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compare` counts what would differ, and judges it by the labels once their delay is over."""
    await in_role(database_url, sealed(tmp_path / "2.0", "2.0", offset=20.0))
    async with opened(database_url, parts, precision="fp32", shadow_ms=60_000) as pipeline:
        await loaded(pipeline)
        await pipeline.screen(received(*(payment(f"t-{n}", f"a-{n}", n) for n in range(6))))
        await pipeline.screen(received(label("l-1", "t-1", "a-1"), label("l-2", "t-2", "a-2", "legitimate")))
        await pipeline.screen(received(payment("t-late", "a-late", 60 * 24 * 8)))
    said = await asyncio.to_thread(Terminal(database_url, monkeypatch), "compare")
    assert "starter@2.0 beside starter@0.3.0+fp32 (7)" in said
    assert "approve -> block: 7" in said
    assert "6 are older than the label delay, 1 of them fraud" in said
    alerts, frauds = (line.split()[-2:] for line in said.splitlines() if line.startswith(("alerts", "frauds among")))
    assert (alerts, frauds) == (["0", "6"], ["0", "1"])


def test_the_shipped_starter_can_be_registered(shell: Terminal) -> None:
    """The release in the package is one like any other."""
    assert "is in shadow" in shell("shadow", str(STARTER))
