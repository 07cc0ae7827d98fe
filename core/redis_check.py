"""Whether Redis takes what Longlook does. PING proves little: a replica, a full server, or an ACL answers it, too."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Iterator
from typing import Final

import redis
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from core.errors import SettingsError, Unavailable

CLUSTER: Final = (
    "It is a Redis Cluster, which Longlook does not support: use a single server, or Sentinel."
)
UNKNOWN_PREFIX: Final = "The prefix of its keys is in the database, which does not answer."
_SILENT: Final = "It does not respond."
#: The start of a server's error -> what it means. redis-py has classes for some of them only.
_MEANINGS: Final = {
    "CROSSSLOT": CLUSTER,
    "MOVED": CLUSTER,
    "ASK": CLUSTER,
    "CLUSTERDOWN": CLUSTER,
    "NOAUTH": "It requires a password.",
    "WRONGPASS": "It refuses the user name or the password.",
    "NOPERM": "Its ACL forbids this user a command, key, or channel under the prefix.",
    "READONLY": "It is a read-only replica.",
    "OOM": "It is out of memory (`maxmemory`) and refuses writes.",
    "MISCONF": "It refuses writes because it cannot save its data (MISCONF).",
    "NOREPLICAS": "It refuses writes because it has too few replicas (NOREPLICAS).",
    "MASTERDOWN": "It is a replica without a link to its primary.",
    "LOADING": "It is loading its data.",
    "DENIED": "It runs in protected mode, which allows local clients only.",
}
_CLASSES: Final[dict[type[Exception], str]] = {
    redis.exceptions.ClusterError: CLUSTER,
    redis.exceptions.ClusterDownError: CLUSTER,
    redis.exceptions.ClusterCrossSlotError: CLUSTER,
    redis.exceptions.MovedError: CLUSTER,
    redis.exceptions.AskError: CLUSTER,
    redis.exceptions.AuthenticationError: "It refuses the user name or the password.",
    redis.exceptions.NoPermissionError: _MEANINGS["NOPERM"],
    redis.exceptions.ReadOnlyError: _MEANINGS["READONLY"],
    redis.exceptions.OutOfMemoryError: _MEANINGS["OOM"],
    redis.exceptions.BusyLoadingError: _MEANINGS["LOADING"],
    redis.exceptions.MaxConnectionsError: "It has no free connection.",
    MasterNotFoundError: "No Sentinel responds, or none knows a primary of this name.",
    SlaveNotFoundError: "No Sentinel responds, or none knows a primary of this name.",
}


def problem(client: redis.Redis, prefix: Callable[[], str] | None) -> str | None:
    """Do under the prefix what wakeups, live events, and rate limits do, and leave nothing behind.

    Args:
        client: of the server.
        prefix: returns the prefix of all keys and channels; it may read the database. None: only check
            whether the server responds.

    Returns:
        None if all of it succeeds; otherwise one sentence that says why not, without text of the server.
    """
    try:
        if prefix is None:
            client.ping()
        else:
            _use(client, prefix())
    except Unavailable:
        return UNKNOWN_PREFIX
    except (redis.RedisError, OSError) as error:
        return meaning(error)
    return None


def refuse_cluster(client: redis.Redis, prefix: Callable[[], str]) -> None:
    """Check at the start of a process that the server is no cluster. Any other problem may end while it runs.

    Args:
        client: of the server.
        prefix: as for :func:`problem`.

    Raises:
        core.errors.SettingsError: the server is one.
    """
    if problem(client, prefix) == CLUSTER:
        raise SettingsError(f"LONGLOOK_REDIS_URL: {CLUSTER}")


def meaning(error: BaseException) -> str:
    """Return what an error of redis-py or kombu says about the server, as one sentence."""
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"Its TLS certificate is not accepted: {one.verify_message}."
        if isinstance(one, ssl.SSLError):
            return "The TLS handshake fails."
    for one in _chain(error):
        # redis-py puts the command in front, if it was part of a transaction.
        first = (
            str(one).rpartition("caused error: ")[2].split(" ", 1)[0].rstrip(":").removeprefix("-")
        )
        if first in _MEANINGS:
            return _MEANINGS[first]
        for known, sentence in _CLASSES.items():
            if isinstance(one, known):
                return sentence
    if any(isinstance(one, redis.ResponseError) for one in _chain(error)):
        return "It refuses a command that Longlook needs."
    return _SILENT


def _use(client: redis.Redis, prefix: str) -> None:
    """Run each kind of command once. The keys are those of this call, and none survives it."""
    name = f"{prefix}check:{secrets.token_hex(8)}"
    keys = [f"{name}:{part}" for part in ("list", "other", "set", "sorted", "hash", "lock")]
    list_, other, set_, sorted_, hash_, lock = keys
    # A transaction is refused as a whole, so a refusal leaves no key.
    with client.pipeline(transaction=True) as pipe:
        # The key of `WATCH` and that of the transaction may be in different slots of a cluster.
        pipe.watch(hash_)  # type: ignore[no-untyped-call] # redis has no types here
        pipe.multi()
        pipe.lpush(list_, "1")
        pipe.rpush(other, "1")
        pipe.llen(list_)
        # With two keys, as Celery waits for several queues: a cluster refuses them.
        pipe.brpop([list_, other], timeout=1)
        pipe.sadd(set_, "1")
        pipe.smembers(set_)
        pipe.zadd(sorted_, {"1": 1})
        pipe.zrange(sorted_, 0, -1)
        pipe.zrem(sorted_, "1")
        pipe.hset(hash_, "1", "1")
        pipe.hget(hash_, "1")
        pipe.hdel(hash_, "1")
        pipe.set(lock, "1", px=1000, nx=True)
        pipe.eval("return redis.call('GET', KEYS[1])", 1, lock)
        pipe.publish(f"{prefix}check", "1")
        pipe.delete(*keys)
        pipe.execute()
    with client.pubsub(ignore_subscribe_messages=False) as pubsub:  # type: ignore[no-untyped-call] # redis has no types here
        pubsub.subscribe(f"{prefix}check")
        pubsub.get_message(timeout=1)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
