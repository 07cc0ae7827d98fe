"""Endpoints and secrets: stored sealed, rotated with an overlap, sealed again by a new key."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from core import errors
from core.database import Database
from core.vault import Vault
from tests import factories, races, webhooks
from tests.databases import Age
from webhooks import attempts, endpoints, secrets
from webhooks.policy import Webhook
from webhooks.tables import WebhookEndpoint

NEW = endpoints.StoredSecret(sealed=b"a newer sealed secret", redacted="whsec_…ewer")
OLD = webhooks.SECRET.sealed


def rotated(database: Database, endpoint: WebhookEndpoint, *, keep_old: bool) -> WebhookEndpoint:
    found = endpoints.rotate(database, endpoint.id, account_id=None, secret=NEW, keep_old=keep_old)
    assert found is not None
    return found


def test_endpoints_are_listed_in_pages_of_their_account(
    database: Database, account_id: uuid.UUID
) -> None:
    made = [webhooks.make_endpoint(database, account_id).id for _ in range(3)]
    webhooks.make_endpoint(database, factories.make_account(database))

    first, more = endpoints.page(database, account_id=account_id, limit=2)
    rest, no_more = endpoints.page(database, account_id=account_id, limit=2, after=first[-1].id)

    assert [endpoint.id for endpoint in (*first, *rest)] == made[::-1]
    assert (more, no_more) == (True, False)


def test_an_account_has_a_limited_number_of_endpoints(
    database: Database, account_id: uuid.UUID
) -> None:
    def make(owner: uuid.UUID) -> uuid.UUID:
        return endpoints.create(
            database,
            account_id=owner,
            name="prod",
            url="https://receiver.example/hook",
            event_types=["job.failed"],
            secret=NEW,
            most=2,
        ).id

    first, _ = (make(account_id) for _ in range(2))

    with pytest.raises(errors.Conflict):
        make(account_id)

    make(factories.make_account(database))
    endpoints.delete(database, first, account_id=account_id)
    made = make(account_id)
    assert endpoints.get(database, made, account_id=account_id) is not None


def test_an_account_creates_a_limited_number_of_endpoints_a_day(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    def make(owner: uuid.UUID) -> uuid.UUID:
        return endpoints.create(
            database,
            account_id=owner,
            name="prod",
            url="https://receiver.example/hook",
            event_types=["job.failed"],
            secret=NEW,
            most_a_day=2,
        ).id

    made = [make(account_id) for _ in range(2)]
    for endpoint_id in made:
        endpoints.delete(database, endpoint_id, account_id=account_id)

    with pytest.raises(errors.Conflict, match="within 24 hours"):
        make(account_id)

    make(factories.make_account(database))
    age(25 * 3600)
    make(account_id)


def test_an_update_that_changes_nothing_keeps_the_times(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    age(60)
    same = endpoints.update(database, endpoint.id, account_id=account_id, name=endpoint.name)
    assert same is not None
    assert same.updated_at - same.created_at < timedelta(seconds=1)

    changed = endpoints.update(
        database, endpoint.id, account_id=account_id, event_types=["job.failed"]
    )

    assert changed is not None
    assert changed.event_types == ["job.failed"]
    assert changed.updated_at - changed.created_at > timedelta(seconds=59)


def test_a_deleted_endpoint_is_gone_with_its_secrets(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    assert endpoints.delete(database, endpoint.id, account_id=account_id)
    assert not endpoints.delete(database, endpoint.id, account_id=account_id)

    assert endpoints.get(database, endpoint.id, account_id=None) is None
    [left] = webhooks.claim(database)
    assert (left.barred, left.secrets) == ("endpoint_deleted", ())


def test_the_old_secret_also_signs_for_a_day(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    rotated(database, endpoint, keep_old=True)
    webhooks.run_job(database, account_id)
    age(86_400 - 60)
    [during] = webhooks.claim(database)
    attempts.settle(database, during, webhooks.OK, rng=webhooks.RNG)
    webhooks.run_job(database, account_id)
    age(120)
    [after] = webhooks.claim(database)

    assert during.secrets == (NEW.sealed, OLD)
    assert after.secrets == (NEW.sealed,)


def test_a_secret_that_is_replaced_ends_at_once(database: Database, account_id: uuid.UUID) -> None:
    endpoint = rotated(database, webhooks.make_endpoint(database, account_id), keep_old=False)
    webhooks.run_job(database, account_id)

    [claimed] = webhooks.claim(database)

    assert claimed.secrets == (NEW.sealed,)
    assert (endpoint.redacted_secret, endpoint.previous_secret) == (NEW.redacted, None)


def test_an_accounts_default_secret_is_made_once_and_rotated(
    database: Database, account_id: uuid.UUID
) -> None:
    def make() -> bytes:
        found = secrets.default_secret(database, account_id, make=lambda: secret(uuid.uuid4().hex))
        return found.secret

    first = races.race(make, make)
    assert len(set(first)) == 1
    stored = secrets.rotate_default(database, account_id, secret=NEW)
    webhooks.run_job(database, account_id, webhook=Webhook(url="https://app.example/").plain())
    [claimed] = webhooks.claim(database)

    assert claimed.secrets == (NEW.sealed, first[0])
    assert stored.previous_expires_at is not None
    assert stored.previous_expires_at - stored.updated_at == pytest.approx(
        timedelta(hours=24), abs=timedelta(seconds=1)
    )


def secret(text: str) -> endpoints.StoredSecret:
    return endpoints.StoredSecret(sealed=text.encode(), redacted=text[-4:])


def test_the_installations_key_is_made_once(database: Database) -> None:
    first = secrets.signing_key(database, make=lambda: secrets.KeyPair(b"a", "A"))
    again = secrets.signing_key(database, make=lambda: secrets.KeyPair(b"b", "B"))

    assert first == again == secrets.KeyPair(b"a", "A")


def test_all_secrets_are_sealed_again_by_a_new_key(
    database: Database, account_id: uuid.UUID
) -> None:
    old, new = Vault(["old"]), Vault(["new"])
    endpoint = webhooks.make_endpoint(
        database, account_id, secret=endpoints.StoredSecret(old.seal("one"), "…")
    )
    endpoints.rotate(
        database,
        endpoint.id,
        account_id=None,
        secret=endpoints.StoredSecret(old.seal("two"), "…"),
        keep_old=True,
    )
    secrets.rotate_default(
        database, account_id, secret=endpoints.StoredSecret(old.seal("three"), "…")
    )
    secrets.signing_key(database, make=lambda: secrets.KeyPair(old.seal("four"), "whpk_"))

    assert secrets.reseal(database, Vault(["new", "old"]).seal_again) == 4

    found = endpoints.get(database, endpoint.id, account_id=None)
    assert found is not None
    assert found.secret is not None
    assert found.previous_secret is not None
    assert [new.open(found.secret), new.open(found.previous_secret)] == ["two", "one"]
