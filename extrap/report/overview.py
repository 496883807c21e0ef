"""Many schemes at a glance: a page with one line a scheme, by family. Imports no torch."""

import pandas as pd

from extrap.report.about import chosen_markdown, filled
from extrap.report.families import by_family
from extrap.report.group import FATES, Group
from extrap.report.pairs import BELOW_FLOOR, BELOW_FLOOR_NOTE, ONE_SEED
from extrap.report.typesetting import NONE, interval, loss, markdown, nats, number, seeds, trained_on
from extrap.results.shown import IN_NATS, rounded
from extrap.stats.perplexity import landmarks
from extrap.stats.statistics import Statistics

NOTE = """\
One line per scheme, by family, the best at the training length L first. At L: {measure} under {at}, ± its 95 % t interval
over seeds. To {yardstick}: the difference of {loss} at L (nats per token, negative: better), and whether it is decided,
paired by seed, beyond the noise of {noise}, after Holm over all {n} comparisons. Then, under {beyond}, {measure} relative
to that at L; beyond L: breaks, survives or is unclear, at a threshold of {limit}, ends, or why there is no verdict.{floor}
Uses context, asked at {asked}: the first length at which it is better than at L and than with attention cut off at the last
L tokens (in an encoder at L/2 on either side), and at how many more lengths; otherwise no, undecided, control breaks, no
control where such a window changes nothing, or mixed where the verdicts at these lengths differ."""
FLOOR = """ \
Where the best possible prediction is known: uses more context, if in the longest input it has more than 5 % of what
context beyond L is worth; on the plateau or hardly better than unigram, if it has not learned what follows what."""


AGAINST = {"better": ", better than {}", "worse": ", worse than {}", "undecided": ", undecided against {}"}  # by the word


def against_yardstick(of: Group) -> str:
    """The best at L, and how many are better and worse than the one that all are compared with."""
    possible = of.start[~of.start["scheme"].isin(of.impossible)]
    lines = of.against_yardstick(of.at_protocol, of.train_len)
    words = lines.loc[~lines.index.isin(of.impossible), "word"]
    counts = ", ".join(f"{(words == word).sum()} {word}" for word in dict.fromkeys(("better", "worse", "undecided", *words)))
    n_lacking = (~possible["scheme"].isin([*words.index, of.yardstick])).sum()
    counts += f", {n_lacking} not compared, without a seed in common" if n_lacking else ""
    told = f"compared with {of.yardstick} alone, each of the others: {counts}"
    if of.yardstick in of.impossible:
        told = f"{of.yardstick}, which all are compared with, is below the floor: none of these comparisons counts"
    elif of.yardstick not in {*of.start["scheme"]}:
        told = f"none is compared: {of.yardstick}, which all are compared with, has no number there"
    elif words.empty:
        told = f"none is compared: no other has a seed in common with {of.yardstick}"
    if possible.empty:
        return told
    lowest = possible.iloc[0]
    word = "" if of.yardstick in of.impossible else words.get(lowest["scheme"], "")
    against = AGAINST.get(word, "").format(of.yardstick)
    return f"lowest is {of.names[lowest['scheme']]}, {of.level(lowest['ppl'])}{against}; {told}"


def fates_briefly(of: Group) -> dict[str, str]:
    """Names without numbers."""
    who = {word: [of.names[s] for s, (fate, _) in of.fates.items() if fate == word] for word in FATES}
    return {word: f"{len(names)}: {', '.join(names)}" if names else "" for word, names in who.items()}


def uses_briefly(of: Group) -> str:
    """Who makes use of context beyond L at some length, and of whom that is open."""
    if of.not_asked:
        return of.not_asked
    words = {of.names[scheme]: of.word(scheme) for scheme in of.start["scheme"]}
    yes = [f"{name} at {word}" for name, word in words.items() if word[:1].isdigit()]
    told = [f"yes: {', '.join(yes)}" if yes else "none, beyond the noise"]
    for word in ("no", "undecided", "mixed", "control breaks", "no control"):
        names = [name for name, found in words.items() if found == word]
        told += [f"{word}: {len(names)}" if word == "no" else f"{word}: {', '.join(names)}"] if names else []
    return "; ".join(told)


def overview_page(found: Statistics) -> str:
    """Markdown: a table a family, of every group."""
    parts = [*chosen_markdown(found.choice)]
    for part in found.groups.values():
        if part.yardstick is None:
            continue
        of = Group(part, {scheme: scheme for scheme in part.rows["scheme"].unique()})
        compared = of.against_yardstick(of.at_protocol, of.train_len)
        told = NOTE.format(
            at=of.at_protocol, beyond=of.beyond_protocol, yardstick=of.yardstick, n=int(compared["p_holm"].notna().sum()),
            noise="seeds" if len(compared) and (compared["unit"] == "none").all() else "seeds and of text",
            measure=of.measure, loss=loss([of.objective]),
            limit="5 % of what is explained at L" if of.objective in IN_NATS else "5 %",
            floor=FLOOR if of.floor_verdicts else "", asked=of.asked_at or "no length",
        )  # fmt: skip
        where = trained_on(of.objective, of.data, of.train_len, of.setting)
        parts += [ONE_SEED] if of.n_seeds == 1 else []
        parts += [BELOW_FLOOR_NOTE] if of.impossible else []
        parts += [filled(told), f"**Overview, {where}, {seeds(of.start['n_seeds'])}**"]
        for title, schemes in by_family(list(of.start["scheme"])).items():
            parts += [f"**{title}**", markdown(overview_table(of, schemes), ["scheme"])]
    return "\n\n".join(parts) + "\n"


def overview_table(of: Group, schemes: list[str]) -> pd.DataFrame:
    """A line a scheme."""
    against = rounded(of.against_yardstick(of.at_protocol, of.train_len))
    _, *longer = landmarks(of.lengths, of.train_len)
    table: list[dict[str, str]] = []
    for line in of.start[of.start["scheme"].isin(schemes)].itertuples():
        below = BELOW_FLOOR if line.scheme in of.impossible else ""
        at_start = f"{number(line.ppl)}{interval(line.ppl, line.ppl_low, line.ppl_high)}"
        told = {"scheme": line.scheme + below, "at L": at_start}
        told[f"to {of.yardstick}"] = NONE
        if line.scheme in against.index:
            pair = against.loc[line.scheme]
            told[f"to {of.yardstick}"] = f"{nats(pair['difference'], of.objective, '+')} {pair['word']}"
        told |= of.cells_beyond(line.scheme, longer)
        told |= {"beyond L": of.verdict(line.scheme), "uses context": of.word(line.scheme) or NONE}
        table.append(told)
    return pd.DataFrame(table)
