"""What holds of all extensions: which schemes each is for, that nothing changes at the training length, that names join."""

import math

import pytest
import torch
from extending import L, T, answers, geometry_of, named
from torch import nn

from extrap.config.compose import CONF, extension_specs
from extrap.errors import UserError
from extrap.extensions.base import extensions_of
from extrap.positions.absolute import Learned, Sinusoidal
from extrap.positions.alibi import Alibi
from extrap.positions.cope import Cope
from extrap.positions.dape import Dape
from extrap.positions.fox import Fox
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.norms import QkNorm
from extrap.positions.pose import Pose
from extrap.positions.randomized import Randomized
from extrap.positions.rope import Rope
from extrap.positions.sharpness import LogN as TrainedLogN
from extrap.positions.sharpness import SSMax
from extrap.positions.sinks import Sinks
from extrap.positions.t5 import T5

SCHEMES = {
    "nope": Nope, "rope": Rope, "alibi": Alibi, "kerple": Kerple, "t5": T5, "learned": Learned, "sinusoidal": Sinusoidal,
    "fox": Fox, "cope": Cope, "sinks": lambda g: Sinks(g, Rope(g)), "randomized": lambda g: Randomized(g, Rope(g)),
    "narrow": lambda g: Local(g, Rope(g), L), "wide": lambda g: Local(g, Rope(g), L + 1),
    "rnope": lambda g: Mixed(g, Local(g, Rope(g), L), Nope(g)),
    "modernbert": lambda g: Mixed(g, Local(g, Rope(g), L), Rope(g)),
    "hybrid": lambda g: Mixed(g, Local(g, Rope(g), L), Alibi(g)), "blind": lambda g: Sinks(g, Local(g, Nope(g), L)),
    "normed": lambda g: QkNorm(g, Nope(g)), "normed_rnope": lambda g: QkNorm(g, Mixed(g, Local(g, Rope(g), L), Nope(g))),
    "drawn": lambda g: Randomized(g, Sinusoidal(g)), "pose": lambda g: Pose(g, Rope(g)),
}  # fmt: skip
ROTATED, BIASED = {"rope", "sinks", "modernbert"}, {"alibi", "kerple", "t5", "hybrid"}
WIDE = {*SCHEMES} - {"learned", "narrow", "blind"}
APPLIES = {
    "window": {*SCHEMES} - {"learned"},
    "lambda": {"nope", "rope", "alibi", "kerple", "t5", "sinusoidal", "sinks", "normed"},
    "tile": {"learned"}, "clamp": {"learned"}, "interpolate": {"learned", "sinusoidal"},
    "bca": WIDE, "logn": WIDE, "rescale": BIASED, "ntkalibi": {"alibi", "hybrid"},
    "randomized": ROTATED | BIASED | {"sinusoidal", "randomized", "drawn"},
} | dict.fromkeys(["rerope", "leakyrerope", "selfextend"], ROTATED | BIASED) | dict.fromkeys(
    ["pi", "ntk", "ntkmixed", "ntkfixed", "parts", "yarn", "llama3", "drop"], ROTATED | {"wide"}
)  # fmt: skip
MADE_OF_LENGTHS = sorted({*APPLIES} - {"drop", "randomized", "window", "lambda", "rerope"})


def built(name, causal):
    if name == "cope" and not causal:
        return None
    scheme = SCHEMES[name](geometry_of(causal)).eval()
    for parameter in scheme.parameters():
        if not parameter.any():  # zeros would hide whatever is done with them
            nn.init.normal_(parameter)
    return scheme


@pytest.mark.parametrize("name", APPLIES)
def test_which_schemes_an_extension_is_for(name, causal):
    extension, found = named(name), set()
    schemes = {scheme: one for scheme in SCHEMES if (one := built(scheme, causal))}
    for scheme, one in schemes.items():
        extended = extension(one, T)
        if extended is None:
            continue
        found.add(scheme)
        seq_len = L if scheme == "learned" else T  # which ends there
        same = all(map(torch.equal, answers(one, seq_len), answers(extended, seq_len)))
        assert same == (scheme == "learned" and name != "interpolate"), "where it applies it changes something"
    expected = APPLIES[name] & {*schemes}
    if name in ("window", "logn"):  # a window of L holds L keys when causal, in an encoder more
        expected = expected - {"narrow", "blind"} if causal else expected | {"narrow", "blind"}
    assert found == expected


@pytest.mark.parametrize("name", APPLIES)
def test_an_extension_is_for_a_scheme_at_the_training_length_as_beyond(name):
    """Rows at the training length are those of the scheme itself, where the extension applies and nowhere else."""
    for scheme in SCHEMES:
        plain = built(scheme, causal=True)
        assert (named(name)(plain, L) is None) == (named(name)(plain, T) is None), scheme


def test_every_extension_is_asked_here():
    assert {*APPLIES} == {path.stem for path in (CONF / "extension").glob("*.yaml")}


@pytest.mark.parametrize("name", MADE_OF_LENGTHS)
def test_at_the_training_length_nothing_changes(name, causal):
    """Bit for bit; others replace what they do not shorten, and are never asked there."""
    for scheme in ("rope", "alibi", "kerple", "t5", "learned", "sinusoidal", "modernbert", "sinks"):
        plain = built(scheme, causal)
        extended = named(name)(plain, L)
        if extended is None or (name == "bca" and not causal):  # whose blocks of L // 3 do not cover L = 8
            continue
        found, expected = answers(extended, L), answers(plain, L)
        if (name, scheme) == ("leakyrerope", "kerple"):  # a logarithm of real distances, which float64 holds
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        else:
            assert all(map(torch.equal, found, expected)), scheme


