"""A command group that imports a command only when it is called, so that `--help` stays instant."""

import importlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """Commands by name, each with the module that holds it as `command` and its one-line help."""

    def __init__(self, *args: object, lazy: Mapping[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.lazy = dict(lazy)

    def list_commands(self, context: click.Context) -> list[str]:
        """Names in the order of the table: the order in which a newcomer meets them."""
        return list(self.lazy)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the module of command `name`; None where there is no such command."""
        if name not in self.lazy:
            return None
        command: click.Command = importlib.import_module(self.lazy[name][0]).command
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `arguments` name; an unknown one is refused with the nearest known."""
        name = arguments[0]
        if name not in self.lazy and not name.startswith("-") and not context.resilient_parsing:
            raise click.UsageError(f"no command {name!r}; {_suggest(name, list(self.lazy))}", context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from the table, and the group's own options."""
        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, context, incomplete)


def _suggest(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
