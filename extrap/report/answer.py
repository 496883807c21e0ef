"""What a sweep says, for a terminal of 100 columns: sentences, each carried by its numbers, and a short table.

Imports no torch.
"""

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from extrap.errors import one_line
from extrap.report.typesetting import NONE, align, interval, length, number
from extrap.stats.floor import BELOW, UNFIT, against_floor
from extrap.stats.pairs import MOST_SEEDS
from extrap.stats.perplexity import CONFIDENCE, GROUP, ONSET, summarise

WIDTH = 100  # columns
LABEL = 14  # columns, of what a sentence is about
NAME = 20  # columns: longer names of schemes are cut in their middle
MOST_NAMED = 4  # schemes or pairs in one sentence
MODELS = {"mlm": "masked LM", "causal": "causal LM"}

LEGEND = """\
L: the training length. ±: 95 % t interval over seeds. Breaks, survives: perplexity more than 5 % above that at L, between \
which lengths first, or nowhere; unclear where the interval over seeds holds both. Extrapolates: with all of a longer input \
better than at L, and than with attention cut off at L. Decided: beyond the noise of seeds and of text. In parentheses, \
what leaves it undecided: so many seeds would show a difference as large and as varied as the one seen in 80 % of all \
tries; text: other text might say otherwise; Holm: so many pairs are compared."""
ONE_SEED = "One seed decides nothing: what follows is what this one seed shows."
THIS_TEXT = "The text is too little for an interval over text: what is decided is decided about this text."
FALLS = "(falls with length even where nothing beyond L is used)"  # perplexity under nonoverlap

Names = dict[str, str]  # scheme -> as it is printed


def answer(
    rows: pd.DataFrame,
    missing: pd.DataFrame,
    training: pd.DataFrame,
    pairs: pd.DataFrame,
    against_window: pd.DataFrame,
) -> str:
    """What the rows of a report say; `pairs` and `against_window` are pairs(rows) and extrapolates(rows) of them.

    Perplexity at L is told of the protocol that scores all tokens (nonoverlap), what comes beyond L of the one that scores
    the same tokens at every length (same_targets), where rows hold them. Objectives, texts and training lengths are told
    apart. No line is longer than 100 columns.
    """
    rows = rows[rows["protocol"] != "position"]
    summary, floor, names = summarise(rows), against_floor(rows), shortened(rows["scheme"].unique(), NAME)
    parts = []
    for group, lines in summary.groupby(GROUP, sort=False):
        of = [_of(table, group) for table in (missing, training, pairs, against_window, floor)]
        parts.append(_Group(names, lines, *of).told())
    return "\n\n".join([*parts, "\n".join(wrap(LEGEND, WIDTH))])


def _of(table: pd.DataFrame, group: tuple[object, ...]) -> pd.DataFrame:
    return table if table.empty else table[(table[GROUP] == list(group)).all(axis=1)]


