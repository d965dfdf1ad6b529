"""What a server counts, by vLLM's names (0.32), so that dashboards made for it fit."""

from collections.abc import Iterable

from clearseek.serve.answering import AnswerService
from clearseek.serve.engine_service import EngineService
from clearseek.serve.engine_words import Counts
from clearseek.serve.prometheus import Page
from clearseek.serve.served_model import ServedModel
from clearseek.serve.tally import HISTOGRAMS, Tally


def metrics_text(models: Iterable[ServedModel], prefix: str) -> str:
    """All models' counts; `prefix` is `clearseek:` or `vllm:`."""
    page, served = Page(prefix), list(models)
    values = [(model, _values(model.service, model.tally)) for model in served]
    names = {name: (kind, what) for _, rows in values for name, kind, what, _ in rows}
    for name, (kind, what) in names.items():
        for model, rows in values:
            for value in (value for row, _, _, value in rows if row == name):
                page.value(name, kind, what, value, {"model_name": model.name})
    for model in served:
        _write_places(page, model)
    for model in served:
        for reason in ("stop", "length", "abort", "error"):
            labels = {"model_name": model.name, "finished_reason": reason}
            page.value(
                "request_success_total", "counter", "Answers that ended.", model.tally.ended[reason], labels
            )
    for name, (what, _) in HISTOGRAMS.items():
        for model in served:
            page.histogram(name, what, model.tally.histograms[name], {"model_name": model.name})
    return page.text


def _values(service: AnswerService, tally: Tally) -> list[tuple[str, str, str, float]]:
    rows: list[tuple[str, str, str, float]] = [
        ("num_requests_running", "gauge", "Answers being computed.", service.num_running),
        ("num_requests_waiting", "gauge", "Answers waiting for a seat.", service.num_waiting),
        ("prompt_tokens_total", "counter", "Tokens of prompts.", tally.prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens of answers.", tally.generation_tokens),
    ]
    if isinstance(service, EngineService):
        rows += _engine_values(service.counts, service.line.cache_bytes)
    return rows


def _write_places(page: Page, model: ServedModel) -> None:
    """Right guesses by their place after the newest token, 0 is the first."""
    if not isinstance(model.service, EngineService):
        return
    name, what = "spec_decode_num_accepted_tokens_per_pos_total", "Those that were right, by place."
    for place, count in enumerate(model.service.counts.accepted_by_place):
        page.value(name, "counter", what, count, {"model_name": model.name, "position": str(place)})


def _engine_values(counts: Counts, cache_bytes: int) -> list[tuple[str, str, str, float]]:
    return [
        ("kv_cache_limit_bytes", "gauge", "Memory that the cache may take.", cache_bytes),
        ("kv_cache_usage_perc", "gauge", "Share of that limit in use, 1 is all.", counts.cache_usage),
        ("prefix_cache_queries_total", "counter", "Tokens looked for in the cache.", counts.prefix_queries),
        ("prefix_cache_hits_total", "counter", "Those found there.", counts.prefix_hits),
        ("num_preemptions_total", "counter", "Answers paused for lack of cache.", counts.num_paused),
        ("spec_decode_num_drafts_total", "counter", "Times that tokens were guessed.", counts.guesses),
        ("spec_decode_num_draft_tokens_total", "counter", "Tokens guessed.", counts.guessed),
        ("spec_decode_num_accepted_tokens_total", "counter", "Those that were right.", counts.accepted),
    ]
