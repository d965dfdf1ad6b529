"""Broken tokenizer.json files by the hundred: read or refused by name, in a process that must not end early."""

import subprocess
import sys
from pathlib import Path

import pytest

from clearseek.text.tokenizer import Tokenizer

PROGRAM = """
import json, random, sys
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.text.tokenizer import Tokenizer

VALUES = [None, True, 0, -1, 2**31, 2**32, 2**70, 1.5, "", "x", "(", "[z-a]", "<think>", [], {}, [[]], [1, 2]]
VALUES += [{"Regex": "("}, {"type": "BPE"}, {"type": "ByteLevel"}]

def places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items)[:30]:
        yield from places(item, (*place, key))

directory, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
whole = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
whole["model"]["merges"] = whole["model"]["merges"][:5]
choices = [place for place in places(whole) if place]
refused = 0
for _ in range(600):
    content = json.loads(json.dumps(whole))
    for place in rng.choices(choices, k=rng.choice((1, 1, 2))):
        holder = content
        try:
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = rng.choice(VALUES)
        except (KeyError, IndexError, TypeError):
            continue
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    try:
        Tokenizer.load(directory).encode_chat([{"role": "user", "content": "12 < 5 <think>"}])
    except InputError as error:
        assert "tokenizer" in str(error) and "\\n" not in str(error), error
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("seed", range(3))
def test_broken_files_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    Tokenizer.train(["12 + 5 = 17, so the answer is 17."] * 20, 300).save(tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 300
