"""Make room for findings, forced answers, and streams that go on from others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is empty at first: columns that may be NULL, and a table."""
    op.add_column("jobs", sa.Column("answer_forced", sa.Boolean(), nullable=True))
    op.add_column("samples", sa.Column("continues", sa.Integer(), nullable=True))
    op.add_column("samples", sa.Column("kept", sa.Integer(), nullable=True))
    op.add_column("samples", sa.Column("inserted", sa.Text(), nullable=True))
    op.create_table(
        "findings",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("begins", sa.Integer(), nullable=False),
        sa.Column("ends", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "evidence",
            sa.JSON().with_variant(postgresql.JSONB(), "postgresql"),
            nullable=False,
        ),
        sa.Column("tokens_saved", sa.Integer(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "sample"],
            ["samples.job_id", "samples.attempt", "samples.number"],
            name=op.f("fk_findings_job_id_attempt_sample_samples"),
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "sample", "kind", name=op.f("pk_findings")),
    )
    op.create_index(op.f("ix_findings_kind_job_id"), "findings", ["kind", "job_id"])


def downgrade() -> None:
    """Take them away, and with them all findings."""
    op.drop_table("findings")
    for name in ("inserted", "kept", "continues"):
        op.drop_column("samples", name)
    op.drop_column("jobs", "answer_forced")
