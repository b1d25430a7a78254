"""RFC 8460 §4.4 as a JSON schema, and as much of a validator as that needs.

The schema is stricter than the RFC where the RFC leaves no doubt what a strict reader wants: what
is not known is left out, never empty, and nothing is there that the RFC does not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

NAME = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
ADDRESS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f:.]*:[0-9a-f:.]+"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def text(pattern: str = r"[^\x00-\x1f\x7f]+") -> Schema:
    return {"type": "string", "pattern": pattern}


def thing(properties: dict[str, Schema], *optional: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def many(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}

POLICY = thing(
    {
        "policy-type": {"type": "string", "enum": ["tlsa", "sts", "no-policy-found"]},
        "policy-string": many(text(), 1),
        "policy-domain": text(NAME),
        "mx-host": many(text(r"(?:\*\.)?" + NAME), 1),
    },
    "policy-string",
    "mx-host",
)

FAILURE = thing(
    {
        "result-type": {
            "type": "string",
            "enum": [
                "starttls-not-supported",
                "certificate-host-mismatch",
                "certificate-expired",
                "certificate-not-trusted",
                "validation-failure",
                "tlsa-invalid",
                "dnssec-invalid",
                "dane-required",
                "sts-policy-fetch-error",
                "sts-policy-invalid",
                "sts-webpki-invalid",
            ],
        },
        "sending-mta-ip": text(ADDRESS),
        "receiving-mx-hostname": text(NAME),
        "receiving-mx-helo": text(NAME),
        "receiving-ip": text(ADDRESS),
        "failed-session-count": {**COUNT, "minimum": 1},
        "additional-information": text(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+"),
        "failure-reason-code": text(),
    },
    "sending-mta-ip",
    "receiving-mx-hostname",
    "receiving-mx-helo",
    "receiving-ip",
    "additional-information",
    "failure-reason-code",
)

REPORT = thing(
    {
        "organization-name": text(),
        "date-range": thing(
            {
                "start-datetime": text(DATE + "T00:00:00Z"),
                "end-datetime": text(DATE + "T23:59:59Z"),
            }
        ),
        "contact-info": text(r"[^@<> ]+@" + NAME),
        "report-id": text(r"[!-~]+"),
        "policies": many(
            thing(
                {
                    "policy": POLICY,
                    "summary": thing(
                        {
                            "total-successful-session-count": COUNT,
                            "total-failure-session-count": COUNT,
                        }
                    ),
                    "failure-details": many(FAILURE),
                }
            ),
            1,
        ),
    }
)

_TYPES: dict[str, type] = {"object": dict, "array": list, "string": str, "integer": int}


def problems(schema: Schema, value: object, at: str = "$") -> Iterator[str]:
    """What is wrong with a value, each with its place."""
    wanted = _TYPES[schema["type"]]
    if not isinstance(value, wanted) or isinstance(value, bool):
        yield f"{at}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, str):
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            yield f"{at}: {value!r} does not match"
    elif isinstance(value, int):
        if not schema["minimum"] <= value <= schema["maximum"]:
            yield f"{at}: {value} is out of range"
    elif isinstance(value, list):
        if len(value) < schema["minItems"]:
            yield f"{at}: too few"
        for n, item in enumerate(value):
            yield from problems(schema["items"], item, f"{at}[{n}]")
    elif isinstance(value, dict):
        yield from (f"{at}: {name} is missing" for name in schema["required"] if name not in value)
        for name, item in value.items():
            if name in schema["properties"]:
                yield from problems(schema["properties"][name], item, f"{at}.{name}")
            else:
                yield f"{at}: {name} is not in the schema"
