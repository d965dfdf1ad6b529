"""The templates that cost the most before they are refused: bounds on processor time and on memory."""

import subprocess
import sys
from pathlib import Path

import pytest

_GROW = "{%% set n = namespace(x=%s, y=[1]) %%}{%% for i in range(60) %%}{%% set n.x = %s %%}{%% endfor %%}{{ n.x }}"
COSTLY = {
    "a list doubled": _GROW % ("[1]", "n.x + n.x"),
    "a list twice in a list": _GROW % ("[1]", "[n.x, n.x]"),
    "a table twice in a table": _GROW % ("1", "{'a': n.x, 'b': n.x}") + "{{ n.x | tojson }}",
    "a call's table": _GROW % ("1", "dict(a=n.x, b=n.x)"),
    "a namespace twice in a namespace": _GROW % ("1", "namespace(a=n.x, b=n.x)"),
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"
    ),
    "lists compared": (
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(18) %}{% set n.x = [n.x, n.x] %}"
        "{% set n.y = [n.y, n.y] %}{% endfor %}{% for i in range(99999) %}{{ n.x == n.y }}{% endfor %}"
    ),
    "a text searched": "{% set x = 'a' * 10**8 %}" + "{% if 'b' in x %}{% endif %}" * 10_000,
    "a text filtered": "{% set x = 'a' * 10**8 %}" + "{% for c in x if false %}{% endfor %}" * 1000,
    "blocks set": "{% set x = 'a' * 10**7 %}" + "{% set y %}{{ x }}{{ x }}{% endset %}" * 200,
    "tables grown": (
        "{% set n = namespace(d={}) %}"
        "{% for i in range(99999) %}{% set n.d = dict(n.d, **{i | string: 1}) %}{% endfor %}"
    ),
    "sums": "{{ " + "1 + " * 50_000 + "1 }}",
    "filters": "{{ a" + " | string" * 50_000 + " }}",
}
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from clearseek.config.errors import InputError
from clearseek.text.chat import ChatTemplate
try:
    ChatTemplate(sys.stdin.read(), "", "").render([{"role": "user", "content": "x"}])
except InputError as error:
    assert "can't render" not in str(error), error
    # not ru_maxrss: that begins with what the process that started this one held
    print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY.keys())
def test_a_costly_template_is_refused_within_time_and_memory(source: str) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system doesn't tell how much memory a process has held")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=source, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 800 * 2**20
