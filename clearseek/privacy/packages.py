"""Packages that send home what their users do: none of them may come with clearseek, nor be imported by it."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires

# distributions, and the modules by which they are imported where those have other names
DENIED = {
    "aim": "aim", "amplitude-analytics": "amplitude", "analytics-python": "analytics", "applicationinsights": "",
    "bugsnag": "", "clearml": "", "codecarbon": "", "comet-ml": "comet_ml", "countly": "", "datadog": "",
    "ddtrace": "", "gradio": "", "keen": "", "logfire": "", "mixpanel": "", "mlflow": "", "neptune": "",
    "newrelic": "", "opentelemetry-exporter-otlp": "opentelemetry.exporter", "posthog": "", "raven": "", "rollbar": "",
    "rudder-sdk-python": "rudderstack", "scarf-sdk": "scarf", "segment-analytics-python": "segment",
    "sentry-sdk": "sentry_sdk", "snowplow-tracker": "snowplow_tracker", "wandb": "",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def denied_that_come_along(package: str = "clearseek") -> list[str]:
    """Those of the list that a package needs, or what it needs needs, without extras."""
    seen, left = set[str](), [package]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            left += [_name(line) for line in requires(name) or [] if "extra ==" not in line]
        except PackageNotFoundError:
            continue  # of another system or Python
    return sorted(seen & set(DENIED))


def denied_that_are_imported(modules: Iterable[str]) -> list[str]:
    """Those of the list whose modules are among these."""
    imported = set(modules)
    return sorted(name for name, module in DENIED.items() if (module or name.replace("-", "_")) in imported)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", match.group().lower()) if match else ""
