"""Secrets and keys that sign messages: the accounts' default secrets, the installation's ed25519 key. All are sealed.

Each is made once, at its first use: two that make one at the same time both get the one that was stored.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from core.database import Database, Transaction
from core.settings import Settings
from core.vault import Vault
from jobs.store import erased_accounts
from webhooks import signature
from webhooks.endpoints import OVERLAP, StoredSecret
from webhooks.tables import SigningKey, WebhookEndpoint, WebhookSecret


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key pair: the private key sealed, the public key as it is published."""

    private: bytes = field(repr=False)
    public: str


_SEALED = (
    sa.select(SigningKey.private_key).limit(1),
    sa.select(WebhookSecret.secret).limit(1),
    sa.select(WebhookEndpoint.secret)
    .where(WebhookEndpoint.deleted_at.is_(None), WebhookEndpoint.secret.is_not(None))
    .limit(1),
)


def installation_vault(settings: Settings, database: Database) -> Vault:
    """Return the vault of an installation. A missing key is generated only while the database has no secrets.

    Raises:
        core.errors.VaultError: LONGLOOK_VAULT_KEY has no key.
    """
    return Vault.of(settings, is_unused=lambda: not _samples(database))


def check_vault(vault: Vault, database: Database) -> None:
    """Check that the vault opens the secrets of the database; one of each kind is tried.

    Raises:
        core.errors.VaultError: it does not, or it is missing; the message says what to restore.
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    for sealed in _samples(database):
        vault.open(sealed)


def _samples(database: Database) -> list[bytes]:
    """Return a sealed secret of each kind that the database has."""
    with database.reading() as transaction:
        tried = [transaction.execute(statement).scalar_one_or_none() for statement in _SEALED]
        return [sealed for sealed in tried if sealed is not None]


def new_secret(vault: Vault) -> tuple[str, StoredSecret]:
    """Return a new secret, plain and as it is stored."""
    plain = signature.new_secret()
    return plain, StoredSecret(sealed=vault.seal(plain), redacted=signature.redact(plain))


def new_pair(vault: Vault) -> KeyPair:
    """Return a new ed25519 key pair."""
    pair = signature.new_pair()
    return KeyPair(private=vault.seal(pair.private), public=pair.public)


def default_secret(
    database: Database, account_id: uuid.UUID, *, make: Callable[[], StoredSecret]
) -> WebhookSecret:
    """Return the default secret of an account; the first call makes it."""
    with database.reading() as transaction:
        stored = transaction.session.get(WebhookSecret, account_id)
    if stored is not None:
        return stored
    secret = make()
    with database.transaction("secret") as transaction:
        transaction.execute(
            transaction.insert(WebhookSecret)
            .values(
                account_id=account_id,
                secret=secret.sealed,
                redacted_secret=secret.redacted,
                created_at=transaction.now(),
                updated_at=transaction.now(),
            )
            .on_conflict_do_nothing(index_elements=["account_id"])
        )
        return transaction.session.get_one(WebhookSecret, account_id)


def rotate_default(
    database: Database, account_id: uuid.UUID, *, secret: StoredSecret, keep_old: bool = True
) -> WebhookSecret:
    """Give an account a new default secret; with ``keep_old`` the old one also signs for a day.

    Raises:
        core.errors.Unauthenticated: the account is erased.
    """
    with database.transaction() as transaction:
        old = transaction.session.get(WebhookSecret, account_id, with_for_update=True)
        previous = old.secret if old is not None and keep_old else None
        changes = {
            "secret": secret.sealed,
            "redacted_secret": secret.redacted,
            "previous_secret": previous,
            "previous_expires_at": transaction.now(OVERLAP) if previous is not None else None,
            "updated_at": transaction.now(),
        }
        transaction.execute(
            transaction.insert(WebhookSecret)
            .values(account_id=account_id, created_at=transaction.now(), **changes)
            .on_conflict_do_update(index_elements=["account_id"], set_=changes)
        )
        erased_accounts.refuse(transaction, account_id)
        return transaction.session.get_one(WebhookSecret, account_id, populate_existing=True)


def signing_key(database: Database, *, make: Callable[[], KeyPair]) -> KeyPair:
    """Return the installation's signing key; the first call makes it."""
    with database.reading() as transaction:
        stored = transaction.session.get(SigningKey, 1)
    if stored is None:
        pair = make()
        with database.transaction("key") as transaction:
            transaction.execute(
                transaction.insert(SigningKey)
                .values(
                    number=1,
                    private_key=pair.private,
                    public_key=pair.public,
                    created_at=transaction.now(),
                )
                .on_conflict_do_nothing(index_elements=["number"])
            )
            stored = transaction.session.get_one(SigningKey, 1)
    return KeyPair(private=stored.private_key, public=stored.public_key)


def reseal(database: Database, seal_again: Callable[[bytes], bytes]) -> int:
    """Seal all secrets again with the vault's newest key, in one transaction; return how many.

    A transaction that changes a secret meanwhile waits. A reader gets the old or the new seal; the vault opens both.
    """
    both = ("secret", "previous_secret")
    with database.transaction() as transaction:
        return (
            _reseal(transaction, WebhookEndpoint, WebhookEndpoint.id, both, seal_again)
            + _reseal(transaction, WebhookSecret, WebhookSecret.account_id, both, seal_again)
            + _reseal(transaction, SigningKey, SigningKey.number, ("private_key",), seal_again)
        )


def _reseal(
    transaction: Transaction,
    table: type[WebhookEndpoint | WebhookSecret | SigningKey],
    key: sa.orm.InstrumentedAttribute[uuid.UUID] | sa.orm.InstrumentedAttribute[int],
    columns: tuple[str, ...],
    seal_again: Callable[[bytes], bytes],
) -> int:
    count = 0
    rows = transaction.session.scalars(
        sa.select(table).order_by(key).with_for_update(key_share=True)
    )
    for row in rows.all():
        sealed = {name: getattr(row, name) for name in columns}
        again = {name: seal_again(value) for name, value in sealed.items() if value is not None}
        if again:
            transaction.execute(sa.update(table).where(key == getattr(row, key.key)).values(again))
        count += len(again)
    return count
