"""The languages Whisper knows, by ISO 639-1 code (or 639-3 where there is none), with their English names."""

from __future__ import annotations

import difflib

from callreel.errors import InvalidInput

_TABLE = """
en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese
tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi
fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish
hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin
mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian
az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic
hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician
mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan
ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek
fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish
my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa
ba:bashkir jw:javanese su:sundanese yue:cantonese
"""
NAMES = {code: name.replace("_", " ") for code, name in (entry.split(":") for entry in _TABLE.split())}
_CODES = {name: code for code, name in NAMES.items()}


def code_of(language: str) -> str:
    """The code of a language given by code or English name, in any case. Raises InvalidInput with the nearest one."""
    asked = language.strip().lower().replace("_", "-")
    for spelling in (asked, asked.split("-")[0]):  # "pt-BR" is Portuguese
        if spelling in NAMES:
            return spelling
        if spelling in _CODES:
            return _CODES[spelling]
    like = difflib.get_close_matches(asked, [*NAMES, *_CODES], n=1)
    raise InvalidInput(
        f"There is no language {language!r}" + (f"; {like[0]!r} is the nearest" if like else ""),
        hint="Give an ISO 639-1 code such as en or sw, or an English name",
        field="language",
    )
