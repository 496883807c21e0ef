"""What a sweep says, for a terminal of 100 columns: sentences, each carried by its numbers, and a short table.

Imports no torch.
"""

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
import pandas as pd

from extrap.report.about import chosen_text, missing_text
from extrap.report.best import best_at
from extrap.report.budget import budget_text
from extrap.report.choice import choice_text
from extrap.report.group import Group, by_fate, lacking, lacking_to_extrapolate, lengths, listed, shortened
from extrap.report.overview import against_yardstick, fates_briefly, uses_briefly
from extrap.report.typesetting import interval, markdown, name, number, seeds, why_missing
from extrap.results.shown import IN_NATS
from extrap.stats.floor import UNFIT
from extrap.stats.perplexity import landmarks, still_falling
from extrap.stats.statistics import Statistics

WIDTH = 100  # columns
LABEL = 14  # columns, of what a sentence is about
MOST_NAMED = 12  # schemes in a sentence, of those that are still learning
NAME = 20  # columns: longer names of schemes are cut in their middle
LEGEND = """\
L: the training length. ±: 95 % t interval over seeds. Breaks: at some length {breaks}, by the whole interval, or a loss \
that is not a number in some seed; told are the lengths between which the mean first does and, after "surely", the first \
at which the interval does. Survives: at no length; unclear: an interval holds that limit. Extrapolates: better with the \
whole of a longer input than at L, and than with attention cut off at L (in an encoder at L/2 on either side); mixed: \
verdicts differ by length. Decided: beyond the noise of seeds and of text. In parentheses, what leaves it undecided: the \
number of seeds that would show a difference as large and as variable as the one observed with 80 % power; text: other \
text might give another verdict; Holm: it would be decided if fewer pairs were compared; rounding: two ways of computing \
the same model may differ by as much; seeds without a number: the better one has no number in some."""
BREAKS = {
    False: "perplexity more than 5 % above that at L",
    True: "5 % of what is explained at L lost",
}  # by whether losses are told in nats
ONE_SEED = "One seed decides nothing: what follows is what this one seed shows."
THIS_TEXT = "text is too short for an interval over text: verdicts hold for this text alone."
FALLS = "(falls with length even where nothing beyond L is used)"  # what is shown under nonoverlap


def answer(found: Statistics) -> str:
    """What the rows of a report say.

    The level at L is told of the protocol that scores the whole text (nonoverlap), what comes beyond L of the one that
    scores the same tokens at every length (same_targets), where rows hold them. Objectives, texts and training lengths are
    told apart. No line is longer than 100 columns.
    """
    names = shortened(found.by_length["scheme"].unique(), NAME)
    lines = []
    for text in (*chosen_text(found.choice), *choice_text(found)):
        lines += [*wrap(text, WIDTH), ""]
    for of in (Group(part, names) for part in found.groups.values()):
        lines += [*(line for told in title(of) for line in wrap(told, WIDTH)), "", *_sentences(of), "", _table(of), ""]
    for text in budget_text(found):
        lines += [*wrap(text, WIDTH), ""]
    for text in missing_text(found.unmeasured):
        lines += [*wrap(text, WIDTH, break_on_hyphens=False), ""]
    return "\n".join([*lines, *wrap(legend(found.rows["objective"]), WIDTH)])


def legend(objectives: Iterable[str]) -> str:
    """What the words of an answer mean."""
    in_nats = {objective in IN_NATS for objective in objectives}
    return LEGEND.format(breaks=" or ".join(BREAKS[one] for one in sorted(in_nats)))


