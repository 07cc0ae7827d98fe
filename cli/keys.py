"""``longlook keys``: create, list, limit and revoke API keys, directly in the database."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from cli import names, output
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Priority, Role
from jobs.store import accounts
from migrations import schema

app = typer.Typer(help="Create, list, limit and revoke API keys.", no_args_is_help=True)

#: Columns that a narrow terminal shows with `-o wide` only.
_MORE: Final = ("priority", "limits", "key", "created")

Requests = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Requests per minute of this key. Default: LONGLOOK_REQUESTS_PER_MINUTE.",
        show_default=False,
    ),
]
Body = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest request body of this key, in MiB; LONGLOOK_MAX_BODY_MB remains the upper bound.",
        show_default=False,
    ),
]
MaxPriority = Annotated[
    Priority | None,
    typer.Option(
        help="Highest priority of the key's jobs. Default: high for operate and admin, normal for other roles.",
        show_default=False,
    ),
]


@app.command("create")
def create(
    *,
    account: Annotated[
        str, typer.Option(help="Name of the account; created if it does not exist.")
    ] = accounts.DEFAULT_ACCOUNT,
    role: Annotated[Role, typer.Option(help="Permissions of the key.")] = Role.SUBMIT,
    name: Annotated[str, typer.Option(help="Label of the key.")] = "",
    requests_per_minute: Requests = None,
    max_body_mb: Body = None,
    max_priority: MaxPriority = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help="When the key expires: 90d from now, or a date or time in the future (UTC without a zone).",
            show_default=False,
        ),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    settings = Settings.read()
    expires_at = None if expires is None else _expiry(expires)
    key = accounts.new_key()
    with schema.opened(settings) as database:
        key_id = accounts.create_key(
            database,
            key,
            pepper=accounts.pepper(settings),
            account=account,
            role=role,
            name=name,
            requests_per_minute=requests_per_minute,
            max_body_mb=max_body_mb,
            max_priority=max_priority,
            expires_at=expires_at,
        )
    shown = ids.show("key", key_id)
    if output.for_people(as_json=as_json):
        output.line(key)
        output.note(f"{shown}: role {role}, account {account}. The key cannot be shown again.")
    else:
        output.as_json({"id": shown, "key": key, "account": account, "role": role, "name": name})


@app.command("ls")
def ls(*, as_json: output.AsJson = False) -> None:
    """List keys without their secrets."""
    with schema.opened(Settings.read()) as database:
        rows = accounts.keys(database)
    if output.for_people(as_json=as_json):
        columns = ("id", "account", "role", "name", "state", *_MORE)
        output.table(
            columns,
            map(_row, rows),
            whole=1,
            wide=_MORE if output.narrow() else ("key", "created"),
            ids=("id",),
        )
        return
    output.as_json(
        [
            {
                "id": ids.show("key", row.key_id),
                "account": row.account,
                "role": row.role,
                "name": row.name,
                "redacted_key": row.redacted_key,
                "created_at": row.created_at.isoformat(),
                "expires_at": row.expires_at.isoformat() if row.expires_at else None,
                "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
                "requests_per_minute": row.requests_per_minute,
                "max_body_mb": row.max_body_mb,
                "max_priority": row.highest_priority,
            }
            for row in rows
        ]
    )


@app.command("limit")
def limit(
    key_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="key_…, or its first characters.", show_default=False),
    ],
    *,
    requests_per_minute: Requests = None,
    max_body_mb: Body = None,
    max_priority: MaxPriority = None,
) -> None:
    """Set the limits of a key. They apply from its next request; an option that is left out resets to its default."""
    with schema.opened(Settings.read()) as database:
        key_id, parsed = _find(database, key_id)
        if not accounts.limit_key(
            database,
            parsed,
            requests_per_minute=requests_per_minute,
            max_body_mb=max_body_mb,
            max_priority=max_priority,
        ):
            raise errors.NotFound(f"There is no active key {key_id}.")
    output.note(f"The limits of {key_id} have been set.")


@app.command("revoke")
def revoke(
    key_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="key_…, or its first characters.", show_default=False),
    ],
) -> None:
    """Revoke a key, effective immediately."""
    with schema.opened(Settings.read()) as database:
        key_id, parsed = _find(database, key_id)
        if not accounts.revoke_key(database, parsed):
            raise errors.NotFound(f"There is no active key {key_id}.")
    output.note(f"{key_id} is revoked")


def _find(database: Database, text: str) -> tuple[str, uuid.UUID]:
    """Return the id of a key, as callers see it and as it is stored, by the id or its first characters."""
    by_name = {ids.show("key", row.key_id): row.key_id for row in accounts.keys(database)}
    name = names.only("key", text, list(by_name))
    return name, by_name[name]


def _expiry(text: str) -> datetime:
    """Return the time of ``90d`` (from now), or of a date or time. Raises :class:`typer.BadParameter`."""
    now = datetime.now(UTC)
    try:
        if text[-1:] == "d" and text[:-1].isdigit():
            moment = now + timedelta(days=int(text[:-1]))
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        moment = now
    if moment <= now:
        raise typer.BadParameter(
            f"{text!r} is neither a number of days (90d) nor a time in the future (2030-01-31).",
            param_hint="--expires",
        )
    return moment


def _row(row: accounts.KeyRow) -> tuple[str, ...]:
    return (
        ids.show("key", row.key_id),
        row.account,
        row.role,
        row.name,
        _state(row),
        row.highest_priority,
        _limits(row),
        row.redacted_key,
        f"{row.created_at:%Y-%m-%d %H:%M}",
    )


def _state(row: accounts.KeyRow) -> str:
    """Return whether a key is valid, and until when."""
    if row.revoked_at:
        return f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
    if not row.expires_at:
        return "active"
    expired = row.expires_at <= datetime.now(UTC)
    return f"{'expired' if expired else 'until'} {row.expires_at:%Y-%m-%d %H:%M}"


def _limits(row: accounts.KeyRow) -> str:
    """Return the limits that were set for a key, as text."""
    limits = []
    if row.requests_per_minute is not None:
        limits.append(f"{row.requests_per_minute}/min")
    if row.max_body_mb is not None:
        limits.append(f"{row.max_body_mb} MiB")
    return ", ".join(limits)
