"""Which curves of a run are drawn, and what a reader is told about each."""

from dataclasses import dataclass

from clearseek.ledger.charts import Chart, Series, line_chart
from clearseek.ledger.lines import number
from clearseek.ledger.record import RunRecord, StageRecord, judged

NUM_COLORS = 6


@dataclass(frozen=True)
class Curves:
    """The curves in the order they are read: learning to write, learning by trying, and the small print."""

    losses: list[Chart]
    rl: list[Chart]
    more: list[Chart]


def all_curves(record: RunRecord) -> Curves:
    """Every chart that the run has the numbers for."""
    rl = [stage for stage in record.stages if stage.kind == "rl"]
    trained = [stage for stage in record.stages if stage.kind != "rl" and stage.series("loss")]
    losses = [_loss(stage, place) for place, stage in enumerate(trained)]
    return Curves(losses=_drawn(losses), rl=_drawn(_rl_charts(rl)), more=_drawn(_more_charts(rl, trained)))


def _loss(stage: StageRecord, place: int) -> Chart | None:
    note = "How surprised the model is by the right next piece. Lower is better."
    return line_chart(
        f"Loss in {stage.name}", note, [Series(stage.name, _color(place), stage.series("loss"))]
    )


def _rl_charts(stages: list[StageRecord]) -> list[Chart | None]:
    right = "Share of its own attempts that were right. Dots: the same on problems it never trains on."
    reward = "What training raises: 1 for a right answer, 0 for a wrong one."
    length = "Pieces of text, thoughts included. It grows when the model learns that working things out pays."
    language = "Share of words in the language of the question."
    attempts = [
        Series(stage.name, _color(place), _share(stage, "correct"), _evaluated(stage))
        for place, stage in enumerate(stages)
    ]
    return [
        line_chart("Right answers", right, attempts, share=True, floor=0.0, ceiling=1.0),
        _over(stages, "reward", "Reward", reward),
        _over(stages, "completion_tokens", "Length of an answer", length, floor=0.0),
        _over(
            stages, "language_consistency", "Stays in the language asked", language, share=True, ceiling=1.0
        ),
    ]


def _more_charts(rl: list[StageRecord], trained: list[StageRecord]) -> list[Chart | None]:
    entropy = "How many ways it still tries. Near zero, nothing new is found."
    all_wrong, all_right = "Nothing can be learned from these.", "Nor from these: already known."
    cut, unread = "They reached the length limit before they ended.", "No final answer in the asked form."
    norm, rate = "How hard each step pulls. Spikes mean trouble.", "How far each step goes."
    expert = "Its load over the mean load; 1 is perfectly even."
    return [
        _over(rl, "entropy", "Entropy", entropy, floor=0.0),
        _shares(rl, "groups_all_wrong", "groups", "Problems no attempt solved", all_wrong),
        _shares(rl, "groups_all_correct", "groups", "Problems every attempt solved", all_right),
        _shares(rl, "truncated", None, "Answers cut short", cut),
        _shares(rl, "unparseable", None, "Answers that can't be read", unread),
        _over(trained + rl, "expert_load_max", "Busiest expert", expert),
        _over(trained, "grad_norm", "Gradient norm, from examples", norm, floor=0.0),
        _over(rl, "grad_norm", "Gradient norm, by trying", norm, floor=0.0),
        _over(trained, "learning_rate", "Learning rate, from examples", rate, floor=0.0),
        _over(rl, "learning_rate", "Learning rate, by trying", rate, floor=0.0),
    ]


def _over(
    stages: list[StageRecord],
    name: str,
    title: str,
    note: str,
    share: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Chart | None:
    series = [Series(stage.name, _color(place), stage.series(name)) for place, stage in enumerate(stages)]
    return line_chart(title, note, series, share, floor, ceiling)


def _shares(stages: list[StageRecord], name: str, whole: str | None, title: str, note: str) -> Chart | None:
    """A chart of `_share`; None when it is zero throughout."""
    series = [
        Series(stage.name, _color(place), _share(stage, name, whole)) for place, stage in enumerate(stages)
    ]
    if not any(y for each in series for _, y in each.points):
        return None
    return line_chart(title, note, series, share=True, floor=0.0)


def _color(place: int) -> int:
    return place % NUM_COLORS + 1


def _share(stage: StageRecord, name: str, whole: str | None = None) -> list[tuple[float, float]]:
    """A count of the steps over all completions, or over the count called `whole`."""
    pairs = []
    for step in stage.steps:
        x, part = number(step.get("step")), number(step.get(name))
        all_of_them = number(step.get(whole)) if whole else judged([step])
        if x is not None and part is not None and all_of_them:
            pairs.append((x, part / all_of_them))
    return pairs


def _evaluated(stage: StageRecord) -> list[tuple[float, float]]:
    """Pass rates by step; the evaluation at a stage's end, written as step −1, stands at its last step."""
    last = number(stage.steps[-1].get("step")) if stage.steps else None
    pairs = ((number(record.get("step")), number(record.get("pass_at_1"))) for record in stage.evals)
    placed = ((last if x is not None and x < 0 else x, y) for x, y in pairs)
    return [(x, y) for x, y in placed if x is not None and y is not None]


def _drawn(charts: list[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
