"""One file per family of generated problems; `clearseek.tasks.registry` lists them.

A family is a module with `NAME`, `LEVELS` and `generate(rng, level, language)`. What `generate` draws from
`rng` never depends on the language, so that the same seed gives the same problem in every language.
"""
