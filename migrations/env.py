"""Runs revisions on the connection that `fraudguard/decisions/migrate.py` hands over; knows no URL and no engine."""

from alembic import context

from fraudguard.decisions.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
