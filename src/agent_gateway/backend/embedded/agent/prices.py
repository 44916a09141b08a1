"""What a run uses: tokens, their prices, and times.

Prices come from the list that is part of the installed genai-prices; nothing is fetched. A model costs
something only at an address that this list knows: a server of one's own is not charged like its original.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec
from genai_prices import calc_price
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
)
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.usage import RequestUsage

from agent_gateway.backend.embedded.agent.tokens import about_tokens, bytes_in, tokens_in
from agent_gateway.backend.embedded.stopwatch import Stopwatch
from agent_gateway.domain.turns import Usage

PRICE_UNIT: Final = Decimal("0.001")
"""Unit prices are per thousand tokens."""
_DIGITS: Final = Decimal("1E-12")
"""Prices are rounded to this many US dollars."""


class Meter:
    """Adds up the responses of one run, also those of a run that is stopped or fails.

    Most providers report tokens at the end of a response only. Those of one that was cut are estimated.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch()
        self._tokens = [0, 0]
        self._prices = [Decimal(0), Decimal(0)]
        self._priced = False
        self._asked: Sequence[ModelMessage] | None = None
        """The messages of the request that is not answered yet."""
        self._heard = 0
        """Bytes of its answer so far."""

    @property
    def is_used(self) -> bool:
        """Whether there is anything to count."""
        return self._watch.has_seen or self._tokens != [0, 0]

    def asks(self, messages: Sequence[ModelMessage]) -> None:
        """A request begins, with these messages."""
        self._asked, self._heard = messages, 0

    def hears(self, event: AgentStreamEvent) -> None:
        """An event of the run."""
        self._watch.saw_event()
        match event:
            case PartStartEvent(part=part):
                self._heard += bytes_in(part)
            case PartDeltaEvent(delta=delta):
                said = getattr(delta, "content_delta", None) or getattr(delta, "args_delta", None)
                self._heard += len(str(said).encode(errors="replace")) if said else 0
            case _:
                pass

    def counts(self, response: ModelResponse) -> None:
        """A response is complete."""
        self._asked, self._heard = None, 0
        self._add(response.usage, response)

    def breaks_off(self, response: ModelResponse) -> None:
        """The response to the last request will never be complete; this is what there is of it."""
        asked, self._asked = self._asked, None
        if asked is None or not self._heard:
            return
        reported = response.usage
        usage = RequestUsage(
            input_tokens=reported.input_tokens or about_tokens(asked),
            output_tokens=max(reported.output_tokens, tokens_in(self._heard)),
        )
        self._add(usage, response)

    def usage(self) -> Usage:
        """Tokens, prices and times so far. A price of zero, with a unit of zero, is an unknown one."""
        (asked, said), (asked_price, said_price) = self._tokens, self._prices
        unit = _plain(PRICE_UNIT) if self._priced else "0"
        return msgspec.structs.replace(
            self._watch.usage(asked, said),
            prompt_unit_price=_plain(_average(asked_price, asked)),
            prompt_price_unit=unit,
            prompt_price=_plain(asked_price),
            completion_unit_price=_plain(_average(said_price, said)),
            completion_price_unit=unit,
            completion_price=_plain(said_price),
            total_price=_plain(asked_price + said_price),
        )

    def _add(self, usage: RequestUsage, response: ModelResponse) -> None:
        self._tokens = [self._tokens[0] + usage.input_tokens, self._tokens[1] + usage.output_tokens]
        if (prices := _prices_of(usage, response)) is not None:
            self._prices = [self._prices[0] + prices[0], self._prices[1] + prices[1]]
            self._priced = True


@dataclass
class Metering(AbstractCapability[object]):
    """Tells a meter of each request and each complete response of a run."""

    meter: Meter

    async def before_model_request(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """The request as it is."""
        self.meter.asks(request_context.messages)
        return request_context

    async def after_model_request(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """The response as it is."""
        self.meter.counts(response)
        return response


def _prices_of(usage: RequestUsage, response: ModelResponse) -> tuple[Decimal, Decimal] | None:
    """US dollars for the tokens of the request and of the answer; None when they are unknown."""
    if not response.model_name or not response.provider_url:
        return None
    try:
        found = calc_price(
            usage,
            response.model_name,
            provider_api_url=response.provider_url,
            genai_request_timestamp=response.timestamp,
            price_context=response.provider_details,
        )
    except (LookupError, ValueError, TypeError):
        return None
    return found.input_price.quantize(_DIGITS), found.output_price.quantize(_DIGITS)


def _average(price: Decimal, tokens: int) -> Decimal:
    return (price / tokens / PRICE_UNIT).quantize(_DIGITS) if tokens else Decimal(0)


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
