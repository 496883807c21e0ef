"""What becomes of each scheme of one objective, text, training length and setting, and words for it. Imports no torch."""

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from extrap.errors import one_line
from extrap.report.typesetting import MODELS, NONE, factor, interval, measure, number
from extrap.results.rows import GROUP, as_trained
from extrap.results.shown import IN_NATS, rounded
from extrap.stats.extrapolates import ANSWER, CONTROL
from extrap.stats.floor import BELOW, UNFIT
from extrap.stats.pairs import UNDECIDED
from extrap.stats.perplexity import ALPHA, AT_L, BEYOND_L, KNOWN, told_first
from extrap.stats.power import MOST_SEEDS, ROUNDING
from extrap.stats.statistics import Statistics

FATES = ("breaks", "unclear", "survives", "ends")
MOST_LISTED = 4  # schemes or pairs in a sentence


class Group:
    """What the statistics of one objective, text, training length and setting say of every scheme."""

    def __init__(self, found: Statistics, names: dict[str, str]) -> None:
        summary = rounded(found.summary)  # or digits that nobody sees would rank what is equal
        schemes = summary[summary["kind"] == "scheme"]
        protocols = self.protocols = [*schemes["protocol"].unique()]
        self.names, self.missing, self.training = names, found.missing, found.training
        self.pairs, self.against_window, self.yardstick = found.pairs, found.extrapolates, found.yardstick
        self._found = found
        self.objective, self.data, self.train_len, self.setting = summary[GROUP].iloc[0]
        self.model = f"{MODELS.get(self.objective, self.objective)} on {one_line(self.data)}"
        self.trained = self.model + (f", {one_line(self.setting)}" if self.setting else "")
        self.measure = measure([self.objective])
        self.at_protocol, self.beyond_protocol = (told_first(wanted, protocols) for wanted in (AT_L, BEYOND_L))
        at = summary[(summary["protocol"] == self.at_protocol) & (summary["eval_len"] == self.train_len)]
        self.start = as_trained(at).sort_values("log_ppl", kind="stable")
        self.references = at[at["kind"].isin([*KNOWN, "rate", "byte"])]
        self.beyond = schemes[schemes["protocol"] == self.beyond_protocol]
        floor = found.floor[(found.floor["protocol"] == self.beyond_protocol) & (found.floor["extension"] == "none")]
        self.floor_verdicts = floor.drop_duplicates("scheme").set_index("scheme")["verdict"].to_dict()  # those of table.md
        self.impossible = {str(scheme) for *_, scheme in found.impossible}
        below = found.floor.loc[found.floor["verdict"] == BELOW, ["scheme", "extension"]]
        self.below_floor = {*below.itertuples(index=False, name=None)}  # and of weights with an extension
        self.n_seeds = int(self.start["n_seeds"].max())
        self.lengths = sorted(n for n in self.beyond["eval_len"].unique() if n >= self.train_len)
        known = self.references[self.references["kind"].isin(KNOWN)]
        self.known = known["ppl"].min()  # what is known without a model
        name = known["scheme"].iloc[0] if len(known) else ""
        self.unlearned = {  # schemes that at L are not 5 % better than that, or of IN_NATS not better
            line.scheme: f"worse than {name}" if line.ppl >= self.known else f"hardly better than {name}"
            for line in self.start[~self.start["beats_unigram"].fillna(True).astype(bool)].itertuples()
        }
        longer = self.beyond.loc[(self.beyond["extension"] == "none") & (self.beyond["eval_len"] > self.train_len), "scheme"]
        lost = found.missing.loc[found.missing["extension"] == CONTROL, "scheme"]
        held = {*lost, *(self.against_window["scheme"] if len(self.against_window) else ())}
        self.broken = found.no_number[found.no_number["protocol"] == self.beyond_protocol]  # at these lengths
        self.uncontrolled = [scheme for scheme in longer.unique() if scheme not in held]
        self.fates = {scheme: self.fate(scheme, "none") for scheme in self.start["scheme"]}

    def n_trained(self, scheme: str, extension: str) -> int:
        """Seeds of it, with a number or without."""
        lines = (lines[lines["extension"] == extension] for lines in (self._found.rows, self.missing))
        return len({*pd.concat([of.loc[of["scheme"] == scheme, "seed"] for of in lines])})

    def fate(self, scheme: str, extension: str) -> tuple[str, str]:
        """What becomes of it beyond L: one of FATES, and that with the name and numbers."""
        lines = self.beyond[(self.beyond["scheme"] == scheme) & (self.beyond["extension"] == extension)]
        shown, longer = self.names[scheme], lines[lines["eval_len"] > self.train_len].sort_values("eval_len")
        if self.lengths[-1] == self.train_len:
            return "", ""
        known = scheme in self.unlearned or scheme in self.impossible or self.floor_verdicts.get(scheme) in UNFIT
        unfit = extension == "none" and known
        broken = self.broken[(self.broken["scheme"] == scheme) & (self.broken["extension"] == extension)]
        if len(broken) and not unfit:
            first = broken[broken["eval_len"] == broken["eval_len"].min()]
            n_seeds = f"{first['seed'].nunique()} of {self.n_trained(scheme, extension)} seeds"
            return "breaks", f"{shown} (not a number in {n_seeds} at {first['eval_len'].iloc[0]:,})"
        if longer.empty:
            lacks = ((self.missing["scheme"] == scheme) & (self.missing["extension"] == extension)).any()
            return ("", "") if lacks else ("ends", f"{shown} at {self.train_len:,}")
        if unfit:
            return "", ""
        reached = longer["eval_len"].iloc[-1]
        to = f" to {reached:,}" if reached < self.lengths[-1] else ""
        alone = "one seed; " if self.n_seeds > longer["n_seeds"].min() == 1 else ""
        low, high = (longer[column].fillna(longer["ratio"]) for column in ("ratio_low", "ratio_high"))
        worst = longer.loc[longer["ratio"].idxmax()]
        limit = longer["limit"]
        if (low > limit).any():
            return "breaks", (
                f"{shown} ({alone}{self.breaks_at(scheme, extension)}; {self.factor(worst['ratio'])} x at "
                f"{worst['eval_len']:,})"
            )
        if (high > limit).any():
            widest = longer.loc[high.idxmax()]
            interval = f"{self.factor(widest['ratio_low'])} to {self.factor(widest['ratio_high'])} x"
            return "unclear", f"{shown}{to} ({alone}{interval} at {widest['eval_len']:,})"
        return "survives", f"{shown}{to} ({alone}at most {self.factor(worst['ratio'])} x)"

    def breaks_at(self, scheme: str, extension: str = "none") -> str:
        """Of one that breaks: between which lengths it first does in the mean over seeds, and where surely, if elsewhere."""
        lines = self.beyond[(self.beyond["scheme"] == scheme) & (self.beyond["extension"] == extension)]
        longer = lines[lines["eval_len"] > self.train_len].sort_values("eval_len")
        surely = longer.loc[longer["ratio_low"].fillna(longer["ratio"]) > longer["limit"], "eval_len"]
        if surely.empty:
            return ""
        onset_low, onset_high = longer.iloc[0][["onset_low", "onset_high"]]
        told = f"{onset_low:,} to {onset_high:,}"
        return told if surely.iloc[0] == onset_high else f"{told}, surely at {surely.iloc[0]:,}"

    @property
    def extended(self) -> pd.DataFrame:
        return self._found.extended

    def pairs_at(self, protocol: str, eval_len: int) -> pd.DataFrame:
        if self.pairs.empty:
            return pd.DataFrame(columns=["scheme_a", "scheme_b", "unit", *ANSWER])
        return self.pairs[(self.pairs["protocol"] == protocol) & (self.pairs["eval_len"] == eval_len)]

    def against_yardstick(self, protocol: str, eval_len: int) -> pd.DataFrame:
        """By scheme: difference in nats to the yardstick, and `word`: better, worse or undecided."""
        lines = self.pairs_at(protocol, eval_len).set_index("scheme_a")
        if lines.empty:
            return lines.assign(word="")
        words = lines["verdict"].map({"a": "better", "b": "worse"}).fillna("undecided")
        return lines.assign(word=words.mask(lines["n_seeds"] < 2, "one seed"))

    def verdict(self, scheme: str) -> str:
        if scheme in self.impossible:
            return BELOW
        if scheme in self.unlearned:
            return self.unlearned[scheme]
        fate = self.fates[scheme][0]
        return fate if fate in ("breaks", "unclear") else self.floor_verdicts.get(scheme, fate)

    def cells_beyond(self, scheme: str, lengths: list[int]) -> dict[str, str]:
        """By the heads of columns: what is shown over that at L at these lengths, as tables show it."""
        lines = self.beyond[(self.beyond["extension"] == "none") & (self.beyond["scheme"] == scheme)].set_index("eval_len")
        cells = {}
        for n in lengths:
            cells[f"x at {n:,}"] = NONE
            if n in lines.index:
                ratio, low, high = lines.loc[n, ["ratio", "ratio_low", "ratio_high"]]
                cells[f"x at {n:,}"] = self.factor(ratio) + interval(ratio, low, high)
        return cells

    def level(self, value: float) -> str:
        return f"{number(value)} nats" if self.objective in IN_NATS else f"{self.measure} {number(value)}"

    def factor(self, ratio: float) -> str:
        return factor(ratio, [self.objective])

    def above(self, gap: float) -> str:
        """A difference in nats per token."""
        if self.objective in IN_NATS:
            if gap <= -5e-5:
                return f"{-gap:.4f} nats below"
            return f"{gap:.4f} nats above" if gap >= 5e-5 else "less than 0.0001 nats above"
        share = 100 * np.expm1(gap)
        if share <= -0.05:  # of means over other seeds than those that decide
            return f"{-share:.1f} % below"
        return f"{share:.1f} % above" if share >= 0.05 else "less than 0.1 % above"

    @property
    def not_asked(self) -> str:
        """Why no scheme was asked whether it extrapolates, or nothing."""
        if self.lengths[-1] == self.train_len:
            return "not asked: no length beyond L was scored"
        if not self.against_window.empty:
            return ""
        if "same_targets" in self.protocols and CONTROL in {*self.beyond["extension"], *self.missing["extension"]}:
            return "not asked: no scheme has numbers beyond L both as trained and with attention cut off"
        return "not asked: that takes same_targets in eval.protocols, window in eval.extensions and a scheme it applies to"

    @property
    def asked_at(self) -> str:
        """The lengths at which it was."""
        return "" if self.not_asked else lengths(self.against_window["eval_len"].drop_duplicates(), self.lengths)

    def word(self, scheme: str) -> str:
        """Whether it extrapolates: the first length where it does, else the verdict where that is one at all lengths."""
        if self.not_asked:
            return ""
        lines = self.against_window[self.against_window["scheme"] == scheme]
        if len(at := sorted(lines.loc[lines["verdict"] == "yes", "eval_len"])):
            return f"{at[0]:,}" + (f" +{len(at) - 1} more" if len(at) > 1 else "")
        words = list(lines["verdict"].unique())
        if not words:
            return "no control" if scheme in self.uncontrolled else ""
        return words[0] if len(words) == 1 else "mixed"


