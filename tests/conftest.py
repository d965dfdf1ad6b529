"""Before torch is loaded: threads that wait for each other sleep soon, as under the `clearseek` command.

Beside another busy program the tests of models and engine else took seven times as long. Where several processes
share the tests (pytest-xdist), each begins with one thread.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
