"""A template is a program that came with a model: whatever it does, it ends soon and in an error with a name."""

import time

import pytest

from clearseek.config.errors import InputError
from clearseek.text.chat import DEEPSEEK_TEMPLATE, ChatTemplate

USER = [{"role": "user", "content": "x"}]
_GROW = (
    "{%% set n = namespace(x=%s) %%}{%% for i in range(100) %%}{%% set n.x = %s %%}{%% endfor %%}{{ n.x }}"
)

TOO_MUCH = {
    "a long range": "{{ range(10**12) | list }}",
    "loops within loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "text in a loop": "{% for a in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "text folded when compiled": "{% for i in range(99999) %}{{ 'a' | center(900000) }}{% endfor %}",
    "a block set in a loop": (
        "{% set x %}{% for i in range(99999) %}{{ 'a' | center(900000) }}{% endfor %}{% endset %}"
    ),
    "text times a number": "{{ 'a' * 10**10 }}",
    "a list times a number": "{{ [1] * 10**10 }}",
    "a product of products": "{% set x = 'a' * 10**6 %}{{ x * 10**6 }}",
    "text doubled": _GROW % ("'aaaa'", "n.x + n.x"),
    "text joined to itself": _GROW % ("'aaaa'", "n.x ~ n.x"),
    "text sliced": "{% set x = 'a' * 10**7 %}" + "{% set a = x[1:] %}" * 100,
    "lists within lists": _GROW % ("[1]", "[n.x]"),
    "a namespace in itself": "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
    "numbers squared": _GROW % ("10", "n.x * n.x"),
    "a large power": "{{ 10**10000 }}",
    "a width in percent": "{{ '%1000000000d' % 1 }}",
    "a precision in percent": "{{ '%.1000000000f' % 1.0 }}",
    "a width from the values": "{{ '%*d' % (1000000000, 1) }}",
    "the filter format": "{{ '%1000000000s' | format('a') }}",
    "a width in format": "{{ '{:1000000000}'.format(1) }}",
    "a width within a width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "the filter center": "{{ 'a' | center(10**10) }}",
    "the method center": "{{ 'a'.center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "tabs": "{{ ('\\t' * 10000).expandtabs(1000000) }}",
    "indent": "{{ ('\\n' * 100000) | indent(100000) }}",
    "indent by a text": "{{ ('\\n' * 100000) | indent('x' * 100000) }}",
    "the indent of JSON": "{{ [1, 2] | tojson(indent=10**10) }}",
    "the separators of JSON": "{{ range(9999) | list | tojson(separators=('x' * 99999, ':')) }}",
    "the filter replace": "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "the method replace": "{{ ('a' * 10**6).replace('', 'b' * 10**6) }}",
    "the filter join": "{{ range(9999) | join('x' * 10**6) }}",
    "the method join": "{{ ('x' * 10**6).join('a' * 10**4) }}",
    "translate": "{{ ('a' * 10**6).translate({97: 'b' * 10**6}) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1] | slice(10**10) | list }}",
    "round": "{{ 1.5 | round(10**9, 'ceil') }}",
    "lipsum": "{{ lipsum(10**9) }}",
    "lipsum's words": "{{ lipsum(1, min=10**9, max=10**9 + 1) }}",
    "a number's bytes": "{{ (1).to_bytes(10**10) }}",
    "a macro in itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop in itself": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{{ loop([[1]]) }}{% endfor %}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "links sought": "{{ ('a.b ' * 10**6) | urlize }}",
    "tags stripped": "{{ ('<' * 10**6) | striptags }}",
    "words wrapped": "{{ ('a ' * 10**6) | wordwrap(1, wrapstring='x' * 1000) }}",
    "lists summed": "{{ ([[1]] * 100000) | sum(start=[]) }}",
    "a slow encoding": "{{ ('한' * 10**5).encode('punycode') }}",
    "a long date": "{{ strftime_now('%Y' * 10**6) }}",
    "characters sorted": "{{ ('ab' * 10**7) | sort }}",
    "characters listed": "{{ ('a' * 10**8) | list }}",
    "blocks in blocks": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "loops in loops": "{% for x in [1] %}" * 50 + "{% endfor %}" * 50,
    "brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "lists of lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "signs": "{{ " + "-" * 50_000 + "1 }}",
    "digits": "{{ " + "9" * 400_000 + " }}",
    "length": "{{ 1 }}" * 200_000,
    "comments": "{#" * 200_000,
    "openings": "{{" * 200_000,
    "the meter's own filter": "{{ [-10**30] | map('meter tick') | list }}{{ 'a' * 10**9 }}",
}
ESCAPES = {
    "globals of a function": "{{ raise_exception.__globals__.values() }}",
    "globals of a global": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os }}",
    "globals of a namespace": "{{ namespace.__init__.__globals__['sys'] }}",
    "globals of the template": "{{ self.__init__.__globals__ }}",
    "classes of a text": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "classes by format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "a frame": "{{ (messages | map('string')).gi_frame.f_globals }}",
    "a name with underscores": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "a change of the messages": "{{ messages.append(1) }}",
    "an attribute by filter": "{{ (''|attr('__class__')).mro() }}",
    "a file": "{% include '/etc/passwd' %}",
    "a module": "{% import 'os' as os %}{{ os }}",
}


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_asks_too_much_is_refused_soon(source: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=r"^chat template: "):
        ChatTemplate(source, "", "").render(USER)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES.keys())
def test_what_leaves_the_sandbox_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"^chat template: "):
        ChatTemplate(source, "", "").render(USER)


def test_a_long_conversation_is_not_too_much() -> None:
    text = "가나다 abc 1 + 1 < 2\n" * 30
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"<think>{text}</think>1"}]
    rendered = ChatTemplate(DEEPSEEK_TEMPLATE, "<s>", "</s>").render([*turns * 1500, turns[0]])
    assert len(rendered) > 1500 * len(text)


def test_what_a_template_may_do_grows_with_the_conversation() -> None:
    """Some templates look at every message for every message."""
    source = (
        "{% for a in messages %}{% for b in messages %}{% set x = a.role ~ b.role %}{% endfor %}{% endfor %}."
    )
    assert ChatTemplate(source, "", "").render([{"role": "user", "content": "x" * 1000}] * 600) == "."


def test_metered_operations_compute_what_they_always_did() -> None:
    source = (
        "{{ 2**10 }} {{ 'ab' * 2 }} {{ [1] * 2 }} {{ '%5.2f|%s' % (1.5, 'x') }} {{ '{:>4}'.format(7) }} "
        "{{ '{a[0]}'.format_map({'a': [3]}) }} {{ 'a,b'.split(',') | join('+') }} {{ [1, 2, 3][1:] }} "
        "{{ {'b': 1, 'a': [2]} | dictsort }} {{ 'x' in 'xyz' and [1] == [1] }} {{ 'a' ~ 1 ~ none }} "
        "{{ [3, 1, 2] | sort | map('string') | join }} {{ 'a\nb' | indent(2) }} {{ ['a', 'b'] | batch(1) | list }}"
    )
    expected = "1024 abab [1, 1]  1.50|x    7 3 a+b [2, 3] [('a', [2]), ('b', 1)] True a1None 123 a\n  b [['a'], ['b']]"
    assert ChatTemplate(source, "", "").render(USER) == expected
