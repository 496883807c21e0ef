"""What becomes of each scheme of one objective, text and training length, in words. Imports no torch."""

import pandas as pd

from extrap.report.phrases import Names, times
from extrap.report.typesetting import length
from extrap.stats.floor import UNFIT
from extrap.stats.perplexity import GROUP, ONSET
from extrap.stats.statistics import Statistics, within

FATES = ("breaks", "unclear", "survives", "ends")


class Group:
    """The statistics of one objective, text and training length, and what they say of every scheme."""

    def __init__(self, found: Statistics, names: Names, group: tuple[object, ...]) -> None:
        summary, self.missing, self.training, self.pairs, self.against_window, floor = (
            within(table, GROUP, group)
            for table in (found.summary, found.missing, found.training, found.pairs, found.extrapolates, found.floor)
        )
        schemes = summary[summary["kind"] == "scheme"]
        protocols = list(schemes["protocol"].unique())
        self.names = names
        self.objective, self.data, self.train_len, self.setting = summary[GROUP].iloc[0]
        self.at_protocol = next((p for p in ("nonoverlap", "same_targets") if p in protocols), protocols[0])
        self.beyond_protocol = next((p for p in ("same_targets", "nonoverlap") if p in protocols), protocols[0])
        at = summary[(summary["protocol"] == self.at_protocol) & (summary["eval_len"] == self.train_len)]
        self.start = at[(at["kind"] == "scheme") & (at["extension"] == "none")].sort_values("log_ppl", kind="stable")
        self.references = at[at["kind"] == "unigram"]
        self.beyond = schemes[schemes["protocol"] == self.beyond_protocol]
        self.floor = floor if floor.empty else floor[floor["protocol"] == self.beyond_protocol]
        self.impossible = {scheme for *of, scheme in found.impossible if tuple(of) == group}
        self.n_seeds = int(self.start["n_seeds"].max())
        self.lengths = sorted(n for n in self.beyond["eval_len"].unique() if n >= self.train_len)
        self.unlearned = self._unlearned()
        self.fates = {scheme: self.fate(scheme, "none") for scheme in self.start["scheme"]}

    def _unlearned(self) -> dict[str, str]:
        """Schemes that at L are not 5 % better than the unigram reference, and in which words."""
        unigram = self.references["log_ppl"].min()
        return {
            line.scheme: "worse than unigram" if line.log_ppl > unigram else "hardly better than unigram"
            for line in self.start[~self.start["beats_unigram"].fillna(True).astype(bool)].itertuples()
        }

    def fate(self, scheme: str, extension: str) -> tuple[str, str]:
        """What becomes of perplexity beyond L: one of FATES, and that with the name and numbers."""
        lines = self.beyond[(self.beyond["scheme"] == scheme) & (self.beyond["extension"] == extension)]
        lines = lines[lines["eval_len"] >= self.train_len].sort_values("eval_len")
        shown, longer = self.names[scheme], lines[lines["eval_len"] > self.train_len]
        if self.lengths[-1] == self.train_len:
            return "", ""
        if longer.empty:
            lacks = self.missing
            why = lacks.loc[(lacks["scheme"] == scheme) & (lacks["extension"] == extension), "reason"]
            return ("", "") if len(why) else ("ends", f"{shown} at {length(self.train_len)}")
        if extension == "none" and (scheme in self.unlearned or self.floor_verdict(scheme) in UNFIT):
            return "", ""
        reached = lines["eval_len"].iloc[-1]
        to = f" to {length(reached)}" if reached < self.lengths[-1] else ""
        alone = "one seed; " if self.n_seeds > longer["n_seeds"].iloc[0] == 1 else ""
        low, high = (longer[column].fillna(longer["ratio"]) for column in ("ratio_low", "ratio_high"))
        worst = longer.loc[longer["ratio"].idxmax()]
        if (low > ONSET).any():
            surely = longer.loc[low > ONSET, "eval_len"].iloc[0]
            onset = longer.iloc[0]
            where = f"{length(onset['onset_low'])} to {length(onset['onset_high'])}"
            where += f", surely at {length(surely)}" if surely != onset["onset_high"] else ""
            return "breaks", f"{shown} ({alone}{where}; {times(worst['ratio'])} at {length(worst['eval_len'])})"
        if (high > ONSET).any():
            widest = longer.loc[high.idxmax()]
            interval = f"{widest['ratio_low']:.2f} to {times(widest['ratio_high'])}"
            return "unclear", f"{shown}{to} ({alone}{interval} at {length(widest['eval_len'])})"
        return "survives", f"{shown}{to} ({alone}at most {times(worst['ratio'])})"

    def pairs_at(self, protocol: str, eval_len: int) -> pd.DataFrame:
        if self.pairs.empty:
            return pd.DataFrame(columns=["scheme_a", "scheme_b", "difference", "verdict", "seeds_needed", "n_seeds"])
        return self.pairs[(self.pairs["protocol"] == protocol) & (self.pairs["eval_len"] == eval_len)]

    def floor_verdict(self, scheme: str) -> str:
        """Where the best possible prediction is known, the verdict of table.md."""
        if self.floor.empty:
            return ""
        lines = self.floor[(self.floor["scheme"] == scheme) & (self.floor["extension"] == "none")]
        return str(lines["verdict"].iloc[0]) if len(lines) else ""

    def verdict(self, scheme: str) -> str:
        if scheme in self.unlearned:
            return self.unlearned[scheme]
        fate = self.fates[scheme][0]
        return fate if fate == "unclear" else self.floor_verdict(scheme) or fate

    def word(self, scheme: str) -> str:
        lines = self.against_window[self.against_window["scheme"] == scheme]
        if len(at := sorted(lines.loc[lines["verdict"] == "yes", "eval_len"])):
            return f"{length(at[0])}" + (f" +{len(at) - 1} more" if len(at) > 1 else "")
        words = list(lines["verdict"].unique())
        return words[0] if len(words) == 1 else "not shown" if words else ""