def title(of: Group) -> list[str]:
    """What was trained, on what, and what of it was scored: a statement each."""
    longest = of.lengths[-1]
    reach = f", scored up to {longest:,} ({longest / of.train_len:.3g} L)" if longest > of.train_len else ""
    trained = f"{of.model}, trained on L = {of.train_len:,}"
    setting = of.trained.removeprefix(of.model)
    told = [f"{trained}{setting}{reach}, {seeds(of.start['n_seeds'])}"]
    scored = (lines.iloc[0] for lines in (of.start, of.beyond))
    at, beyond = (f"{line['protocol']}, {line['n_tokens']:,} per seed" for line in scored)
    if reach and of.beyond_protocol != of.at_protocol:
        told.append(f"at L: the whole text ({at}); beyond it: the same targets at every length ({beyond})")
    else:
        told.append(at + (f" {FALLS}" if reach and of.at_protocol == "nonoverlap" else ""))
    if of.n_seeds == 1:
        told.append(ONE_SEED)
    else:
        compared = [pairs for pairs in (of.pairs, of.against_window) if len(pairs)]
        if without := sorted({name for pairs in compared for name in pairs.loc[pairs["unit"] == "none", "protocol"]}):
            others = {name for pairs in compared for name in pairs["protocol"]} - {*without}
            where = f"Under {' and '.join(without)} the" if others else "The"
            told.append(f"{where} {THIS_TEXT}")
    return told


def sentences(of: Group) -> dict[str, str]:
    """What becomes of the schemes, by what it is about; empty where there is nothing to say."""
    common = {"impossible": _impossible(of), "undertrained": _undertrained(of)}
    if of.yardstick is not None:
        told = {"at L": against_yardstick(of), **common, **fates_briefly(of), "extrapolates": uses_briefly(of)}
    else:
        told = {
            "best at L": best_at(of, of.start, of.at_protocol, of.train_len),
            **common,
            **by_fate(of.fates.values()),
            "extrapolates": _extrapolates(of),
        }
        told |= {"controls": _controls(of), "undecided": _undecided(of)}
    return told | {"missing": _missing(of)}


def _sentences(of: Group) -> list[str]:
    lines = []
    for label, sentence in sentences(of).items():
        label, indent = f"{label:<{LABEL}}", " " * LABEL
        lines += wrap(sentence, WIDTH, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False)
    return lines


def _impossible(of: Group) -> str:
    who = ", ".join(of.names[scheme] for scheme in of.start["scheme"] if scheme in of.impossible)
    return f"{who}: below the floor, so it sees what it should predict; none of its numbers count" if who else ""


def _undertrained(of: Group) -> str:
    told, ppl = [], of.start.set_index("scheme")["ppl"]
    for what in dict.fromkeys(of.unlearned.values()):
        who = ", ".join(f"{of.names[s]} ({number(ppl[s])})" for s in of.unlearned if of.unlearned[s] == what)
        told.append(f"{what} ({number(of.known)}) at L, so a flat curve is no success: {who}")
    for verdict in UNFIT[1:]:  # the first is told apart
        if who := ", ".join(of.names[s] for s in of.start["scheme"] if of.floor_verdicts.get(s) == verdict):
            told.append(f"{verdict}: {who}")
    falling = still_falling(of.training)
    if len(falling):
        shares = 100 * -np.expm1(-falling)
        share = " to ".join(dict.fromkeys(f"{one:.0f}" for one in (shares.min(), shares.max())))
        n_schemes = of.training["scheme"].nunique()
        who = ", ".join(of.names[scheme] for scheme in falling.index)
        if len(falling) > MOST_NAMED or len(falling) == n_schemes > 1:
            who = "all schemes" if len(falling) == n_schemes else f"{len(falling)} of {n_schemes} schemes"
        told.append(
            f"training {'loss' if of.objective in IN_NATS else of.measure} of {who} was still {share} % lower in the last "
            "quarter of the steps than in the one before: longer training may change levels and order"
        )
    return "; ".join(told)


