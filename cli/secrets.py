"""``longlook secrets``: the key that encrypts what has to be kept secret, directly in the database."""

from __future__ import annotations

import typer

from cli import output
from core import vault
from core.settings import Settings
from core.vault import Vault
from migrations import schema
from webhooks import secrets

app = typer.Typer(help="Change the key that encrypts secrets.", no_args_is_help=True)


@app.command("rotate")
def rotate() -> None:
    """Encrypt all webhook secrets anew, with a new key; none of them changes.

    A key in the home directory is replaced, and running processes notice. Where LONGLOOK_VAULT_KEY is set, put
    the new key in front of the old one with a comma between them and restart all processes, then run this, and
    then take the old one away. It may be run again at any time.
    """
    settings = Settings.read()
    with schema.opened(settings) as database:
        if settings.vault_key is None:
            # Made first if there is none yet, so that there is one to replace.
            Vault.of(settings)
            vault.add_key(settings)
        count = secrets.reseal(database, Vault.of(settings).seal_again)
        if settings.vault_key is None:
            vault.drop_keys(settings)
    output.event("ok", f"{count} secrets are encrypted with the newest key")
