"""A model that is asked for its opinion at the user's cost, apart from what forks ask."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.limits import BYTES_PER_TOKEN
from tracefork_otel.wire.messages import Usage
from tracefork_otel.wire.registry import load

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types import Message

    from ..store.prices import Given, Price


class PaidModel:
    """A model of Anthropic's, asked with the user's key; any thread may ask."""

    def __init__(
        self,
        model: str,
        *,
        role: str,
        otherwise: str,
        client: Anthropic | None = None,
        prices: Given | None = None,
    ) -> None:
        """A message calls it by its `role`, and says what to do `otherwise`.

        `prices` are those that stand before the price list's, as `rates_given` makes them.
        """
        self.model = model
        self.calls = 0
        """Questions that were answered."""
        self.unpriced = 0
        """Answers whose price is not known."""
        self._role = role
        self._otherwise = otherwise
        self._client = client
        self._prices = dict(prices or {})
        self._takes_temperature = True
        self._spent = 0.0
        self._lock = threading.Lock()

    @property
    def cost_usd(self) -> float | None:
        """What all questions cost so far; None if no price of any is known."""
        return None if self.unpriced and not self._spent else self._spent

    @property
    def unknown(self) -> tuple[str, ...]:
        """Why its price is not known; empty where it is."""
        price = self._price(self.model, Usage(input_tokens=1, output_tokens=1))
        return () if price.reason is None else (price.reason,)

    def priced(self, prices: Given) -> None:
        """Let these prices stand before those it has."""
        self._prices.update(prices)

    def worst_usd(self, characters: int, max_tokens: int) -> float:
        """Return what a question of so many characters costs at most; 0 where no price is known."""
        # A character is a token at most where text is odd, and two letters of JSON where it is escaped.
        return self._price(self.model, Usage(input_tokens=characters, output_tokens=max_tokens)).usd or 0.0

    def likely_usd(self, characters: int, tokens: int) -> float:
        """Return what a question of so many characters and its answer are likely to cost; 0 as above."""
        asked = max(1, characters // BYTES_PER_TOKEN)
        return self._price(self.model, Usage(input_tokens=asked, output_tokens=tokens)).usd or 0.0

    def ask(self, system: str, asked: str, *, max_tokens: int, temperature: float | None = None) -> str:
        """Return the text of the answer; raise UsageError if the model cannot be asked at all."""
        import anthropic

        cold = temperature if self._takes_temperature else None
        try:
            try:
                message = self._create(system, asked, max_tokens, cold)
            except anthropic.BadRequestError as error:
                # Some models take no temperature, and say so.
                if cold is None or "temperature" not in str(error):
                    raise
                self._takes_temperature = False
                message = self._create(system, asked, max_tokens, None)
        except (anthropic.AnthropicError, TypeError) as error:
            # The SDK raises TypeError where it finds no credentials.
            why = str(error).partition("\n")[0]
            raise UsageError(
                f"{self._role} {self.model} cannot be asked: {why}; {self._otherwise}"
            ) from error
        self._count(message)
        return "".join(block.text for block in message.content if block.type == "text")

    def _create(self, system: str, asked: str, max_tokens: int, temperature: float | None) -> Message:
        return self._connected().messages.create(
            model=self.model,
            max_tokens=max_tokens,
            system=system,
            messages=[{"role": "user", "content": asked}],
            # Not an argument of every SDK version.
            extra_body=None if temperature is None else {"temperature": temperature},
        )

    def _connected(self) -> Anthropic:
        import anthropic

        with self._lock:
            if self._client is None:
                self._client = anthropic.Anthropic()
            return self._client

    def _count(self, message: Message) -> None:
        said = load("anthropic").read_reply(message.model_dump())
        price = self._price(message.model or self.model, said.usage).usd
        with self._lock:
            self.calls += 1
            self.unpriced += price is None
            self._spent += price or 0.0

    def _price(self, model: str, used: Usage) -> Price:
        # Here, not above: flags are read without the store.
        from ..store.prices import usage_price

        # A price that was given is of the name that was asked for.
        names = [self.model, model] if self.model in self._prices else [model]
        return usage_price("anthropic", names, used, at=None, given=self._prices)


def ends_of(text: str, most: int) -> str:
    """Return the text, of a longer one both ends; a paid context is not filled with a run's logs."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
