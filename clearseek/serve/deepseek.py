"""What DeepSeek's service has besides chats and completions."""

from typing import Any

from fastapi import APIRouter

from clearseek.serve.answer_types import ERRORS, Balance

router = APIRouter(responses=ERRORS)


@router.get("/user/balance", responses={200: {"model": Balance}})
async def balance() -> dict[str, Any]:
    """Nobody pays here: available, and nothing to be spent."""
    nothing = {
        "currency": "USD",
        "total_balance": "0.00",
        "granted_balance": "0.00",
        "topped_up_balance": "0.00",
    }
    return {"is_available": True, "balance_infos": [nothing]}
