"""How tests are run. Imports no torch: a process that hands tests out to others would wait seconds for it."""

import gc

import pytest

from extrap.train.cores import cores

gc.set_threshold(100_000, 50, 100)  # looking for circles of references takes a tenth of the suite's time


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """As many as a container lets this process have, not as its host has."""
    return cores()


def pytest_configure(config):
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("built")


def pytest_collection_finish():
    """What is there before the first test is not looked through for garbage again and again."""
    gc.freeze()
