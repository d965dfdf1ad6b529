"""`clearseek export`: a model rewritten for other programs."""

from pathlib import Path

import click

from clearseek.cli.options import json_option, print_json

EPILOG = """\b
Examples:
  clearseek export runs/r1-mini --to gguf --dtype q8_0
  clearseek export Qwen3-0.6B --to hf --dtype float16 --out Qwen3-0.6B-fp16
  clearseek export model.gguf --to hf
  clearseek export runs/r1-mini --to hf --dtype bfloat16 --with-run

\b
hf     a directory that transformers, vLLM and clearseek open:
       float32, bfloat16, float16, fp8  [default: as stored]
gguf   one file for llama.cpp, Ollama and the like:
       f32, f16, bf16, q8_0, q4_0, q4_k, mxfp4  [default: bf16],
       or formats by part, as --format has them: int4,attention=int8

\b
In a GGUF file norms, routers and single rows stay f32; the tensor that gives
the logits is q8_0 in 4-bit files. mxfp4 is for experts, as gpt-oss has them;
the rest is bf16. fp8 is DeepSeek-V3's: blocks of 128 x 128 share a scale;
norms, routers, embedding and head are bfloat16.

\b
With the run go its ledger, seal, recipe and documents, in one packed file; its
weights and states don't. `clearseek trace DIRECTORY "answer"` then finds an
answer's words in the training data, and `clearseek ledger verify` checks it.

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
@click.option("--with-run", is_flag=True, help="Let the run go along, so that answers can be traced (hf).")
@json_option
def command(model: Path, to: str, dtype: str | None, out: Path | None, with_run: bool, as_json: bool) -> None:
    """Write a model for other programs: Hugging Face format or GGUF.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    from clearseek.cli.transfer import open_transfer
    from clearseek.engine.gguf_formats import gguf_types, is_format
    from clearseek.model.export import export_model

    dtypes = gguf_types(dtype) if to == "gguf" and dtype is not None and is_format(dtype) else None
    made_by = _made_by(model, to) if with_run else None
    with open_transfer() as transfer:
        exported = export_model(model, to, dtype, out, transfer.file("writing"), dtypes)  # type: ignore[arg-type]
    if made_by is not None:
        from clearseek.trace.excerpt import pack_run

        pack_run(made_by[0], exported.path, made_by[1])
    for note in exported.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({"path": str(exported.path), "bytes": exported.num_bytes, "notes": exported.notes})
    else:
        click.echo(exported.path)


def _made_by(model: Path, to: str) -> tuple[Path, str]:
    """The run of a model, ready to go along, and the stage that left it."""
    from clearseek.config.errors import InputError
    from clearseek.model.resolve import resolve_source
    from clearseek.trace.excerpt import check_can_pack, has_run, run_and_stage

    if to != "hf":
        raise InputError("--with-run needs --to hf: a GGUF file is one file, beside which nothing goes along")
    source = resolve_source(model)
    if not has_run(source):
        raise InputError(f"the run that made {model} isn't here; give a run, or one of its checkpoints")
    run, stage = run_and_stage(source)
    check_can_pack(run)
    return run, stage
