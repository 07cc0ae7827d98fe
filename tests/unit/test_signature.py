"""Signatures against the vectors of Standard Webhooks and official verifiers; secrets that are sealed and opened."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from core import errors, vault
from core.settings import Settings
from core.vault import Vault
from webhooks import signature as webhooks

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BODY = (
    b'{"id":"evt_1","object":"event","created_at":1,"type":"job.succeeded","data":{"id":"job_1"}}'
)


VECTOR = (
    b'{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, '
    b'"type": "response.completed", "data": {"id": "resp_123"}}'
)


@pytest.mark.parametrize(
    ("secret", "message_id", "timestamp", "body", "signature"),
    [
        (
            "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
            "wh_685c059ae39c8190af8c71ed1022a24d",
            1750861210,
            VECTOR,
            "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
        ),
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ],
)
def test_the_symmetric_vectors_hold(
    *, secret: str, message_id: str, timestamp: int, body: bytes, signature: str
) -> None:
    at = datetime.fromtimestamp(timestamp, UTC)

    made = webhooks.headers(message_id, body, at=at, secrets=[secret])

    assert made == {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }


def test_the_asymmetric_vector_holds() -> None:
    private = "whsk_" + base64.b64encode(bytes(range(32))).decode()
    at = datetime.fromtimestamp(1674087231, UTC)

    made = webhooks.headers(
        "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        b'{"type":"contact.created"}',
        at=at,
        secrets=[],
        private_key=private,
    )

    assert made["webhook-signature"] == (
        "v1a,dmvgrAo639dy8KVWbVty0vxDNFmmbx16my7yJo78JM2PT3yVMPMLtjoWbkzZs3hmP19mIKEbovBWKFGxLy/BDA=="
    )


def test_official_verifiers_take_either_secret_during_a_rotation() -> None:
    new, old, pair = webhooks.new_secret(), webhooks.new_secret(), webhooks.new_pair()
    now = datetime.now(UTC)

    made = webhooks.headers("evt_1", BODY, at=now, secrets=[new, old], private_key=pair.private)

    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(BODY.decode(), made)
        client = openai.OpenAI(api_key="none", webhook_secret=secret)
        assert client.webhooks.unwrap(BODY.decode(), made).id == "evt_1"
        client.close()
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(webhooks.new_secret()).verify(BODY.decode(), made)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(pair.public.removeprefix("whpk_")))
    signature = made["webhook-signature"].split()[0].removeprefix("v1a,")
    signed = f"evt_1.{int(now.timestamp())}.".encode() + BODY
    public.verify(base64.b64decode(signature), signed)


def test_a_secret_is_sealed_and_opened_also_by_a_key_that_is_being_changed() -> None:
    sealed = Vault(["old"]).seal("whsec_secret")
    both = Vault(["new", "old"])

    assert b"whsec_secret" not in sealed
    assert both.open(sealed) == "whsec_secret"
    assert Vault(["new"]).open(both.seal_again(sealed)) == "whsec_secret"
    with pytest.raises(errors.SettingsError):
        Vault(["new"]).open(sealed)


def test_without_a_key_one_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)

    sealed = Vault.of(settings).seal("a")

    assert Vault.of(settings).open(sealed) == "a"
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [
        ("vault", 0o600)
    ]
    given = Settings.read({}, vault_key=SecretStr("new, old"))
    assert Vault.of(given).open(Vault(["old"]).seal("b")) == "b"
    with pytest.raises(errors.SettingsError):
        Vault.of(Settings.read({}, vault_key=SecretStr(",")))


def test_a_vault_without_its_keys_fails_and_opens_again_when_they_are_back(
    tmp_path: Path,
) -> None:
    running = Vault.of(Settings.read({}, home=tmp_path))
    sealed = running.seal("a")
    file = tmp_path / vault.VAULT_FILE
    stored = file.read_text()

    file.write_text("")
    with pytest.raises(errors.SettingsError, match="no key exists"):
        running.open(sealed)
    file.unlink()
    with pytest.raises(errors.SettingsError, match="is missing"):
        running.open(sealed)
    file.write_text(stored)

    assert running.open(sealed) == "a"


@pytest.mark.parametrize("by", ["secret", "old secret", "public key"])
def test_what_was_signed_is_genuine(by: str) -> None:
    new, old, pair = webhooks.new_secret(), webhooks.new_secret(), webhooks.new_pair()
    sent = webhooks.headers("evt_1", b"{}", at=NOW, secrets=[new, old], private_key=pair.private)
    secrets = {"secret": [new], "old secret": [old]}.get(by, [])
    key = pair.public if by == "public key" else None

    assert webhooks.verify(sent, b"{}", at=NOW, secrets=secrets, public_key=key) == "evt_1"


@pytest.mark.parametrize(
    ("changed", "body", "minutes"),
    [
        ({}, b"{ }", 0),
        ({}, b"{}", 6),
        ({}, b"{}", -6),
        ({"webhook-id": "evt_2"}, b"{}", 0),
        ({"webhook-id": ""}, b"{}", 0),
        ({"webhook-timestamp": "soon"}, b"{}", 0),
        ({"webhook-timestamp": "\u00b2"}, b"{}", 0),
        ({"webhook-timestamp": "9" * 5000}, b"{}", 0),
        ({"webhook-signature": ""}, b"{}", 0),
        ({"webhook-signature": "v1,é v1a,é v2,AAAA v1"}, b"{}", 0),
    ],
)
def test_what_was_changed_or_is_late_is_not_genuine(
    changed: dict[str, str], body: bytes, minutes: int
) -> None:
    secret, pair = webhooks.new_secret(), webhooks.new_pair()
    sent = webhooks.headers("evt_1", b"{}", at=NOW, secrets=[secret], private_key=pair.private)

    with pytest.raises(webhooks.NotGenuine):
        webhooks.verify(
            sent | changed,
            body,
            at=NOW + timedelta(minutes=minutes),
            secrets=[secret],
            public_key=pair.public,
        )


def test_a_key_that_is_added_while_a_process_runs_is_used_by_it(tmp_path: Path) -> None:
    given = Settings.read({}, home=tmp_path)
    running = Vault.of(given)
    before = running.seal("whsec_secret")

    vault.add_key(given)

    after = running.seal("whsec_secret")
    assert running.open(before) == running.open(after) == "whsec_secret"
    newest, old = (tmp_path / vault.VAULT_FILE).read_text().split()
    assert Vault([newest]).open(after) == "whsec_secret"
    assert Vault([old]).open(before) == "whsec_secret"
    assert (tmp_path / vault.VAULT_FILE).stat().st_mode & 0o777 == 0o600
    with pytest.raises(errors.SettingsError):
        vault.add_key(Settings.read({"LONGLOOK_VAULT_KEY": "set"}, home=tmp_path))
