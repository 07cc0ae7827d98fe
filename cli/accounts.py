"""``longlook accounts``: stored data and storage quotas of accounts, and their erasure, in the database itself."""

from typing import Annotated

import typer

from cli import erasing, output
from core import ids
from core.settings import Settings
from jobs.store import accounts, erasure, storage
from migrations import schema
from webhooks import purge

app = typer.Typer(help="List accounts, set their storage quotas, erase them.", no_args_is_help=True)


@app.command("ls")
def ls(*, as_json: output.AsJson = False) -> None:
    """List accounts with their stored data and quotas."""
    settings = Settings.read()
    with schema.opened(settings) as database:
        rows = storage.accounts(database, default_mb=settings.storage_mb_per_account)
    if output.for_people(as_json=as_json):
        output.table(("id", "account", "stored", "quota"), map(_row, rows), whole=1, ids=("id",))
        return
    output.as_json(
        [
            {
                "id": ids.show("acct", row.account_id),
                "account": row.name,
                **{f"{kind}_bytes": count for kind, count in row.usage.by_kind.items()},
                "total_bytes": row.usage.total,
                "limit_bytes": row.usage.limit,
                "storage_mb": row.storage_mb,
            }
            for row in rows
        ]
    )


@app.command("limit")
def limit(
    account: Annotated[str, typer.Argument(help="Name of the account.", show_default=False)],
    *,
    storage_mb: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Storage quota in MiB; 0 means no quota. Default: LONGLOOK_STORAGE_MB_PER_ACCOUNT.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Set the storage quota of one account. Without the option, the default applies again."""
    with schema.opened(Settings.read()) as database:
        storage.limit_account(database, account, storage_mb=storage_mb)
    output.note(output.printable(f"The limits of {account} have been set."))


@app.command("erase")
def erase(
    account: Annotated[
        str, typer.Argument(help="Name or ID (acct_…) of the account.", show_default=False)
    ],
    *,
    confirm: Annotated[
        str | None,
        typer.Option(help="The same name or ID again; otherwise you type it.", show_default=False),
    ] = None,
) -> None:
    """Erase an account: revoke its keys, cancel its jobs, and remove all content, images and webhooks.

    Usage and times remain under the account's ID. An interrupted command continues when you repeat it.
    """
    with schema.opened(Settings.read()) as database:
        account_id = accounts.account_id(database, account)
        erasing.confirm(
            f"All data of {account} will be erased, and its keys revoked.",
            word=account,
            confirmed=confirm,
        )
        done = erasure.erase_account(
            database,
            account_id,
            actor=erasing.actor(),
            remove_copies=purge.reduce_jobs,
            remove_account=purge.remove_account,
        )
        erasing.clean(database)
    output.event("erased", f"{done.jobs} jobs, {done.images} images")
    if done.running:
        output.note(f"{done.running} jobs still run; repeat the command when they have ended.")
        raise typer.Exit(output.Exit.FAILED)


def _row(row: storage.AccountUsage) -> tuple[str, ...]:
    quota = "none" if row.usage.limit is None else output.size(row.usage.limit)
    return (
        ids.show("acct", row.account_id),
        row.name,
        output.size(row.usage.total),
        quota if row.storage_mb is None else f"{quota} (account)",
    )
