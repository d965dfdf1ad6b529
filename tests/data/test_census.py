"""A source counted as its record holds it."""

from clearseek.data.census import census

ITEMS = {
    "first": ["how many legs has a spider", "what is 3 and 4"],
    "second": ["what is 3 and 4", "who wrote the iliad"],
}


def test_an_item_of_two_evaluations_counts_for_the_first() -> None:
    found = census(["Q: What is 3 and 4", "nothing"], ITEMS)["contamination"]
    assert (found["first"]["items"], found["first"]["whole"]) == (2, 1)
    assert (found["second"]["items"], found["second"]["whole"]) == (1, 0)


def test_samples_show_whole_items_first_and_mask_personal_data() -> None:
    item = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    texts = [
        f"{item[:60]} a b",
        f"{item.removesuffix(' fourteen')} ends, says a@b.org",
        "Who wrote the Iliad?",
    ]
    found = census(texts, {"set": [item, "who wrote the iliad"]})["contamination"]["set"]
    assert [one["whole"] for one in found["samples"]] == [True, False]
    assert (found["samples"][1]["words"], found["samples"][1]["row"]) == (13, 1)
    assert found["samples"][1]["text"].endswith("says [email]")
    assert found["rows"] == 2


def test_counts_of_nothing_are_nothing() -> None:
    assert census([], {}) == {
        "rows": 0, "bytes": 0, "words": 0, "languages": {}, "duplicates": {"exact": 0, "near": 0}, "personal_data": {},
        "contamination": {},
    }  # fmt: skip
    assert census(["1 + 1", "1 + 1"], {})["duplicates"] == {"exact": 1, "near": 0}
