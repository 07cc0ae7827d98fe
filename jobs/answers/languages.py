"""Whether the language of a question writes decimals with a comma: 3,5. Pure."""

from __future__ import annotations

import re

#: Words that are frequent in questions, by language. No word is an English one.
_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "de": "der das wie viel viele wieviel wieviele ist sind auf dem den bild welche welcher welches und ein eine "
        "einen nicht groß lang hoch schwer lautet zeigt wird beträgt kostet wert",
        "fr": "le les combien quel quelle quels quelles est sont sur dans une des du un et il cette ce pèse mesure "
        "vaut hauteur",
        "es": "el los las cuánto cuánta cuántos cuántas cuanto cuantos cuantas cuál cual qué es son en una un del y "
        "hay imagen pesa mide cuesta vale",
        "it": "il gli quanto quanta quanti quante quale quali è sono nella nell una un ci e immagine pesa misura costa",
        "pt": "o os quanto quanta quantos quantas qual é são na da do uma um e há imagem pesa mede custa",
        "nl": "het een hoeveel welke hoe zijn er van op en wat weegt kost lang hoog afbeelding groot",
        "pl": "ile jest są jaki jaka jakie na zdjęciu obrazku i waży kosztuje",
        "cs": "kolik je jsou jaký jaká jaké na obrázku váží stojí",
        "sv": "hur många mycket är vilken vilket på bilden det ett och väger kostar",
        "da": "hvor mange meget er hvilken hvilket på billedet bildet det et og vejer koster veier",
        "fi": "kuinka monta paljonko mikä mitä on kuvassa ja",
        "tr": "kaç tane nedir ne kadar resimde görüntüde var ve bu",
        "hu": "hány mennyi milyen hogy van képen és mekkora",
        "ro": "câte câți cât care este sunt în imagine și",
        "id": "berapa banyak apa yang ada pada gambar dan",
        "vi": "bao nhiêu có là gì trong ảnh và",
    }.items()
}
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the how many much what which is are of in on at does do this that there image and to a an it who where",
    )
)
#: Scripts whose languages write a decimal comma: Cyrillic, Greek.
_SCRIPTS = re.compile(r"[\u0370-\u03ff\u0400-\u04ff]{3}")
_WORD = re.compile(r"[^\W\d_]+")
#: The most characters of a question that are read.
_MAX_QUESTION = 2000
#: Words of a question in which one known word is enough.
_SHORT = 2


def decimal_comma(question: str) -> bool:
    """Return whether ``question`` is in a language that writes a decimal comma; False if that is not clear."""
    if _SCRIPTS.search(question[:_MAX_QUESTION]):
        return True
    words = [word.casefold() for word in _WORD.findall(question[:_MAX_QUESTION])]
    english = sum(word in _ENGLISH for word in words)
    most = max(sum(word in known for word in words) for known in _WORDS.values())
    # A single word may be a name: van Gogh.
    return most > english and (most > 1 or len(words) <= _SHORT)