class _Group:
    """The tables of one objective, text and training length."""

    def __init__(
        self,
        names: Names,
        summary: pd.DataFrame,
        missing: pd.DataFrame,
        training: pd.DataFrame,
        pairs: pd.DataFrame,
        against_window: pd.DataFrame,
        floor: pd.DataFrame,
    ) -> None:
        schemes = summary[summary["kind"] == "scheme"]
        protocols = list(schemes["protocol"].unique())
        self.missing, self.training, self.names = missing, training, names
        self.pairs, self.against_window = pairs, against_window
        self.objective, self.data, self.train_len = summary[GROUP].iloc[0]
        self.at_protocol = next((p for p in ("nonoverlap", "same_targets") if p in protocols), protocols[0])
        self.beyond_protocol = next((p for p in ("same_targets", "nonoverlap") if p in protocols), protocols[0])
        at = summary[(summary["protocol"] == self.at_protocol) & (summary["eval_len"] == self.train_len)]
        self.at = at[(at["kind"] == "scheme") & (at["extension"] == "none")].sort_values("log_ppl", kind="stable")
        self.references = at[at["kind"] == "unigram"]
        self.beyond = schemes[schemes["protocol"] == self.beyond_protocol]
        self.floor = floor if floor.empty else floor[floor["protocol"] == self.beyond_protocol]
        self.impossible = set() if floor.empty else set(floor.loc[floor["verdict"] == BELOW, "scheme"])
        self.n_seeds = int(self.at["n_seeds"].max())
        self.lengths = sorted(n for n in self.beyond["eval_len"].unique() if n >= self.train_len)
        self.unlearned = self._unlearned()
        self.fates = {scheme: self._fate(scheme, "none") for scheme in self.at["scheme"]}

    def told(self) -> str:
        return "\n".join([self._title(), *self._sentences(), "", self._fitting()])

    def _title(self) -> str:
        what = MODELS.get(self.objective, self.objective)
        low, high = self.at["n_seeds"].min(), self.at["n_seeds"].max()
        seeds = f"{low} to {high} seeds" if low < high else f"{high} seed{'s' if high > 1 else ''}"
        longest = self.lengths[-1]
        reach = f", scored up to {length(longest)} ({longest / self.train_len:.3g} L)" if longest > self.train_len else ""
        lines = wrap(f"{what} on {one_line(self.data)}, trained on L = {length(self.train_len)}{reach}, {seeds}", WIDTH)
        at, beyond = (self._scored(lines) for lines in (self.at, self.beyond))
        if reach and self.beyond_protocol != self.at_protocol:
            lines += wrap(f"at L: all tokens ({at}); beyond it: the same targets at every length ({beyond})", WIDTH)
        else:
            lines += wrap(at + (f" {FALLS}" if reach and self.at_protocol == "nonoverlap" else ""), WIDTH)
        if high == 1:
            lines.append(ONE_SEED)
        elif any(len(lines) and (lines["unit"] == "none").any() for lines in (self.pairs, self.against_window)):
            lines.append(THIS_TEXT)
        return "\n".join([*lines, ""])

    def _scored(self, lines: pd.DataFrame) -> str:
        return f"{lines['protocol'].iloc[0]}, {lines['n_tokens'].iloc[0]:,} a seed"

    def _sentences(self) -> list[str]:
        fates = {word: [told for scheme, (kind, told) in self.fates.items() if kind == word] for word in FATES}
        told = {"best at L": self._best(), "impossible": self._impossible(), "undertrained": self._undertrained()}
        told |= {word: "; ".join(fates[word]) for word in FATES}
        told |= {
            "extrapolates": self._extrapolates(),
            "controls": self._controls(),
            "undecided": self._undecided(),
            "missing": self._missing(),
        }
        return [line for label, sentence in told.items() if sentence for line in _labelled(label, sentence)]

    # at the training length

    def _best(self) -> str:
        possible = self.at[~self.at["scheme"].isin(self.impossible)]
        if possible.empty:
            return ""
        log_ppl = possible.set_index("scheme")["log_ppl"]
        lines = self._pairs_at(self.at_protocol, self.train_len)
        # seeds that only one of two has shift its mean, and pairs know nothing of them: who loses a pair does not lead
        losers = {line["scheme_b" if line["verdict"] == "a" else "scheme_a"] for _, line in lines.iterrows()
                  if line["verdict"] != "undecided"}  # fmt: skip
        leader = next((scheme for scheme in log_ppl.index if scheme not in losers), log_ppl.index[0])
        others = [scheme for scheme in log_ppl.index if scheme != leader]
        first = f"{self.names[leader]}, perplexity {number(np.exp(log_ppl[leader]))}"
        if not others:
            return f"{first}; a single scheme has nobody to be compared with"
        lines = lines[(lines["scheme_a"] == leader) | (lines["scheme_b"] == leader)]
        side = {i: "a" if a == leader else "b" for i, a in lines["scheme_a"].items()}
        against = {line["scheme_b" if side[i] == "a" else "scheme_a"]: i for i, line in lines.iterrows()}
        gaps = dict(log_ppl[others] - log_ppl[leader])
        for other, i in against.items():  # paired by seed
            gaps[other] = lines.loc[i, "difference"] * (-1 if side[i] == "a" else 1)
        if self.n_seeds == 1:
            return f"lowest is {first}; next {self.names[others[0]]}, {_above(gaps[others[0]])}; undecided, with one seed"
        decided = [o for o in others if o in against and lines.loc[against[o], "verdict"] == side[against[o]]]
        if len(decided) == len(others):
            return f"{first}, decided against all others; next {self.names[others[0]]}, {_above(gaps[others[0]])}"
        open_ = [
            f"{self.names[other]}, {_above(gaps[other])}"
            + (f" ({_open(lines.loc[against[other]])})" if other in against else "")
            for other in others
            if other not in decided
        ]
        rest = f"; decided against the other {len(decided)}" if decided else ""
        return f"{first}, but undecided against {_listed(open_)}{rest}"

    def _unlearned(self) -> dict[str, str]:
        """Schemes that at L are not 5 % better than the unigram reference, and in which words."""
        unigram = self.references["log_ppl"].min()
        return {
            line.scheme: "worse than unigram" if line.log_ppl > unigram else "hardly better than unigram"
            for line in self.at[~self.at["beats_unigram"].fillna(True).astype(bool)].itertuples()
        }

    def _impossible(self) -> str:
        who = ", ".join(self.names[scheme] for scheme in self.at["scheme"] if scheme in self.impossible)
        return f"{who}: below the floor, so it sees what it should predict; none of its numbers count" if who else ""

    def _undertrained(self) -> str:
        told, ppl = [], self.at.set_index("scheme")["ppl"]
        for what in dict.fromkeys(self.unlearned.values()):
            who = ", ".join(f"{self.names[s]} ({number(ppl[s])})" for s in self.unlearned if self.unlearned[s] == what)
            told.append(f"{what} ({number(self.references['ppl'].iloc[0])}) at L, so a flat curve is no success: {who}")
        for verdict in UNFIT[1:]:  # the first is told apart
            if who := ", ".join(self.names[s] for s in self.at["scheme"] if self._floor_verdict(s) == verdict):
                told.append(f"{verdict}: {who}")
        falling = still_falling(self.training)
        if len(falling):
            shares = 100 * -np.expm1(-falling)
            low, high = f"{shares.min():.0f}", f"{shares.max():.0f}"
            who = (
                "all schemes"
                if set(falling.index) == set(self.training["scheme"]) and len(falling) > 1
                else ", ".join(self.names[scheme] for scheme in falling.index)
            )
            told.append(
                f"training perplexity of {who} was still {low if low == high else f'{low} to {high}'} % lower in the last "
                "quarter of the steps than in the one before: longer training may change levels and order"
            )
        return "; ".join(told)

    # beyond it

    def _fate(self, scheme: str, extension: str) -> tuple[str, str]:
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
        if extension == "none" and (scheme in self.unlearned or self._floor_verdict(scheme) in UNFIT):
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
            return "breaks", f"{shown} ({alone}{where}; {_times(worst['ratio'])} at {length(worst['eval_len'])})"
        if (high > ONSET).any():
            widest = longer.loc[high.idxmax()]
            interval = f"{widest['ratio_low']:.2f} to {_times(widest['ratio_high'])}"
            return "unclear", f"{shown}{to} ({alone}{interval} at {length(widest['eval_len'])})"
        return "survives", f"{shown}{to} ({alone}at most {_times(worst['ratio'])})"

    def _extrapolates(self) -> str:
        if self.lengths[-1] == self.train_len:
            return "not asked: no length beyond L was scored"
        if self.against_window.empty:
            return "not asked: that takes same_targets among eval.protocols and window among eval.extensions"
        scored = sorted(self.against_window["eval_len"].unique())
        told = {}
        for word, lines in self.against_window.groupby("verdict", sort=False):
            parts = []
            for scheme, part in lines.groupby("scheme", sort=False):
                nearest = part.sort_values("seeds_needed", kind="stable").iloc[0]
                enough = pd.notna(nearest["seeds_needed"]) and nearest["seeds_needed"] <= nearest["n_seeds"]
                why = f"{'not for want of seeds' if enough else _open(nearest)} at {length(nearest['eval_len'])}"
                open_ = f" ({why})" if word == "undecided" else ""
                parts.append(f"{self.names[scheme]} at {_lengths(part['eval_len'], scored)}{open_}")
            told[word] = f"{word}: {'; '.join(parts)}"
        order = sorted(told, key=lambda word: (word != "yes", word == "undecided"))
        return ". ".join([*([] if "yes" in told else ["nobody, beyond the noise"]), *(told[word] for word in order)])

    def _controls(self) -> str:
        """What cutting off attention at L makes of those that break."""
        broken = [scheme for scheme, (kind, _) in self.fates.items() if kind == "breaks"]
        windowed = set(self.beyond.loc[self.beyond["extension"] == "window", "scheme"])
        told: dict[str, list[str]] = {word: [] for word in FATES}
        for scheme in (scheme for scheme in broken if scheme in windowed):
            kind, sentence = self._fate(scheme, "window")
            told[kind].append(sentence)
        parts = [f"{word}: {'; '.join(those)}" for word, those in told.items() if those]
        return f"with attention cut off at L, {'. '.join(parts)}" if parts else ""

    # what is open

    def _pairs_at(self, protocol: str, eval_len: int) -> pd.DataFrame:
        if self.pairs.empty:
            return pd.DataFrame(columns=["scheme_a", "scheme_b", "difference", "verdict", "seeds_needed", "n_seeds"])
        return self.pairs[(self.pairs["protocol"] == protocol) & (self.pairs["eval_len"] == eval_len)]

    def _undecided(self) -> str:
        if self.n_seeds == 1:
            return ""
        told = []
        places = [(self.at_protocol, self.train_len), (self.beyond_protocol, self.lengths[-1])]
        for protocol, eval_len in dict.fromkeys(places):
            lines = self._pairs_at(protocol, eval_len)
            open_ = lines[lines["verdict"] == "undecided"].sort_values("seeds_needed", kind="stable")
            if len(open_):
                named = [
                    f"{self.names[line['scheme_a']]} and {self.names[line['scheme_b']]} ({_open(line)})"
                    for _, line in open_.iterrows()
                ]
                told.append(f"at {length(eval_len)} ({protocol}) {len(open_)} of {len(lines)} pairs: {_listed(named)}")
        return ". ".join(told)

    def _missing(self) -> str:
        told = []
        for (scheme, extension, reason), part in self.missing.groupby(["scheme", "extension", "reason"], sort=False):
            seeds = ", ".join(map(str, sorted(set(part["seed"]))))
            at = "" if reason.startswith("diverged") else f" at {', '.join(map(length, sorted(set(part['eval_len']))))}"
            known = self.names.get(scheme) or shortened([scheme], NAME)[scheme]
            shown = known if extension == "none" else f"{known} + {extension}"
            told.append(f"{shown}, seed {seeds} ({one_line(reason)}{at})")
        return "; ".join(told)

    def _table(self) -> pd.DataFrame:
        beyond = self.beyond[self.beyond["extension"] == "none"].set_index(["scheme", "eval_len"])
        longer = self.lengths[1:]
        four = min(longer, key=lambda n: abs(np.log(n / (4 * self.train_len))), default=None)
        shown = dict.fromkeys(n for n in (four, *longer[-1:]) if n)
        table: list[dict[str, str]] = []
        for line in self.at.itertuples():
            told = {"scheme": self.names[line.scheme], "at L": f"{number(line.ppl)}{interval(line.ppl, line.log_ppl_half)}"}
            for n in shown:
                known = (line.scheme, n) in beyond.index
                told[f"x at {length(n)}"] = _factor(beyond.loc[(line.scheme, n)]) if known else NONE
            told |= {"verdict": self._verdict(line.scheme)} if longer else {}
            told |= {"extrapolates": self._word(line.scheme)} if len(self.against_window) else {}
            table.append(told)
        for line in self.references.itertuples():
            table.append({"scheme": line.scheme, "at L": number(line.ppl)})
        return pd.DataFrame(table).fillna("")

    def _fitting(self) -> str:
        """The table, without its column of 4 L where a terminal has no room for it."""
        for table in (whole := self._table(), whole.drop(columns=whole.columns[2:3])):
            text: str = table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align(table))
            if max(map(len, text.splitlines())) <= WIDTH:
                break
        return text

    def _verdict(self, scheme: str) -> str:
        if scheme in self.unlearned:
            return self.unlearned[scheme]
        fate = self.fates[scheme][0]
        return fate if fate == "unclear" else self._floor_verdict(scheme) or fate

    def _floor_verdict(self, scheme: str) -> str:
        """Where the best possible prediction is known, the verdict of table.md."""
        if self.floor.empty:
            return ""
        lines = self.floor[(self.floor["scheme"] == scheme) & (self.floor["extension"] == "none")]
        return str(lines["verdict"].iloc[0]) if len(lines) else ""

    def _word(self, scheme: str) -> str:
        lines = self.against_window[self.against_window["scheme"] == scheme]
        if len(at := sorted(lines.loc[lines["verdict"] == "yes", "eval_len"])):
            return f"{length(at[0])}" + (f" +{len(at) - 1} more" if len(at) > 1 else "")
        words = list(lines["verdict"].unique())
        return words[0] if len(words) == 1 else "not shown" if words else ""


