"""Functions that an agent of a shop may call."""

import asyncio
from typing import Literal

from pydantic_ai import ModelRetry

PRICES = {"pizza": 9.5, "pasta": 8.0}


def price(dish: str, size: Literal["small", "large"] = "small") -> float:
    """Look up what a dish costs, in euros.

    Args:
        dish: Its name on the menu.
        size: How big it is.
    """
    if dish not in PRICES:
        raise ModelRetry(f"There is no {dish!r} on the menu, only {', '.join(PRICES)}.")
    return PRICES[dish] * (1.5 if size == "large" else 1.0)


async def order(dish: str, pieces: int) -> str:
    """Order a dish. This costs money."""
    await asyncio.sleep(0)  # here the kitchen would be told
    return f"{pieces} × {dish} will be ready in 20 minutes."
