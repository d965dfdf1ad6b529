"""What the ledger's benchmark measures is there to be measured."""

from benchmarks.ledger import parts_of_the_ledger


def test_every_part_that_it_times_exists():
    for owner, names in parts_of_the_ledger():
        assert not [name for name in names if not callable(getattr(owner, name, None))]
