"""What is stated of the tiny run's model, so that its papers can be complete."""

from clearseek.papers.facts import Publisher

STATED = Publisher("Apache-2.0 OR CDLA-Permissive-2.0", "Apache-2.0", "A. Lab", "lab@example.org")
