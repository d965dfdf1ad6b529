"""The class that components reach: by licences, by what is there, and DeepSeek-R1's own entry as a known answer."""

import itertools

import pytest

from clearseek.papers.licences import chosen, is_appropriate, is_open, is_osi_approved
from clearseek.papers.openness import COMPONENTS, Component, evaluate, osaid

BOTH = "Apache-2.0 OR CDLA-Permissive-2.0"
LICENCES = {"code": "Apache-2.0", "data": "CC0-1.0", "document": "Apache-2.0"}


def component(name: str, licence: str | None = "", there: bool = True) -> Component:
    stated = LICENCES[COMPONENTS[name][0]] if licence == "" else licence
    return Component(name, {"a": "0"} if there else {}, (stated,))


def everything(**others: Component) -> list[Component]:
    return [others.get(name.split()[0].lower(), component(name)) for name in COMPONENTS]


@pytest.mark.parametrize(
    ("expression", "open_", "code", "data", "document", "osi"),
    [
        ("Apache-2.0", True, True, False, True, True),
        ("MIT", True, True, False, False, True),
        ("CC0-1.0", True, False, True, True, True),
        ("CC-BY-4.0", True, False, False, True, False),
        ("CDLA-Permissive-2.0", True, False, True, False, False),
        (BOTH, True, True, True, True, True),
        ("MIT AND CC0-1.0", True, False, False, False, True),
        ("MIT AND CC-BY-NC-4.0", False, False, False, False, False),
        ("CC-BY-NC-4.0", False, False, False, False, False),
        ("LicenseRef-mine", False, False, False, False, False),
        ("OpenMDW-1.0", True, True, True, True, False),
        ("GPL-3.0-only WITH Classpath-exception-2.0", False, False, False, False, False),
        (None, False, False, False, False, False),
        ("", False, False, False, False, False),
    ],
)
def test_licences_are_open_and_made_for_a_kind(
    expression: str | None, open_: bool, code: bool, data: bool, document: bool, osi: bool
) -> None:
    assert is_open(expression) is open_
    assert is_appropriate(expression, "code") is code
    assert is_appropriate(expression, "data") is data
    assert is_appropriate(expression, "document") is document
    assert is_osi_approved(expression) is osi


def test_of_alternatives_the_one_for_the_kind_is_chosen() -> None:
    assert chosen(BOTH, "data") == "CDLA-Permissive-2.0"
    assert chosen(BOTH, "code") == "Apache-2.0"
    assert chosen("CC-BY-NC-4.0", "data") == "CC-BY-NC-4.0"


def test_with_everything_there_it_is_class_one_and_open_source_ai() -> None:
    found = evaluate(everything())
    assert (found["class"], found["next"], found["missing_for_next"]) == (1, None, {})
    assert osaid(everything())["is_open_source_ai"]


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_class_needs_every_required_component_up_to_it(name: str) -> None:
    """By the rule itself: the class is the best one none of whose required components is missing."""
    components = [component(other, there=other != name) for other in COMPONENTS]
    _, number, required, _ = COMPONENTS[name]
    expected = 1
    if required and name != "Technical report":  # which the research paper stands in for
        expected = {3: 0, 2: 3, 1: 2}[number]
    found = evaluate(components)
    assert found["class"] == expected
    if expected != 1:
        assert found["missing_for_next"] == {name: ["there is no file"]}


def test_a_report_may_be_left_out_only_where_there_is_a_paper() -> None:
    without = [component(n, there=n not in ("Technical report", "Research paper")) for n in COMPONENTS]
    assert evaluate(without)["class"] == 0


@pytest.mark.parametrize("licence", [None, "CC-BY-NC-4.0"])
def test_what_has_no_open_licence_is_not_claimed(licence: str | None) -> None:
    components = [component(n, licence if n == "Datasets" else "") for n in COMPONENTS]
    found = evaluate(components)
    assert found["class"] == 2
    assert list(found["missing_for_next"]) == ["Datasets"]
    assert not osaid(components)["is_open_source_ai"]


def test_an_open_licence_for_something_else_counts_and_is_told() -> None:
    found = evaluate([component(n, "MIT" if n == "Datasets" else "") for n in COMPONENTS])
    assert (found["class"], found["not_type_appropriate"]) == (1, ["Datasets"])


def test_open_but_not_approved_terms_are_no_open_source_ai() -> None:
    checks = osaid([component(n, "CC-BY-4.0" if n == "Data card" else "") for n in COMPONENTS])
    assert not checks["is_open_source_ai"]
    assert [check["met"] for check in checks["checks"]].count(False) == 1


def test_deepseek_r1_is_unclassified() -> None:
    """What its own entry in the framework's tool lists: no data card, so not even the lowest class."""
    listed = (
        "Model architecture", "Inference code", "Supporting libraries and tools", "Model parameters (Final)",
        "Model metadata",
    )  # fmt: skip
    unlicensed = ("Evaluation data", "Model card", "Technical report", "Evaluation results")
    components = [
        component(n, "MIT" if n in listed else None if n in unlicensed else "LicenseRef-arXiv",
                  there=n in listed + unlicensed + ("Research paper",))
        for n in COMPONENTS
    ]  # fmt: skip
    assert evaluate(components)["class"] == 0


def test_more_is_never_less() -> None:
    """Taking one more component away never raises the class."""
    names = [name for name, (_, _, required, _) in COMPONENTS.items() if required]
    for pair in itertools.combinations(names, 2):
        both = evaluate([component(n, there=n not in pair) for n in COMPONENTS])["class"]
        one = evaluate([component(n, there=n != pair[0]) for n in COMPONENTS])["class"]
        assert (both or 4) >= (one or 4)