def _extrapolates(of: Group) -> str:
    if of.not_asked:
        return of.not_asked
    scored = sorted(of.against_window["eval_len"].unique())
    told = {}
    for word, lines in of.against_window.groupby("verdict", sort=False):
        parts = []
        for scheme, part in lines.groupby("scheme", sort=False):
            nearest = part.sort_values("seeds_needed", kind="stable").iloc[0]
            why = f" ({lacking_to_extrapolate(nearest)} at {nearest['eval_len']:,})"
            open_ = why if word == "undecided" and of.n_seeds > 1 else ""  # of one seed the title says so
            parts.append(f"{of.names[scheme]} at {lengths(part['eval_len'], scored)}{open_}")
        told[word] = f"{word}: {'; '.join(parts)}"
    if of.uncontrolled:
        who = ", ".join(of.names[scheme] for scheme in of.uncontrolled)
        told["no control"] = f"no control, as window does not apply or changes nothing: {who}"
    order = sorted(told, key=lambda word: (word != "yes", word == "undecided"))
    return ". ".join([*([] if "yes" in told else ["none, beyond the noise"]), *(told[word] for word in order)])


def _controls(of: Group) -> str:
    """What cutting off attention at L makes of those that break."""
    windowed = set(of.beyond.loc[of.beyond["extension"] == "window", "scheme"])
    fates = [of.fate(scheme, "window") for scheme, (kind, _) in of.fates.items() if kind == "breaks" and scheme in windowed]
    parts = [f"{word}: {sentence}" for word, sentence in by_fate(fates).items() if sentence]
    return f"with attention cut off at L, {'. '.join(parts)}" if parts else ""


def _undecided(of: Group) -> str:
    if of.n_seeds == 1:
        return ""
    told = []
    places = [(of.at_protocol, of.train_len), (of.beyond_protocol, of.lengths[-1])]
    for protocol, eval_len in dict.fromkeys(places):
        lines = of.pairs_at(protocol, eval_len)
        open_ = lines[lines["verdict"] == "undecided"].sort_values("seeds_needed", kind="stable")
        if len(open_):
            named = [
                f"{of.names[line['scheme_a']]} and {of.names[line['scheme_b']]} ({lacking(line)})"
                for _, line in open_.iterrows()
            ]
            told.append(f"at {eval_len:,} ({protocol}) {len(open_)} of {len(lines)} pairs: {listed(named)}")
    return ". ".join(told)


def _missing(of: Group) -> str:
    told = []
    for (scheme, extension, reason), part in of.missing.groupby(["scheme", "extension", "reason"], sort=False):
        known = of.names.get(scheme) or shortened([scheme], NAME)[scheme]
        why = pd.Series({seed: _where_missing(of, reason, own) for seed, own in part.groupby("seed")})
        told += [
            f"{name(known, extension)}, seed {', '.join(map(str, own.index))} ({words})"
            for words, own in why.groupby(why, sort=False)
        ]
    return "; ".join(told)


def _where_missing(of: Group, reason: str, lines: pd.DataFrame) -> str:
    """With the protocols that lack it, unless all do."""
    under = list(lines["protocol"].unique())
    return why_missing(reason, lines) + ("" if {*under} >= {*of.protocols} else f", under {' and '.join(under)}")


def summary_table(of: Group) -> pd.DataFrame:
    """A line a scheme as text: at L, the factors beyond it, and what becomes of it."""
    _, *longer = landmarks(of.lengths, of.train_len)
    table: list[dict[str, str]] = []
    for line in of.start.itertuples():
        at_start = f"{number(line.ppl)}{interval(line.ppl, line.ppl_low, line.ppl_high)}"
        told = {"scheme": of.names[line.scheme], "at L": at_start}
        told |= of.cells_beyond(line.scheme, longer)
        told |= {"verdict": of.verdict(line.scheme)} if longer else {}
        told |= {"extrapolates": of.word(line.scheme)} if len(of.against_window) else {}
        table.append(told)
    table += [{"scheme": line.scheme, "at L": number(line.ppl)} for line in of.references.itertuples()]
    return pd.DataFrame(table).fillna("")


def _table(of: Group) -> str:
    """Of two factors beyond L the first is left out where a terminal has no room for it."""
    whole, longer = summary_table(of), landmarks(of.lengths, of.train_len)[1:]
    first = whole.columns[2 : 1 + len(longer)]  # the last stays
    text, narrower = (markdown(columns, [], "simple") for columns in (whole, whole.drop(columns=first)))
    return text if max(map(len, text.splitlines())) <= WIDTH else narrower
