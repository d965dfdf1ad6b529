"""Every stage on a base of a family: the ones that tests know best here, all of them in `tests/slow`."""

import pytest

from tests.model.tiny import CONFIGS
from tests.recipe.family_run import LORA, check_every_stage


@pytest.mark.parametrize("lora", LORA)
@pytest.mark.parametrize("family", sorted({config.family for config in CONFIGS.values()}))
def test_every_stage_works_on_a_base_and_leaves_its_files_as_they_were(tmp_path, family, lora):
    check_every_stage(tmp_path, family, LORA[lora])
