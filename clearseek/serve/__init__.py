"""HTTP: the OpenAI and DeepSeek shapes over the engine, on one's own machine."""
