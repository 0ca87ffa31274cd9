"""Accounts, usage, runs and applied keys, with row-level security forced on every user's rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OF_USERS = ("llm_usage", "runs", "applied")


def upgrade() -> None:
    # The roles are named after their database; see `ssot.database.roles`.
    database = op.get_bind().scalar(sa.text("SELECT current_database()"))
    now = sa.func.now()
    op.create_table(
        "accounts",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
    op.create_table(
        "llm_usage",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("cost_microusd", sa.BigInteger, nullable=False),
    )
    op.create_index("llm_usage_user_at", "llm_usage", ["user_id", "at"])
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("result", postgresql.JSONB),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "state IN ('running', 'completed', 'failed', 'cancelled')", name="state"
        ),
    )
    op.create_table(
        "applied",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("result", postgresql.JSONB),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
    for table in OF_USERS:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        # No user set, or an empty one, compares to NULL: no rows.
        own = "user_id = nullif(current_setting('ssot.user_id', true), '')"
        op.execute(f"CREATE POLICY own_rows ON {table} USING ({own}) WITH CHECK ({own})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(OF_USERS)} TO {database}_app")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")
    op.execute(
        f"GRANT SELECT ON alembic_version TO {database}_app, {database}_auth, {database}_relay"
    )


def downgrade() -> None:
    for table in (*OF_USERS, "accounts"):
        op.drop_table(table)
