"""Text to tokens and back: tokenizers, chat templates, document sources, packing."""
