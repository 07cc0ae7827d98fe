"""Units of measurement in any spelling: 5 m, 5 meters and 5 metres have one unit. Pure."""

from __future__ import annotations

import re
from collections import Counter

#: A unit: its base units, each with its power, in a fixed order.
Unit = tuple[tuple[str, int], ...]

#: The spellings of each unit after its symbol. A plural with s is understood.
_SPELLINGS = {
    name: symbol
    for symbol, names in {
        "m": "m meter metre 米",
        "km": "km kilometer kilometre 千米 公里",
        "dm": "dm decimeter decimetre 分米",
        "cm": "cm centimeter centimetre 厘米",
        "mm": "mm millimeter millimetre 毫米",
        "µm": "µm μm um micrometer micrometre micron 微米",
        "nm": "nm nanometer nanometre 纳米",
        "in": "in inch inches 英寸",
        "ft": "ft foot feet 英尺",
        "yd": "yd yard",
        "mi": "mi mile 英里",
        "g": "g gram gramme 克",
        "kg": "kg kgs kilogram kilogramme kilo 千克 公斤",
        "mg": "mg milligram 毫克",
        "t": "t ton tonne 吨",
        "lb": "lb lbs pound 磅",
        "oz": "oz ounce 盎司",
        "s": "s sec second 秒",
        "ms": "ms millisecond 毫秒",
        "min": "min minute 分钟",
        "h": "h hr hour 小时",
        "d": "day 天",
        "wk": "week 周",
        "yr": "yr year",
        "l": "l liter litre 升",
        "ml": "ml milliliter millilitre 毫升",
        "v": "v volt 伏 伏特",
        "a": "a amp ampere 安 安培",
        "mv": "mv millivolt 毫伏",
        "kv": "kv kilovolt 千伏",
        "ma": "ma milliamp milliampere 毫安",
        "w": "w watt 瓦 瓦特",
        "mw": "mw milliwatt 毫瓦",
        "kw": "kw kilowatt 千瓦",
        "megaw": "megaw megawatt 兆瓦",
        "n": "n newton 牛 牛顿",
        "j": "j joule 焦 焦耳",
        "kj": "kj kilojoule 千焦",
        "pa": "pa pascal 帕",
        "hz": "hz hertz 赫兹",
        "khz": "khz kilohertz 千赫",
        "megahz": "megahz megahertz 兆赫",
        "ω": "ω ohm 欧 欧姆",
        "mol": "mol mole 摩尔",
        "°c": "°c celsius centigrade 摄氏度",
        "°f": "°f fahrenheit 华氏度",
        "°": "° deg degree 度",
        "rad": "rad radian 弧度",
        "%": "% percent",
        "$": "$ dollar usd 美元",
        "€": "€ euro eur 欧元",
        "£": "£ gbp 英镑",
        "¥": "¥ yen jpy 日元",
        "₩": "₩ won krw 韩元",
        "₹": "₹ rupee inr 卢比",
        "元": "元 yuan rmb cny 人民币",
    }.items()
    for name in names.split()
}
#: Whole units that are written as one word.
_COMPOUND: dict[str, Unit] = {
    **dict.fromkeys(("kmh", "kph"), (("h", -1), ("km", 1))),
    "mph": (("h", -1), ("mi", 1)),
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
#: A unit with its power: m, cm², s^-1, square meters, meters squared.
_FACTOR = re.compile(
    r"(?P<before>(?:square|sq|cubic|cu)\.?\s{1,2}|平方|立方)?(?P<degrees>degrees?\s{1,2}(?=celsius|centigrade|fahrenheit|[cf]\b)|deg\.?\s(?=[cf]\b))?"
    r"(?P<name>°\s?[cf]?|[€$%£¥₩₹]|[^\W\d_⁰¹²³⁴⁵⁶⁷⁸⁹]{1,20})\.?"
    r"(?:\^\{?\s?(?P<power>-?\d)\s?\}?|(?P<raised>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹])|(?P<after>\s(?:squared|cubed)))?"
)
_POWERS = {"sq": 2, "cu": 3, "平": 2, "立": 3}
_BETWEEN = re.compile(r"\s?(?P<per>/|\bper\b)\s?|\s?[·*\u22c5]\s?|\s|\Z")
_MAX_TEXT = 60


def canonical(text: str) -> Unit | None:
    """Return the unit that a folded text names as a whole, or None."""
    if not text or len(text) > _MAX_TEXT:
        return None
    if text in _COMPOUND:
        return _COMPOUND[text]
    powers: Counter[str] = Counter()
    sign, position = 1, 0
    while position < len(text):
        factor = _FACTOR.match(text, position)
        symbol = _symbol(factor) if factor else None
        between = _BETWEEN.match(text, factor.end()) if factor else None
        if factor is None or symbol is None or between is None:
            return None
        powers[symbol] += sign * _power(factor)
        position = between.end()
        if between["per"]:
            sign = -1
            if position == len(text):
                return None
    return tuple(sorted((symbol, power) for symbol, power in powers.items() if power))


def _symbol(factor: re.Match[str]) -> str | None:
    name = factor["name"].replace(" ", "")
    if factor["degrees"]:
        return {"c": "°c", "f": "°f"}.get(name[0])
    return _SPELLINGS.get(name) or (
        _SPELLINGS.get(name[:-1]) if len(name) > len("ms") and name.endswith("s") else None
    )


def _power(factor: re.Match[str]) -> int:
    if factor["before"]:
        return _POWERS[factor["before"][:2].strip()[: 2 if factor["before"].isascii() else 1]]
    if factor["after"]:
        return 2 if "squared" in factor["after"] else 3
    raised = factor["power"] or (factor["raised"] or "1").translate(_RAISED)
    return int(raised)
