"""``longlook secrets``: change the key that encrypts secrets, directly in the database."""

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
    """Encrypt all webhook secrets with a new key; the secrets do not change.

    A key in the home directory is replaced, and running processes read the new one. If LONGLOOK_VAULT_KEY is set, put
    the new key and a comma in front of the old one, restart all processes, run this command, and then remove the old
    key. The command can be repeated at any time.
    """
    settings = Settings.read()
    with schema.opened(settings) as database:
        secrets.check_vault(secrets.installation_vault(settings, database), database)
        if settings.vault_key is None:
            # Make a key if there is none yet, so that there is one to replace.
            Vault.of(settings)
            vault.add_key(settings)
        count = secrets.reseal(database, Vault.of(settings).seal_again)
        if settings.vault_key is None:
            vault.drop_keys(settings)
    output.event("ok", f"{count} secrets are encrypted with the newest key")
