"""Knights tell the truth, knaves lie: suppose, derive, meet a contradiction, go back, suppose otherwise."""

from random import Random

from clearseek.tasks.families.draw import pick
from clearseek.tasks.families.names import PEOPLE
from clearseek.tasks.families.steps import GAP, NO, YES
from clearseek.tasks.problem import Problem

NAME = "logic"
LEVELS = 3

_ASK = {
    "en": ("Knight or knave?", "Who is a knight?"),
    "ko": ("기사인가 건달인가?", "누가 기사인가?"),
    "zh": ("骑士还是骗子？", "谁是骑士？"),
}
_KINDS = {"en": ("knave", "knight"), "ko": ("건달", "기사"), "zh": ("骗子", "骑士")}
_SUPPOSE = {"en": "suppose", "ko": "가정", "zh": "设"}
_THEN = {"en": "then", "ko": "그러면", "zh": "则"}
_TRUTH = {"en": ("false", "true"), "ko": ("거짓", "참"), "zh": ("假", "真")}
_SAYS = {
    "en": {
        "knight": "{} is a knight.",
        "knave": "{} is a knave.",
        "alike": "I am like {}.",
        "unlike": "I am not like {}.",
        "both": "{} and I are knaves.",
        "either": "{} or I am a knave.",
    },
    "ko": {
        "knight": "{}는 기사.",
        "knave": "{}는 건달.",
        "alike": "나는 {}와 같다.",
        "unlike": "나는 {}와 다르다.",
        "both": "{}와 나는 건달.",
        "either": "{}나 나는 건달.",
    },
    "zh": {
        "knight": "{}是骑士。",
        "knave": "{}是骗子。",
        "alike": "我和{}一样。",
        "unlike": "我和{}不同。",
        "both": "{}和我都是骗子。",
        "either": "{}或我是骗子。",
    },
}
_CLAUSE = {"en": " ", "ko": " ", "zh": "，"}
_COLON = {"en": ": ", "ko": ": ", "zh": "："}
_SIMPLE = ("knight", "knave", "alike", "unlike")
Says = tuple[tuple[str, int], ...]  # for each person in turn: what they claim, and about whom


def generate(rng: Random, level: int, language: str) -> Problem:
    """Two people; two with a claim about both at once; three, each speaking of the next."""
    ask = pick(rng, _ASK[language])
    order = rng.sample(range(len(PEOPLE[language])), 3 if level == 3 else 2)
    people = [PEOPLE[language][i] for i in order]
    claims = _SIMPLE if level != 2 else tuple(_SAYS[language])
    go_back = rng.random() < (0.3 if level == 1 else 0.5)
    while True:
        says = tuple((pick(rng, claims), (i + 1) % len(people)) for i in range(len(people)))
        if level == 2 and all(claim in _SIMPLE for claim, _ in says):
            continue
        outcomes = [_follow(says, first) for first in (True, False)]
        if sum(consistent for _, consistent in outcomes) == 1 and outcomes[1][1] == go_back:
            break
    tried = outcomes[:1] if outcomes[0][1] else outcomes
    kinds = [_KINDS[language][kind] for kind in tried[-1][0]]
    lines = [f"{people[i]}{_COLON[language]}{_SAYS[language][claim].format(people[about])}"
             for i, (claim, about) in enumerate(says)]  # fmt: skip
    prompt = GAP[language].join([ask, *lines])
    solution = _CLAUSE[language].join(_tell(says, *outcome, people, language) for outcome in tried)
    return Problem(NAME, language, level, prompt, ",".join(kinds), "exact", solution)


def holds(claim: str, speaker: bool, other: bool) -> bool:
    """Whether a claim is true, given who is a knight."""
    return {
        "knight": other,
        "knave": not other,
        "alike": speaker == other,
        "unlike": speaker != other,
        "both": not speaker and not other,
        "either": not speaker or not other,
    }[claim]


def _follow(says: Says, first: bool) -> tuple[list[bool], bool]:
    """Who is what if the first person is `first`, as far as it can be derived, and whether all of it fits."""
    kinds = [first]
    for claim, _ in says[:-1]:
        fitting = [other for other in (True, False) if holds(claim, kinds[-1], other) == kinds[-1]]
        if len(fitting) != 1:
            return kinds, False
        kinds.append(fitting[0])
    claim, about = says[-1]
    return kinds, holds(claim, kinds[-1], kinds[about]) == kinds[-1]


def _tell(says: Says, kinds: list[bool], consistent: bool, people: list[str], language: str) -> str:
    gap, names = GAP[language], _KINDS[language]
    clauses = [gap.join([_SUPPOSE[language], people[0], names[kinds[0]]])]
    for person, kind in zip(people[1:], kinds[1:], strict=False):
        clauses.append(gap.join([_THEN[language], person, names[kind]]))
    if len(kinds) == len(people):
        claim, about = says[-1]
        clauses.append(people[-1] + gap + _TRUTH[language][holds(claim, kinds[-1], kinds[about])])
    clauses.append((YES if consistent else NO)[language].strip())
    return _CLAUSE[language].join(clauses)
