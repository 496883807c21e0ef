"""The digest of the code: what changes it and what does not."""

from pathlib import Path

from extrap.config.outside import meaning
from extrap.runs import digest as code
from extrap.runs.digest import program_digest, scheme_digest

ROPE = {"_target_": "extrap.positions.rope.Rope"}
ALIBI = {"_target_": "extrap.positions.alibi.Alibi"}
SOURCE = '''
"""What it is."""

def double(x):
    """Twice x."""
    return 2 * x  # as it says
'''
OTHER_WORDS = """
'Something else.'
def double(x):

    'Two of it.'
    return (2 *
        x)
"""


def test_words_and_layout_mean_nothing():
    assert meaning(SOURCE) == meaning(OTHER_WORDS)
    assert meaning(SOURCE) != meaning(SOURCE.replace("2 * x", "3 * x"))


def test_a_scheme_has_the_digest_of_all_that_it_is_made_of():
    local = {"_target_": "extrap.positions.local.Local", "inner": ROPE, "window": 5}
    digests = [scheme_digest(spec) for spec in (ROPE, ALIBI, local, {**local, "inner": ALIBI})]
    assert len(set(digests)) == 4
    assert scheme_digest({**ROPE, "base": 500.0}) == digests[0], "arguments stand in the config"
    assert program_digest() not in digests


def test_a_scheme_has_the_digest_of_what_it_imports_too(monkeypatch):
    before = scheme_digest(ROPE), scheme_digest(ALIBI)
    rope = "extrap.positions.rope"
    for line in (
        "from extrap.positions.helper import half",
        "import extrap.positions.helper",
        "from extrap.positions import helper",
    ):
        monkeypatch.setitem(code.SOURCES, "extrap.positions.helper", "half = 0.5")
        monkeypatch.setitem(code.SOURCES, rope, f"{line}\n{code.SOURCES[rope]}")
        digest = scheme_digest(ROPE)
        assert digest != before[0]
        monkeypatch.setitem(code.SOURCES, "extrap.positions.helper", "half = 0.7")
        assert scheme_digest(ROPE) != digest
    assert scheme_digest(ALIBI) == before[1]


def test_an_edit_of_the_program_changes_its_digest(monkeypatch):
    before = program_digest()
    monkeypatch.setattr(code, "MODULES", code.MODULES - {"extrap.train.loop"})
    assert program_digest() != before


def test_the_digest_is_of_the_program_that_runs_whatever_becomes_of_its_files(monkeypatch):
    before = program_digest(), scheme_digest(ROPE)
    monkeypatch.setattr(Path, "read_text", lambda *_: "another = 1")
    assert (program_digest(), scheme_digest(ROPE)) == before
    monkeypatch.setitem(code.SOURCES, "extrap.runs.run", "another = 1")
    assert program_digest() != before[0]
