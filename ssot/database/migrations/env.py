"""Alembic's entry: migrations run on the connection that `ssot.database.migrate` hands over."""

from alembic import context

from ssot.database.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
