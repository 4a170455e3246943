"""Run by Alembic, with the connection and transaction that `hub_ext.db.upgrade` began."""

from alembic import context

from hub_ext.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    transactional_ddl=True,
    # SQLite cannot alter a column: Alembic copies the table instead.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
