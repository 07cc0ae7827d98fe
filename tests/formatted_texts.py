"""Texts with and without each string format of JSON Schema."""

from __future__ import annotations

#: Of each format: valid texts; texts that only the grammar allows; other texts.
FORMATTED: dict[str, tuple[list[str], list[str], list[str]]] = {
    "date-time": (
        ["2026-11-30T23:59:59Z", "2024-02-29T00:00:00.123456789+05:30"],
        ["2026-02-30T00:00:00Z", "2026-11-30T23:59:60Z", "0000-01-01T00:00:00Z"],
        ["2026-11-30T23:59:59", "2026-11-30", "2026-11-30 23:59:59Z", "2026-W01-1T10:00:00Z"],
    ),
    "date": (
        ["2026-11-30", "2024-02-29"],
        ["2026-02-30", "2026-11-31", "2023-02-29", "0000-01-01"],
        ["2026-1-3", "20261130", "2026-W48-1", "٢٠٢٦-11-30", "2026-11-30\n", "30.11.2026", ""],
    ),
    "time": (
        ["00:00:00Z", "23:59:59.5-08:00"],
        ["23:59:60Z"],
        ["24:00:00Z", "10:00:00", "10:00Z", "T10:00:00Z", "10:00:00+24:00"],
    ),
    "duration": (
        ["P3W", "P1Y2M3DT4H5M6S", "PT36H", "P1D"],
        [],
        ["P", "PT", "P1YT", "P1Y3D", "PT1.5S", "-P1D", "P1W1D", "3 days"],
    ),
    "email": (
        ["a.b+c@mail.example.com", '"a b"@example.com', "a@b"],
        ["a" * 65 + "@example.com", "a@" + "b" * 64 + ".com"],
        ["@example.com", "a@", "a b@example.com", "a..b@example.com", "a@-b.com", "a"],
    ),
    "hostname": (
        ["www.example.com", "localhost", "a-1.b"],
        ["a" * 64, ".".join(["a" * 60] * 5)],
        ["", "a_b", "-a", "a-", "a..b", "ä.com"],
    ),
    "ipv4": (["192.0.2.1", "255.255.255.255"], ["01.2.3.4", "192.000.002.001"], ["1.2.3", "256.1.1.1"]),
    "ipv6": (["::", "2001:db8::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"], [], ["fe80::1%eth0", "1::2::3", ":"]),
    "uuid": (
        ["123e4567-e89b-12d3-a456-426614174000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"],
        [],
        ["123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}", "1"],
    ),
}  # fmt: skip