FATES = ("breaks", "unclear", "survives", "ends")
FALL = np.log(ONSET)  # nats: less is not worth a sentence


def still_falling(training: pd.DataFrame) -> pd.Series:
    """By how many nats the training loss fell from the third to the last quarter of the steps, of the schemes where it
    certainly did by 5 % of perplexity or more: mean over seeds, by scheme.

    Certainly: the whole 95 % interval lies above that. It holds the noise of batches: means of a quarter's entries differ
    by their two sample variances, of all seeds together (Welch), so that a single run has one, too. Only entries of the
    log count, each of one batch. A loss that falls because the learning rate does is falling none the less; one that
    would fall if it were trained longer, or at another rate, need not show.
    """
    found = {}
    for scheme, part in training.groupby("scheme", sort=False):
        falls, variances, degrees = [], [], 0
        for _, run in part.groupby("seed"):
            quarter = np.ceil(4 * run["step"] / run["step"].max())
            before, last = (run.loc[quarter == q, "loss"].to_numpy() for q in (3, 4))
            if min(len(before), len(last)) > 1:
                falls.append(before.mean() - last.mean())
                variances.append(before.var(ddof=1) / len(before) + last.var(ddof=1) / len(last))
                degrees += min(len(before), len(last)) - 1
        if falls:
            half = stdtrit(degrees, 0.5 + CONFIDENCE / 2) * np.sqrt(sum(variances)) / len(falls)
            if np.mean(falls) - half > FALL:
                found[scheme] = float(np.mean(falls))
    return pd.Series(found, dtype=float)


