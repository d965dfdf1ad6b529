"""Before torch is loaded: threads that wait for each other sleep soon, as under the `clearseek` command.

Beside another busy program the tests of models and engine else took seven times as long.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
