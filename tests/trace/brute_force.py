"""The same spans found slowly: no suffix array, no vectors, words by a regular expression."""

import re
import unicodedata

_NO_SPACES = r"぀-ヿ㐀-䶿一-鿿가-힣ᄀ-ᇿ豈-﫿ㄅ-ㄯ\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff"


def words(text: str) -> list[tuple[int, int]]:
    """(start, end) of every word, in characters."""
    found = []
    for match in re.finditer(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s]", text):
        if not unicodedata.category(match[0][0]).startswith("C") or match[0][0] not in "\t\n\r":
            found.append(match.span())
    return found


def spans(answer: str, documents: list[str], min_words: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(start, end) in characters of every span that no other contains: the (document, character) it stands at."""
    mine = words(answer)
    begins = [{start for start, _ in words(document)} for document in documents]
    ends = [{end for _, end in words(document)} for document in documents]
    found = {}
    furthest = 0
    for i in range(len(mine)):
        for j in range(len(mine) - 1, i + min_words - 2, -1):
            start, end = mine[i][0], mine[j][1]
            if end <= furthest:
                break
            places = [
                (number, place)
                for number, document in enumerate(documents)
                for place in occurrences(document, answer[start:end])
                if place in begins[number] and place + end - start in ends[number]
            ]
            if places:
                found[start, end] = places
                furthest = end
                break
    return found


def occurrences(text: str, part: str) -> list[int]:
    """Every place of a part, overlapping ones too."""
    found, place = [], text.find(part)
    while place >= 0:
        found.append(place)
        place = text.find(part, place + 1)
    return found
