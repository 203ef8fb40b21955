"""The filter's configuration, checked. It knows nothing of the gateway, so that `python -m unittest` can run it."""

import json
import re
from dataclasses import dataclass, field, fields

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Mistake(Exception):
    """What is wrong, beginning with a pointer to the field."""


@dataclass
class Settings:
    header: str
    values: list[str] = field(default_factory=list)
    stamp: str = "x-checked-by"

    @staticmethod
    def read(text):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise Mistake(f"it is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise Mistake("an object is needed")
        known = [each.name for each in fields(Settings)]
        for name in given:
            if name not in known:
                raise Mistake(f"/{name}: unknown field; there are {', '.join(known)}")
        if "header" not in given:
            raise Mistake("/header: the name of a header is needed")
        settings = Settings(**given)
        for name in ("header", "stamp"):
            value = getattr(settings, name)
            if not isinstance(value, str) or not HEADER_NAME.fullmatch(value):
                raise Mistake(f"/{name}: the name of a header is needed")
        if not isinstance(settings.values, list) or not all(isinstance(value, str) for value in settings.values):
            raise Mistake("/values: a list of texts is needed")
        return settings
