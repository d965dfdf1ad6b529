"""The form of the Model Openness Framework's file as its tool reads it (May 2026), written down as a JSON schema.

Ours is narrower than the tool's: no other keys, only the framework's names of components, and no field may be empty.
"""

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_DAY = {"type": "string", "format": "date"}
_LICENCE = {
    "type": "object",
    "properties": {"name": {"type": ["string", "null"]}, "path": {"type": ["string", "null"]}},
}
_COMPONENTS = (
    "Model architecture", "Model parameters (Final)", "Model parameters (Intermediate)", "Model card", "Model metadata",
    "Data card", "Data preprocessing code", "Datasets", "Training code", "Inference code", "Evaluation code",
    "Evaluation data", "Evaluation results", "Sample model outputs", "Supporting libraries and tools",
    "Technical report", "Research paper",
)  # fmt: skip


def _table(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_table(
        ("framework", "release"),
        framework=_table(
            ("name", "version", "date"), name={"const": "Model Openness Framework"}, version=_TEXT, date=_DAY
        ),
        release=_table(
            ("name", "license", "producer", "components"),
            name=_TEXT,
            version=_TEXT,
            license=_table((), distribution=_LICENCE, code=_LICENCE, data=_LICENCE, document=_LICENCE),
            date=_DAY,
            type={"const": "language"},
            architecture={"enum": ["transformer", "transformer decoder", "decoder", "hybrid", "other"]},
            treatment={"enum": ["pre-trained", "instruct fine-tuned", "chat fine-tuned"]},
            origin=_TEXT,
            producer=_TEXT,
            contact=_TEXT,
            components={
                "type": "array",
                "maxItems": len(_COMPONENTS),
                "uniqueItems": True,
                "items": _table(
                    ("name", "description", "license", "component_path"),
                    name={"enum": list(_COMPONENTS)},
                    description=_TEXT,
                    license=_TEXT,
                    license_path=_TEXT,
                    component_path=_TEXT,
                ),
            },
        ),
    ),
}
