"""Pretraining on documents beside xz: bits per byte of held-out pages, language by language.

Runs recipes/docs.toml from nothing on a folder with one sub-folder a language, and prints one JSON object:
for every language the bits that the model needs for each byte of the held-out pages, and those that xz needs
(LZMA, preset 9, all held-out pages of the language in one piece; the model reads each page alone); and the
seconds that the whole run took, tokenizer, compilation and its own measuring included.

    make bench-docs                # or: .venv/bin/python benchmarks/docs.py --data DIR
"""

import argparse
import json
import lzma
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from clearseek.config.load import load_recipe
from clearseek.config.recipe import Recipe
from clearseek.eval.bits_per_byte import bits_per_byte
from clearseek.ledger.machine import describe_machine
from clearseek.model.checkpoint import load_model
from clearseek.model.device import choose_device
from clearseek.recipe.run import run_recipe
from clearseek.text.sources import open_source
from clearseek.text.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "docs.toml"
DATA = Path(os.environ.get("CLEARSEEK_DATA", ROOT / "../shared/data")) / "docs"


def held_out_pages(recipe: Recipe) -> dict[str, list[str]]:
    """The pages that the recipe's pretraining holds out, by sub-folder."""
    (source,) = recipe.stages["pretrain"].data
    _, held_out = open_source(source.path).split(source.hold_out_every)
    pages: dict[str, list[str]] = defaultdict(list)
    for group, document in held_out.documents_by_group():
        pages[group].append(document.text)
    return dict(pages)


def xz_bits_per_byte(pages: list[str]) -> float:
    """What xz -9 makes of all pages in one piece."""
    content = "".join(pages).encode()
    return 8 * len(lzma.compress(content, preset=9)) / len(content)


def measure(run_dir: Path, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Both figures for every language."""
    checkpoint, choice = run_dir / "checkpoints" / "pretrain", choose_device()
    model = load_model(checkpoint, device=choice.device)
    tokenizer, length = Tokenizer.load(checkpoint), recipe.stages["pretrain"].sequence_length
    return {
        language: {
            "pages": len(pages),
            "bytes": sum(len(page.encode()) for page in pages),
            "bits_per_byte": round(bits_per_byte(model, tokenizer, pages, length, choice.dtype), 4),
            "xz_bits_per_byte": round(xz_bits_per_byte(pages), 4),
        }
        for language, pages in sorted(held_out_pages(recipe).items())
    }


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with one sub-folder a language")
    parser.add_argument("--out", type=Path, help="keep the run here; default: a temporary folder")
    parser.add_argument(
        "-s", "--set", dest="overrides", action="append", default=[], metavar="STAGE.KEY=VALUE"
    )
    chosen = parser.parse_args()
    data = f"[{{ path = {json.dumps(str(chosen.data))}, hold_out_every = 20 }}]"
    overrides = [f"tokenizer.data={data}", f"pretrain.data={data}", *chosen.overrides]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = run_recipe(str(RECIPE), overrides, out=chosen.out or Path(folder) / "docs")
        seconds = time.perf_counter() - started
        languages = measure(result.run_dir, load_recipe(RECIPE, overrides))
    better = all(figures["bits_per_byte"] < figures["xz_bits_per_byte"] for figures in languages.values())
    machine = {**describe_machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({
        "languages": languages,
        "below_xz": better,
        "wall_seconds": round(seconds, 1),
        "tokens": result.report["stages"][-1]["tokens"],
        "machine": machine,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
