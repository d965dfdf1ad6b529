"""GGUF, the file format of llama.cpp: models of our families written into it and read from it."""
