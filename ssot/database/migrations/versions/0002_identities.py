"""Whose account a subject of an OAuth provider is; such accounts have no name and no password."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    database = op.get_bind().scalar(sa.text("SELECT current_database()"))
    op.alter_column("accounts", "name", nullable=True)
    op.alter_column("accounts", "password_hash", nullable=True)
    op.create_check_constraint(
        "name_and_password", "accounts", "(name IS NULL) = (password_hash IS NULL)"
    )
    op.create_table(
        "identities",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column(
            "user_id",
            sa.Text,
            # At the commit: whoever wins the subject makes the account, and nobody else does.
            sa.ForeignKey("accounts.user_id", deferrable=True, initially="DEFERRED"),
            nullable=False,
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )
    op.execute(f"GRANT SELECT, INSERT ON identities TO {database}_auth")


def downgrade() -> None:
    op.drop_table("identities")
    op.drop_constraint("name_and_password", "accounts")
    # They could log in through the provider alone.
    op.execute("DELETE FROM accounts WHERE name IS NULL")
    op.alter_column("accounts", "password_hash", nullable=False)
    op.alter_column("accounts", "name", nullable=False)
