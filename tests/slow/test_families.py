"""Every stage on a base of every family; one joins by having a shape, see `tests.model.every_family`."""

import pytest

from tests.model.every_family import every_family
from tests.recipe.family_run import LORA, check_every_stage


@pytest.mark.parametrize("lora", LORA)
@pytest.mark.parametrize("family", every_family())
def test_every_stage_works_on_a_base_and_leaves_its_files_as_they_were(tmp_path, family, lora):
    check_every_stage(tmp_path, family, LORA[lora])