def shortened(names: Iterable[str], width: int) -> Names:
    """Names on one line, none longer than that, and no two the same."""
    found: Names = {}
    for given in names:
        plain = one_line(given)
        short = plain if len(plain) <= width else f"{plain[: width // 2]}..{plain[len(plain) - width // 2 + 2 :]}"
        for i in range(2, len(found) + 2):
            if short not in found.values():
                break
            short = f"{short[: width - len(str(i)) - 1]}~{i}"
        found[given] = short
    return found


def _labelled(label: str, sentence: str) -> list[str]:
    lines = wrap(sentence, WIDTH - LABEL, break_on_hyphens=False)
    return [f"{label if not i else '':<{LABEL}}{line}" for i, line in enumerate(lines)]


def _listed(named: list[str]) -> str:
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return "; ".join(named[:MOST_NAMED] + more)


def _above(gap: float) -> str:
    share = 100 * np.expm1(gap)
    return f"{share:.1f} % above" if share >= 0.05 else "less than 0.1 % above"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{number(ratio)} x"


def _factor(line: pd.Series) -> str:
    half = np.log(line["ratio_high"] / line["ratio"])
    return (f"{line['ratio']:.2f}" if line["ratio"] < 10 else number(line["ratio"])) + interval(line["ratio"], half)


def _open(line: pd.Series) -> str:
    """What leaves a comparison undecided."""
    if line["n_seeds"] < 2:
        return "one seed"
    if pd.isna(line["seeds_needed"]):
        return f"more than {MOST_SEEDS:,} seeds"
    if line["seeds_needed"] > line["n_seeds"]:
        return f"{line['seeds_needed']} seeds"
    return "text" if line["p_holm"] < 1 - CONFIDENCE else "Holm"


def _lengths(some: pd.Series, scored: list[int]) -> str:
    """Three and more of the scored lengths in a row are a range."""
    at = sorted(some)
    if len(at) > 2 and at == [n for n in scored if at[0] <= n <= at[-1]]:
        return f"{length(at[0])} to {length(at[-1])}"
    return ", ".join(map(length, at))
