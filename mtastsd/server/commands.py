"""The control socket's commands: requests checked, `service.control` asked, values given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from mtastsd import names
from mtastsd.names import Domain, NotADomain
from mtastsd.ports import StoreUnavailable
from mtastsd.postfix import netstring, nexthop
from mtastsd.postfix.nexthop import NextHop
from mtastsd.postfix.socketmap import MAX_REQUEST
from mtastsd.server.admin import BadRequest, Handler, Request
from mtastsd.server.lookups import Lookups
from mtastsd.service.control import Control

T = TypeVar("T")


def handlers(
    control: Control, lookups: Lookups, status: Callable[[], Awaitable[Mapping[str, object]]]
) -> Mapping[str, Handler]:
    """The commands by name."""

    async def query(request: Request) -> object:
        payload = f"{_text(request, 'map', 'postfix')} {_text(request, 'key')}".encode()
        if len(payload) > MAX_REQUEST:
            raise BadRequest("the key is too long")
        answer = await lookups.answer(payload)
        return {
            "reply": _payload(answer.frame),
            "source": answer.source,
            "valid_until": answer.valid_until or None,
        }

    async def show_status(request: Request) -> object:
        return dict(await status())

    async def policy_list(request: Request) -> object:
        page = await _stored(control.policies(_text(request, "after", "")))
        return {"policies": page.rows, "next": page.next}

    async def policy_show(request: Request) -> object:
        return await _stored(control.show(_hop(request)))

    async def policy_refresh(request: Request) -> object:
        return await control.refresh(_domain(request))

    async def policy_flush(request: Request) -> object:
        return {"known": await _stored(control.flush(_domain(request)))}

    return {
        "query": query,
        "status": show_status,
        "policy-list": policy_list,
        "policy-show": policy_show,
        "policy-refresh": policy_refresh,
        "policy-flush": policy_flush,
    }


async def _stored(work: Awaitable[T]) -> T:
    try:
        return await work
    except StoreUnavailable as error:
        raise BadRequest(f"the store can't be read or written now: {error}") from error


def _text(request: Request, name: str, default: str | None = None) -> str:
    value = request.get(name, default)
    if not isinstance(value, str):
        raise BadRequest(f"{name!r} must be a text")
    return value


def _domain(request: Request) -> Domain:
    domain = names.parse(_text(request, "domain"))
    if isinstance(domain, NotADomain):
        raise BadRequest(f"that is no domain ({domain.why})")
    return domain


def _hop(request: Request) -> NextHop:
    hop = nexthop.parse(_text(request, "domain").encode())
    if isinstance(hop, NotADomain):
        raise BadRequest(f"that is no next hop with a policy ({hop.why})")
    return hop


def _payload(frame: bytes) -> str:
    return b"".join(netstring.Decoder(len(frame)).feed(frame)).decode("utf-8", "replace")
