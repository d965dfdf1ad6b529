"""Whose API a path belongs to: `/v1` is OpenAI's; DeepSeek's base URL is the root, and `/beta`."""

_OURS = ("/api/", "/health", "/ready", "/metrics", "/tokenize", "/detokenize")


def is_deepseek(path: str) -> bool:
    """Whether a path is asked by those who speak to DeepSeek's own base URL."""
    return not path.startswith(("/v1/", "/anthropic/", *_OURS))


def is_page(path: str) -> bool:
    """Whether a path is asked by our own page."""
    return path.startswith("/api/")


def is_anthropic(path: str) -> bool:
    """Whether a path is asked by those who speak Anthropic's API."""
    return path.startswith(("/v1/messages", "/anthropic/"))