@pytest.mark.parametrize("name", ["ntk+logn", "yarn+rerope+logn", "rescale+window", "interpolate+logn", "rerope+bca"])
def test_extensions_join_on_every_path(name, causal, small):
    used = 0
    for scheme in ("rope", "alibi", "learned", "modernbert", "wide"):
        plain = built(scheme, causal)
        extended = named(name)(plain, T)
        if extended is None:
            continue
        used += 1
        torch.testing.assert_close(answers(extended, T, exact=False), answers(extended, T), rtol=0, atol=1e-5)
        alone = named(name.partition("+")[0])(plain, T)
        assert any(not torch.equal(a, b) for a, b in zip(answers(extended, T), answers(alone, T), strict=True))
    assert used


def test_both_of_two_have_to_apply():
    rope = Rope(geometry_of(True))
    for name in ("ntk+tile", "tile+ntk", "window+logn", "pi+ntk"):
        assert named(name)(rope, T) is None


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["none", "window", "tile"], ["none", "window", "tile"]),
        (["none", "window()", "window(size=64)", "lambda(n_first=4)"], ["none", "window", "window(size=64)", "lambda"]),
        (["window( size = 64 )"], ["window(size=64)"]),
        (["ntk+logn", "logn+ntk"], ["ntk+logn", "logn+ntk"]),
        (["yarn(paper=true) + logn"], ["yarn(paper=True)+logn"]),
        (["yarn(paper=True)", "yarn(paper=false)"], ["yarn(paper=True)", "yarn"]),
        (["ntkmixed(power=1)+rerope(window=7)+window"], ["ntkmixed(power=1.0)+rerope(window=7)+window"]),
        (["selfextend(group=null)"], ["selfextend"]),
    ],
)
def test_a_label_names_all_that_is_not_the_default(given, labels):
    specs = extension_specs(given)
    assert [*specs] == labels
    assert [*extensions_of(specs)] == labels
    assert extension_specs(labels) == specs, "a label can be given again"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("windw", "no extension windw; did you mean window?"),
        ("window(siz=3)", "extension.window.siz: no such option; did you mean size?"),
        ("window(size=0)", "expected a window of size >= 1, found 0"),
        ("window(size=a)", "extension.window.size: expected int | None, found 'a'"),
        ("lambda(n_first=0)", "expected n_first >= 1, found 0"),
        ("window(size=32)(", "expected NAME or NAME(option=value), found window(size=32)("),
        ("window(32)", "expected NAME or NAME(option=value), found window(32)"),
        ("tile(size=3)", "extension.tile.size: no such option"),
        ("ntk+windw", "no extension windw; did you mean window?"),
        ("ntk+", "expected NAME or NAME(option=value), found ntk+"),
        ("none+ntk", "none stands for no extension"),
        ("ntk+window(size=0)", "expected a window of size >= 1, found 0"),
        ("yarn(paper=maybe)", "extension.yarn.paper: expected bool, found 'maybe'"),
    ],
)
def test_an_extension_that_cannot_be_is_told(text, told):
    with pytest.raises(UserError) as error:
        extensions_of(extension_specs(["none", text]))
    assert told in str(error.value)


def test_an_extension_stands_once_in_a_sweep():
    for given, label in ((["none", "window", "window()"], "window"), (["ntk+logn", "ntk()+logn"], r"ntk\+logn")):
        with pytest.raises(UserError, match=f"found {label} twice"):
            extension_specs(given)


def test_every_file_of_extensions_is_of_one_with_its_own_name():
    for path in (CONF / "extension").glob("*.yaml"):
        assert [*extension_specs([path.stem])] == [path.stem], "its defaults are those of the class"


def test_extensions_that_would_not_be_heard_do_not_apply(causal):
    """Distances of a draw cannot be shortened, and are none beyond training; DAPE reads the bias that would be rescaled."""
    geometry = geometry_of(causal)
    for name in ("rerope", "leakyrerope", "selfextend", "lambda", "rescale"):
        for scheme in (Rope(geometry), Alibi(geometry)):
            assert named(f"randomized+{name}")(scheme, T) is None
    drawn = Randomized(geometry, Alibi(geometry), draw="distances")
    for name in ("rescale", "ntkalibi", "lambda", "rerope"):
        assert named(name)(drawn, T) is None
    assert named("rescale")(Dape(geometry, Alibi(geometry)), T) is None

    class OfLength(Rope):
        of_length = True

    for name in ("pi", "rerope", "lambda"):
        assert named(name)(OfLength(geometry), T) is None


def test_the_temperature_of_yarn_is_heard_through_counted_keys(causal):
    geometry = geometry_of(causal)
    for counting in (SSMax, TrainedLogN):
        (plain, *_), (sharp, *_) = (
            named(name)(counting(geometry, Rope(geometry)), T).layers(2) for name in ("parts", "yarn")
        )
        n = torch.arange(1, T + 1)
        assert torch.allclose(sharp.sharpness()(n), plain.sharpness()(n) * (0.1 * math.log(T / L) + 1) ** 2)
