"""Many schemes at a glance: a page with one line a scheme, by family. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.report.about import chosen_markdown
from extrap.report.families import by_family
from extrap.report.group import FATES, Group, factor
from extrap.report.typesetting import NONE, interval, markdown, number, seeds, trained_on
from extrap.stats.perplexity import landmarks
from extrap.stats.statistics import Statistics

NOTE = """\
One line a scheme, by family, the best at the training length L first. At L: perplexity under {at}, ± its 95 % t
interval over seeds. To {yardstick}: the difference of log-perplexity at L (nats per token, negative: better), and whether it
is decided, paired by seed, beyond the noise of seeds and of text, after Holm over all {n} comparisons. Then, under
{beyond}, perplexity over that at L; beyond L: breaks, survives or unclear, by 5 %. Uses context: whether with all of the
longest input it is better than at L and than with attention cut off at the last L tokens. Speed: tokens a second of training
over those of {reference}; by the clock, whatever else ran."""


def against_yardstick(of: Group) -> str:
    """The best at L, and how many are better and worse than the one that all are compared with."""
    words, first = of.against_yardstick(of.at_protocol, of.train_len)["word"], of.start.iloc[0]
    counts = ", ".join(f"{(words == word).sum()} {word}" for word in ("better", "worse", "undecided"))
    lowest = f"lowest is {of.names[first['scheme']]}, perplexity {number(first['ppl'])}"
    return f"{lowest}; of the others, each compared with {of.yardstick} alone: {counts}"


def fates_briefly(of: Group) -> dict[str, str]:
    """Names without numbers."""
    who = {word: [of.names[s] for s, (fate, _) in of.fates.items() if fate == word] for word in FATES}
    return {word: f"{len(names)}: {', '.join(names)}" if names else "" for word, names in who.items()}


def uses_briefly(of: Group) -> str:
    """Who makes use of all of the longest input, and of whom that is open."""
    who = {word: [of.names[s] for s in of.start["scheme"] if of.uses(s) == word] for word in ("yes", "undecided")}
    told = [f"{word}: {', '.join(names)}" for word, names in who.items() if names]
    return "; ".join([*([] if who["yes"] else ["nobody, beyond the noise"]), *told])


def overview_page(found: Statistics) -> str:
    """Markdown: a table a family, of every group."""
    parts = [*chosen_markdown(found.choice)]
    for part in found.groups.values():
        of = Group(part, {scheme: scheme for scheme in part.rows["scheme"].unique()})
        speeds = speeds_of(part)
        reference = next((scheme for scheme in ("nope", of.yardstick) if scheme in speeds), None)
        told = NOTE.format(
            at=of.at_protocol, beyond=of.beyond_protocol, yardstick=of.yardstick, n=len(of.start) - 1,
            reference=reference or "nobody: they are not known",
        )  # fmt: skip
        where = trained_on(of.objective, of.data, of.train_len, of.setting)
        parts += [told, f"**Overview, {where}, {seeds(of.start['n_seeds'])}**"]
        for title, schemes in by_family(list(of.start["scheme"])).items():
            parts += [f"**{title}**", markdown(_table(of, schemes, speeds, reference), ["scheme"])]
    return "\n\n".join(parts) + "\n"


def speeds_of(found: Statistics) -> dict[str, float]:
    """Tokens a second of training, mean over seeds, by scheme, where they are known of all runs."""
    if found.costs_and_quality.empty:
        return {}
    known = found.costs_and_quality.drop_duplicates("scheme").set_index("scheme")["tokens_per_second"].dropna()
    return {str(scheme): speed for scheme, speed in known.items()}


def _table(of: Group, schemes: list[str], speeds: dict[str, float], reference: str | None) -> pd.DataFrame:
    beyond = of.beyond[of.beyond["extension"] == "none"].set_index(["scheme", "eval_len"])
    against = of.against_yardstick(of.at_protocol, of.train_len)
    _, *longer = landmarks(of.lengths, of.train_len)
    table: list[dict[str, str]] = []
    for line in of.start[of.start["scheme"].isin(schemes)].itertuples():
        told = {"scheme": line.scheme, "at L": f"{number(line.ppl)}{interval(line.ppl, line.log_ppl_half)}"}
        told[f"to {of.yardstick}"] = NONE
        if line.scheme in against.index:
            pair = against.loc[line.scheme]
            told[f"to {of.yardstick}"] = f"{pair['difference']:+.3f} {pair['word']}"
        for n in longer:
            told[f"x at {n:,}"] = NONE
            if (line.scheme, n) in beyond.index:
                ratio, high = beyond.loc[(line.scheme, n), ["ratio", "ratio_high"]]
                told[f"x at {n:,}"] = factor(ratio) + interval(ratio, np.log(high / ratio))
        told |= {"beyond L": of.verdict(line.scheme), "uses context": of.uses(line.scheme) or NONE}
        known = reference is not None and line.scheme in speeds
        told["speed"] = f"{speeds[line.scheme] / speeds[reference]:.2f}" if known and reference is not None else NONE
        table.append(told)
    return pd.DataFrame(table)
