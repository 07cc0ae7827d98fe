"""Signs attempts: opens the live secrets, and makes the ones that do not exist yet."""

import functools
import uuid
from datetime import datetime

from core import ids
from core.database import Database
from core.vault import Vault
from webhooks import claims, secrets, signature

_AGENT = "Longlook-Webhooks/1.0"


class SecretSigner:
    """Makes the headers of attempts.

    Args:
        database: where sealed secrets are stored.
        vault: opens them.
    """

    def __init__(self, database: Database, *, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def headers(self, claim: claims.DeliveryClaim, *, at: datetime) -> dict[str, str]:
        """Return the headers of an attempt that is made at ``at``, signed with all live secrets.

        Raises:
            core.database_faults.DatabaseUnavailable: a secret must be made, and the database does not answer.
            core.errors.SettingsError: the vault does not have the key that sealed a secret.
        """
        sealed = claim.secrets or (self._default(claim.account_id),)
        return {
            "content-type": "application/json",
            "user-agent": _AGENT,
            **signature.headers(
                ids.show("evt", claim.event_id),
                claim.payload,
                at=at,
                secrets=[self._vault.open(secret) for secret in sealed],
                private_key=self._private_key,
            ),
        }

    @functools.cached_property
    def _private_key(self) -> str:
        pair = secrets.signing_key(self._database, make=lambda: secrets.new_pair(self._vault))
        return self._vault.open(pair.private)

    def _default(self, account_id: uuid.UUID) -> bytes:
        stored = secrets.default_secret(
            self._database, account_id, make=lambda: secrets.new_secret(self._vault)[1]
        )
        return stored.secret
