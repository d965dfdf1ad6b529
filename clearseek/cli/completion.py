"""`clearseek completion`: the script that teaches a shell our commands and options."""

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  bash   clearseek completion bash >> ~/.bashrc
  zsh    clearseek completion zsh >> ~/.zshrc
  fish   clearseek completion fish > ~/.config/fish/completions/clearseek.fish

Exit codes: 0 printed, 2 no such shell."""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    script = kind(context.find_root().command, {}, "clearseek", "_CLEARSEEK_COMPLETE")
    click.echo(script.source_template % script.source_vars())
