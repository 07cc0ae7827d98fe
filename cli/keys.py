"""``longlook keys``: create, list, limit and revoke API keys, directly in the database."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from api.schemas.keys import Key
from cli import erasing, names, output
from core import errors, ids, peppers
from core.database import Database, utcnow
from core.settings import Settings
from jobs.lifecycle import Priority, Role
from jobs.store import accounts
from migrations import schema

app = typer.Typer(help="Create, list, limit and revoke API keys.", no_args_is_help=True)

#: Columns that a narrow terminal shows with `-o wide` only.
_MORE: Final = ("priority", "limits", "key", "created")

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="key_…, or its first characters.", show_default=False)
]
Requests = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=accounts.MAX_REQUESTS_PER_MINUTE,
        help="Requests per minute of this key. Default: LONGLOOK_REQUESTS_PER_MINUTE.",
        show_default=False,
    ),
]
Body = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=accounts.MAX_BODY_MB,
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
#: The first three identify a key and its state; 80 columns have room for the first five.
_COLUMNS: Final = (
    *("id", "role", "last used", "account", "name"),
    *("created", "created by", "expires"),
    *("revoked", "revoked by", "priority", "limits", "key"),
)
_ROOMY_ONLY: Final = ("created", "created by", "expires")
_WIDE: Final = ("revoked", "revoked by", "priority", "limits", "key")
#: From this width on, a terminal has room for eight columns.
_ROOMY: Final = 120
#: Keys that a message names.
_NAMED_KEYS: Final = 5


@app.command("create")
def create(
    *,
    account: Annotated[
        str, typer.Option(help="Name or ID of the account; a new name creates an account.")
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
            actor=erasing.actor(),
        )
        row = accounts.find_key(database, key_id)
    shown = ids.show("key", key_id)
    if not output.for_people(as_json=as_json):
        output.as_json({**({} if row is None else _document(row, {})), "id": shown, "key": key})
        return
    output.line(key)
    ends = "never expires" if expires_at is None else f"expires {_moment(expires_at)} UTC"
    output.note(f"{shown}: role {role}, account {account}, {ends}. The key cannot be shown again.")


@app.command("ls")
def ls(*, as_json: output.AsJson = False) -> None:
    """List keys without their secrets, with who made and revoked them, and when they were last used."""
    with schema.opened(Settings.read()) as database:
        rows = accounts.keys(database)
        makers = _makers(database, rows)
    if not output.for_people(as_json=as_json):
        output.as_json([_document(row, makers) for row in rows])
        return
    limit = output.width()
    hidden = _WIDE if limit is None or limit >= _ROOMY else (*_WIDE, *_ROOMY_ONLY)
    now = utcnow()
    output.table(
        _COLUMNS, [_row(row, makers, now) for row in rows], whole=3, wide=hidden, ids=("id",)
    )


@app.command("limit")
def limit(
    key_id: KeyId,
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
    key_id: KeyId,
) -> None:
    """Revoke a key, effective immediately."""
    with schema.opened(Settings.read()) as database:
        key_id, parsed = _find(database, key_id)
        if not accounts.revoke_key(database, parsed, actor=erasing.actor()):
            raise errors.NotFound(f"There is no active key {key_id}.")
    output.note(f"{key_id} is revoked")


@app.command("rotate-pepper")
def rotate_pepper(
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="Drop the old peppers; no live key may need them.")
    ] = False,
    revoke_unused: Annotated[
        bool,
        typer.Option(
            "--revoke-unused", help="With --finish: revoke the keys that still need an old pepper."
        ),
    ] = False,
) -> None:
    """Change the secret that keys are hashed with; the keys do not change.

    Without an option, a pepper in the home directory gets a newer one before it, which running processes read. Each
    key is hashed again when it is used; until then the old pepper verifies it. Afterwards, --finish drops the old one.
    Both steps can be repeated at any time.

    If LONGLOOK_PEPPER is set, you change it instead: see the page about operation. --finish then checks that the old
    pepper can be removed.
    """
    if revoke_unused and not finish:
        raise typer.BadParameter("use it with --finish", param_hint="--revoke-unused")
    settings = Settings.read()
    with schema.opened(settings) as database:
        if finish:
            _finish_rotation(settings, database, revoke_unused=revoke_unused)
            return
        known = peppers.read(settings)
        if len(known) == 1:
            if lost := accounts.without_pepper(_live(database), known):
                raise errors.LaunchError(
                    f"{len(lost)} live keys are hashed with another pepper: restore it first."
                )
            peppers.add_pepper(settings)
            known = peppers.read(settings)
            output.event("ok", "new keys are hashed with a new pepper")
        left = accounts.without_pepper(_live(database), known[:1], or_unknown=True)
    if left:
        output.note(f"{len(left)} live keys are hashed again when they are used next.")
    output.note("When all have been used: longlook keys rotate-pepper --finish")


def _finish_rotation(settings: Settings, database: Database, *, revoke_unused: bool) -> None:
    """Drop all peppers but the newest, if no live key needs another one.

    The keys are read before the file changes: a process that dies in between leaves a pepper too many.
    """
    newest = peppers.read(settings)[:1]
    left = accounts.without_pepper(_live(database), newest, or_unknown=True)
    if left and revoke_unused:
        for row in left:
            accounts.revoke_key(database, row.key_id, actor=erasing.actor())
            output.note(f"{ids.show('key', row.key_id)} is revoked")
    elif left:
        named = ", ".join(
            f"{ids.show('key', row.key_id)} ({row.name})" for row in left[:_NAMED_KEYS]
        )
        raise errors.LaunchError(
            f"{len(left)} live keys have not been used since the rotation and need the old pepper: {named}. Use them, "
            "revoke them, or pass --revoke-unused."
        )
    if settings.pepper is None:
        peppers.drop_peppers(settings)
        output.event("ok", "the newest pepper is the only one")
    else:
        output.event("ok", "no live key needs more than the first pepper of LONGLOOK_PEPPER")


def _live(database: Database) -> list[accounts.KeyRow]:
    now = utcnow()
    return [row for row in accounts.keys(database) if row.is_live(now)]


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


def _makers(database: Database, rows: Sequence[accounts.KeyRow]) -> dict[str, str]:
    """Return the names of the keys that made or revoked ``rows``, by actor."""
    actors = [actor for row in rows for actor in (row.created_by, row.revoked_by)]
    return accounts.key_names(database, actors)


def _row(row: accounts.KeyRow, names: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    return (
        ids.show("key", row.key_id),
        row.role,
        _last_used(row, now),
        row.account,
        row.name,
        *(f"{row.created_at:%Y-%m-%d}", _who(row.created_by, names)),
        f"{row.expires_at:%Y-%m-%d}" if row.expires_at else "",
        f"{row.revoked_at:%Y-%m-%d}" if row.revoked_at else "",
        _who(row.revoked_by, names),
        row.highest_priority,
        _limits(row),
        row.redacted_key,
    )


def _last_used(row: accounts.KeyRow, now: datetime) -> str:
    """Return when a live key was last used, or why another one cannot be used, in at most nine characters."""
    if row.revoked_at is not None:
        return "revoked"
    if not row.is_live(now):
        return "expired"
    if row.last_used_at is None:
        return "never"
    age = max(now - row.last_used_at, timedelta(0))
    if age.days:
        return f"{age.days} d ago"
    minutes = age.seconds // 60
    return f"{minutes // 60} h ago" if minutes >= 60 else f"{minutes} min ago"  # noqa: PLR2004 - minutes of an hour


def _who(actor: str | None, names: Mapping[str, str]) -> str:
    name = names.get(actor or "")
    return actor or "" if name is None else f"key:{name}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _document(row: accounts.KeyRow, names: Mapping[str, str]) -> output.Json:
    """Return a key as the API shows it."""
    return Key.of(row, names=dict(names)).model_dump(mode="json", exclude={"key"})


def _limits(row: accounts.KeyRow) -> str:
    """Return the limits that were set for a key, as text."""
    limits = []
    if row.requests_per_minute is not None:
        limits.append(f"{row.requests_per_minute}/min")
    if row.max_body_mb is not None:
        limits.append(f"{row.max_body_mb} MiB")
    return ", ".join(limits)