def by_fate(fates: Collection[tuple[str, str]]) -> dict[str, str]:
    return {word: "; ".join(told for kind, told in fates if kind == word) for word in FATES}


def shortened(names: Iterable[str], width: int) -> dict[str, str]:
    """Names on one line, none longer than that, and no two the same.

    A long one is cut in its middle, or close to its end where that is what tells it from others.
    """
    plain = {given: one_line(given) for given in names}
    ways = [{given: cut(name, width, head) for given, name in plain.items()} for head in (width // 2, width - 3)]
    found: dict[str, str] = {}
    for given in plain:
        short = next((way[given] for way in ways if [*way.values()].count(way[given]) == 1), ways[0][given])
        for i in range(2, len(found) + 2):
            if short not in found.values():
                break
            short = f"{short[: width - len(str(i)) - 1]}~{i}"
        found[given] = short
    return found


def cut(name: str, width: int, head: int) -> str:
    """The first `head` characters and the last ones of a name that is longer than `width`."""
    return name if len(name) <= width else f"{name[:head]}..{name[len(name) - (width - head - 2) :]}"


def listed(named: list[str]) -> str:
    more = [f"{len(named) - MOST_LISTED} more"] if len(named) > MOST_LISTED else []
    return "; ".join(named[:MOST_LISTED] + more)


def lacking(line: pd.Series) -> str:
    """What leaves a pair undecided: the tests and intervals that do not tell it from 0, else that it is no more than
    rounding, else the number of comparisons, else seeds without a number."""
    if line["n_seeds"] < 2:
        return seeds_lacking(line)
    if line["p"] == 1 and abs(line["difference"]) <= ROUNDING:  # every seed, by paired_p
        return "rounding"
    told = [seeds_lacking(line)] if line["low"] * line["high"] <= 0 else []
    # the interval over text is a bootstrap, its p one of a t test: p is the larger of two, and that over seeds is in `told`
    by_text = line["text_low"] * line["text_high"] <= 0 or (not told and line["p"] >= ALPHA)
    told += ["text"] if line["unit"] != "none" and by_text else []
    if not told and abs(line["difference"]) <= ROUNDING:
        return "rounding"
    return "; ".join(told) or ("Holm" if line["p_holm"] >= ALPHA else "seeds without a number")


def lacking_to_extrapolate(line: pd.Series) -> str:
    """The same of a line of `extrapolates`: of its differences to the window and to the scheme at L those that are open."""
    of_itself = pd.Series({**line, **{column: line[f"self_{column}"] for column in ANSWER if f"self_{column}" in line}})
    differences = {"window_verdict": line, "self_verdict": of_itself}
    open_ = [lacking(one) for verdict, one in differences.items() if line[verdict] == UNDECIDED]
    return "; ".join(dict.fromkeys(reason for told in open_ for reason in told.split("; "))) or "seeds without a number"


def seeds_lacking(line: pd.Series) -> str:
    """How many seeds would decide a comparison, where that is more than there are."""
    if line["n_seeds"] < 2:
        return "one seed"
    if pd.isna(line["seeds_needed"]):
        return f"more than {MOST_SEEDS:,} seeds"
    if line["seeds_needed"] > line["n_seeds"]:
        return f"{line['seeds_needed']} seeds"
    return ""


def lengths(some: pd.Series, scored: list[int]) -> str:
    """Three and more of the scored lengths in a row are a range."""
    at = sorted(some)
    if len(at) > 2 and at == [n for n in scored if at[0] <= n <= at[-1]]:
        return f"{at[0]:,} to {at[-1]:,}"
    return ", ".join(f"{n:,}" for n in at)
