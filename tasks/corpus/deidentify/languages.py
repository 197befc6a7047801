"""The languages whose names are injected, and made-up names of each: a given and a family name that people have, put together at random."""

import re
from dataclasses import dataclass
from functools import cache
from random import Random

from faker import Faker


@dataclass(frozen=True)
class Language:
    """A language of names: how Faker makes them, or lists of them."""

    name: str
    held_out: bool  # nobody who wrote a recognizer has looked at its names, as at the templates that are held out
    locale: str = ""  # of Faker
    methods: tuple[str, str] = ("first_name", "last_name")
    joined: str | None = None  # in a script without case a name stands as a whole, family name first, with this between its halves
    given: tuple[str, ...] = ()  # where Faker has none
    family: tuple[str, ...] = ()


_ROMANIZED = ("first_romanized_name", "last_romanized_name")
LANGUAGES = {
    "en": Language("English", False, "en_US"),
    "de": Language("German", False, "de_DE"),
    "fr": Language("French", False, "fr_FR"),
    "es": Language("Spanish", False, "es_ES"),
    "it": Language("Italian", False, "it_IT"),
    "pl": Language("Polish", False, "pl_PL"),
    "tr": Language("Turkish", False, "tr_TR"),
    "el": Language("Greek", False, "el_GR"),
    "ru": Language("Russian", False, "ru_RU"),
    "zh": Language("Chinese", False, "zh_CN", joined=""),
    "ar": Language("Arabic", False, "ar_AA", joined=" "),
    "ar_latn": Language(
        "Arabic in Latin letters",
        False,
        given=tuple("Fatima Yusuf Aïcha Omar Layla Khalid Noor Tariq Zaynab Hassan Sa'id Abdullah".split()),
        family=(
            "al-Sayed",
            "bin Rashid",
            "El Masri",
            "ibn Khaldun",
            "Haddad",
            "Benali",
            "Abd al-Rahman",
            "al-Najjar",
            "Khoury",
            "Ould Ahmed",
        ),
    ),
    "cs": Language("Czech", True, "cs_CZ"),
    "hu": Language("Hungarian", True, "hu_HU"),
    "ro": Language("Romanian", True, "ro_RO"),
    "hr": Language("Croatian", True, "hr_HR"),
    "sv": Language("Swedish", True, "sv_SE"),
    "da": Language("Danish", True, "da_DK"),
    "no": Language("Norwegian", True, "no_NO"),
    "fi": Language("Finnish", True, "fi_FI"),
    "pt": Language("Portuguese", True, "pt_PT"),
    "nl": Language("Dutch", True, "nl_NL"),
    "ga": Language("Irish", True, "ga_IE"),
    "uk": Language("Ukrainian", True, "uk_UA"),
    "he": Language("Hebrew", True, "he_IL", joined=" "),
    "hi": Language("Hindi", True, "hi_IN", joined=" "),
    "ja": Language("Japanese", True, "ja_JP", joined=" "),
    "ko": Language("Korean", True, "ko_KR", joined=""),
    "ja_latn": Language("Japanese in Latin letters", True, "ja_JP", _ROMANIZED),
    "zh_latn": Language("Chinese in Latin letters", True, "zh_CN", _ROMANIZED),
    "ko_latn": Language(
        "Korean in Latin letters",
        True,
        given=tuple("Min-jun Seo-yeon Ji-woo Hyun-woo Eun-ji Jae-won Soo-jin Young-ho Hye-rin Sung-min Da-eun Kyung-soo".split()),
        family=tuple("Kim Lee Park Choi Jung Kang Yoon Jang Lim Han Hwang Namgung".split()),
    ),
    "vi": Language(
        "Vietnamese",
        True,
        given=("Thị Hồng", "Văn Đức", "Thu Hà", "Minh Khôi", "Ngọc Ánh", "Quốc Bảo", "Thanh Tùng", "Bích Phượng", "Gia Huy", "Xuân Lộc"),
        family=tuple("Nguyễn Trần Lê Phạm Hoàng Đặng Bùi Đỗ Hồ Ngô Dương Lý Võ".split()),
    ),
}
_NAME = re.compile(r"\{(?:first|last|initial)\}(?:[., ]+\{(?:first|last|initial)\})*")


def slot(name: str, rng: Random) -> str | None:
    """The value of a slot of a language's names, such as ``pl_last``; None for another slot."""
    code, _, half = name.rpartition("_")
    if code not in LANGUAGES or half not in ("first", "last", "initial", "name"):
        return None
    given, family = _half(code, 0, rng), _half(code, 1, rng)
    return {"first": given, "last": family, "initial": given[0], "name": f"{family}{LANGUAGES[code].joined or ''}{given}"}[half]


def in_language(template: str, code: str) -> str:
    """A template whose slots of names take those of a language."""
    if LANGUAGES[code].joined is not None:
        return _NAME.sub(f"{{{code}_name}}", template)
    return re.sub(r"\{(first|last|initial)\}", rf"{{{code}_\1}}", template)


def own_language(template: str) -> str:
    """The language that a template is written in and whose names alone it takes; empty for one in English, which takes all."""
    return next((code for code in re.findall(r"\{(\w+)_(?:first|last)\}", template) if code in LANGUAGES), "")


def _half(code: str, half: int, rng: Random) -> str:
    language = LANGUAGES[code]
    own = (language.given, language.family)[half]
    if own:
        return rng.choice(own)
    fake = _faker(language.locale)
    fake.seed_instance(rng.getrandbits(64))
    return str(getattr(fake, language.methods[half])())


@cache
def _faker(locale: str) -> Faker:
    return Faker(locale)
