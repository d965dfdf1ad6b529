"""`clearseek export`: a model rewritten for other programs."""

from pathlib import Path

import click

from clearseek.cli.options import json_option, print_json

EPILOG = """\b
Examples:
  clearseek export runs/r1-mini --to gguf --dtype q8_0
  clearseek export Qwen3-0.6B --to hf --dtype float16 --out Qwen3-0.6B-fp16
  clearseek export model.gguf --to hf

\b
hf     a directory that transformers, vLLM and clearseek open:
       float32, bfloat16, float16, fp8  [default: as stored]
gguf   one file for llama.cpp, Ollama and the like:
       f32, f16, bf16, q8_0, q4_0, q4_k, mxfp4  [default: bf16]

\b
In a GGUF file norms, routers and single rows stay f32; the tensor that gives
the logits is q8_0 in 4-bit files. mxfp4 is for experts, as gpt-oss has them;
the rest is bf16. fp8 is DeepSeek-V3's: blocks of 128 x 128 share a scale;
norms, routers, embedding and head are bfloat16.

Exit codes: 0 written, 1 failed, 2 the model or an option is wrong."""


@click.command("export", epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["hf", "gguf"]), required=True, help="The format to write.")
@click.option("--dtype", metavar="DTYPE", help="How weights are stored; see below.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where to write.  [default: after the model, in the working directory]",
)
@json_option
def command(model: Path, to: str, dtype: str | None, out: Path | None, as_json: bool) -> None:
    """Write a model for other programs: Hugging Face format or GGUF.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    from clearseek.cli.transfer import open_transfer
    from clearseek.model.export import export_model

    with open_transfer() as transfer:
        exported = export_model(model, to, dtype, out, transfer.file("writing"))  # type: ignore[arg-type]
    for note in exported.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({"path": str(exported.path), "bytes": exported.num_bytes, "notes": exported.notes})
    else:
        click.echo(exported.path)
