"""The two errors a user may meet: their input is wrong, or something failed though it was right."""


class InputError(ValueError):
    """The user's input is wrong; the message names the place and what to do (exit code 2)."""


class RunError(RuntimeError):
    """A run failed though its input was right, such as a full disk or a torn file (exit code 1)."""
