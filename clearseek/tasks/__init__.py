"""Problems with checkable answers, and the verifiers that check them."""
