"""Progress as `rich` bars on a terminal's stderr: one bar a stage with its rate, time left and numbers."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from clearseek.cli.progress import metric_words, stage_title


class BarProgress:
    """One bar for the stage at work; finished stages stay above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}", style="cyan"),
            console=console or Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._stepped = False

    def stage(self, name: str, kind: str, index: int, total: int) -> None:
        """Open a bar for the stage; it moves once the first step says how many there are."""
        self._rich.start()
        title = f"[dim]{index}/{total}[/dim] {stage_title(name, kind)}"
        self._task = self._rich.add_task(title, start=False, total=None, numbers="")
        self._stepped = False

    def step(self, done: int, total: int, **metrics: float) -> None:
        """Move the stage's bar. The first step only sets the mark, so a resumed stage shows its true rate."""
        if self._task is None:
            return
        numbers = "  ".join(metric_words(metrics))
        if self._stepped:
            self._rich.update(self._task, total=total, completed=done, numbers=numbers)
        else:
            self._rich.reset(self._task, total=total, completed=done, numbers=numbers)
            self._stepped = True

    def note(self, text: str) -> None:
        """Print `text` above the bars."""
        self._rich.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Leave the bars as they stand and give the terminal back."""
        self._rich.stop()
        self._task = None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "", style="dim")
