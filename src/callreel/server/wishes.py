"""What a request may ask of a transcription: the fields that several routes share, checked, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from callreel.engines.base import Capabilities
from callreel.engines.languages import code_of
from callreel.errors import InvalidInput
from callreel.offline.options import TranscribeOptions

MAX_TEXT = 10_000  # characters of a prompt, of all hotwords
ANY_ENGINE = Capabilities(translate=True)  # what no engine could do is refused at once


def _language(given: str) -> str:
    try:
        return code_of(given)
    except InvalidInput as error:
        raise PydanticCustomError("language", "{said}", {"said": str(error)}) from None


def _many(value: Any) -> Any:
    """A JSON body may hold one where several are allowed."""
    return [value] if isinstance(value, str) else value


def _split(value: Any) -> Any:
    """ "en, sw" is two, as are two fields."""
    if not isinstance(value, (str, list)):
        return value
    parts = [part.split(",") if isinstance(part, str) else [part] for part in _many(value)]
    return [one.strip() if isinstance(one, str) else one for part in parts for one in part]


Language: TypeAlias = Annotated[str, AfterValidator(_language)]
SomeLanguage: TypeAlias = Annotated[Language | None, BeforeValidator(lambda given: None if given == "auto" else given)]
Languages: TypeAlias = Annotated[list[Language], BeforeValidator(_split)]
Texts: TypeAlias = Annotated[list[Annotated[str, Field(max_length=MAX_TEXT)]], BeforeValidator(_many)]
Text: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT)]
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def hotwords(*given: Sequence[str]) -> str:
    """As engines take them."""
    return ", ".join(word.strip() for words in given for word in words if word.strip())


def checked(options: TranscribeOptions) -> TranscribeOptions:
    """Raises InvalidInput for what no engine could do."""
    options.check(ANY_ENGINE)
    return options
