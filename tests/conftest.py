"""Before torch is loaded: threads that wait for each other sleep soon, as under the `clearseek` command.

Beside another busy program they would else take the fast tests from one minute to ten.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
