"""Who is best at a length, and how sure that is, in sentences. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.errors import one_line
from extrap.report.group import Group, lacking, listed
from extrap.report.typesetting import NONE, interval, name, seeds
from extrap.results.rows import as_trained
from extrap.stats.extrapolates import CONTROL
from extrap.stats.floor import UNFIT
from extrap.stats.pairs import both_ways


def best_at(of: Group, lines: pd.DataFrame, protocol: str, eval_len: int) -> str:
    """Of these lines of schemes as trained at one length, the lowest first, who leads and against whom that is decided."""
    possible = lines[~lines["scheme"].isin(of.impossible)]
    if possible.empty:
        return ""
    log_ppl, ppl = (possible.set_index("scheme")[column] for column in ("log_ppl", "ppl"))
    pairs = both_ways(of.pairs_at(protocol, eval_len))
    leader = leader_at(of, possible, protocol, eval_len)
    others = [scheme for scheme in log_ppl.index if scheme != leader]
    first = f"{of.names[leader]}, {of.level(ppl[leader])}"
    if not others:
        return f"{first}; there is no other scheme to compare it with"
    against = pairs[pairs["scheme_b"] == leader].set_index("scheme_a")
    gaps = against["difference"].reindex(others).fillna(log_ppl[others] - log_ppl[leader])  # paired by seed, if that goes
    following = f"next {of.names[others[0]]}, {of.above(gaps[others[0]])}"
    if of.n_seeds == 1:
        return f"lowest is {first}; {following}; undecided, with one seed"
    undecided = undecided_with(of, leader, others, protocol, eval_len)
    if not undecided:
        return f"{first}, decided against all others; {following}"
    told = [
        f"{of.names[scheme]}, {of.above(gaps[scheme])}"
        + f" ({lacking(against.loc[scheme]) if scheme in against.index else 'no seed in common'})"
        for scheme in undecided
    ]
    n_decided = len(others) - len(undecided)
    rest = f"; decided against the other{f' {n_decided}' if n_decided > 1 else ''}" if n_decided else ""
    return f"{first}, but undecided against {listed(told)}{rest}"


def undecided_with(of: Group, leader: str, others: list[str], protocol: str, eval_len: int) -> list[str]:
    """Of these, whom the leader is not decided to be better than."""
    pairs = both_ways(of.pairs_at(protocol, eval_len))
    beaten = {*pairs.loc[(pairs["scheme_b"] == leader) & (pairs["verdict"] == "b"), "scheme_a"]}
    return [scheme for scheme in others if scheme not in beaten]


def leader_at(of: Group, possible: pd.DataFrame, protocol: str, eval_len: int) -> str:
    """The lowest of these, the lowest first, that loses no pair: seeds that only one of two has shift its mean, and pairs
    know nothing of them."""
    pairs, schemes = both_ways(of.pairs_at(protocol, eval_len)), list(possible["scheme"])
    losers = {*pairs.loc[(pairs["verdict"] == "b") & pairs["scheme_b"].isin(schemes), "scheme_a"]}
    return str(next((scheme for scheme in schemes if scheme not in losers), schemes[0]))


def longest_of(of: Group) -> pd.DataFrame:
    """Of schemes as trained that can count, the lines at the longest length, the lowest first."""
    lines = _at_longest(of)
    return lines[~lines["scheme"].isin(left_out(of))].sort_values("log_ppl", kind="stable")


def _at_longest(of: Group) -> pd.DataFrame:
    """Lines there of schemes as trained."""
    return as_trained(of.beyond[of.beyond["eval_len"] == of.lengths[-1]])


def left_out(of: Group) -> set[str]:
    """Who cannot count as trained: the unfit, and who ends in no number."""
    broken = broken_at_end(of)
    return {*broken.loc[broken["extension"] == "none", "scheme"], *unfit(of)}


def unfit(of: Group) -> set[str]:
    """Who sees what it should predict, has learned nothing from context that it could lose, or has no number at L of all
    tokens, by which that is known."""
    by_floor = {scheme for scheme, verdict in of.floor_verdicts.items() if verdict in UNFIT}
    return {*of.impossible, *of.unlearned, *by_floor, *({*of.beyond["scheme"]} - {*of.start["scheme"]})}


def broken_at_end(of: Group) -> pd.DataFrame:
    """What is not a number at the longest length, a line a seed."""
    return of.broken[of.broken["eval_len"] == of.lengths[-1]]


def take(of: Group) -> list[str]:
    """Which scheme to take for short training and long use, and how sure that is, sentence by sentence."""
    longest, lines = of.lengths[-1], longest_of(of)
    if longest == of.train_len:
        return [f"No length beyond L = {of.train_len:,} was scored: nothing is said about long use."]
    if lines.empty:
        none = f"None is worth taking as trained: none counts at {longest:,} tokens ({listed(_why_none(of))})."
        return [none, *_extended(of)]
    leader = leader_at(of, lines, of.beyond_protocol, longest)
    line = lines.set_index("scheme").loc[leader]
    level = of.level(line["ppl"]) + interval(line["ppl"], line["ppl_low"], line["ppl_high"])
    told = [
        f"{of.trained[0].upper()}{of.trained[1:]}, trained at length {of.train_len:,} and used at {longest:,} "
        f"({longest / of.train_len:.3g} L): {of.names[leader]} is the lowest as trained{_by_pairs(lines, leader)}, {level}.",
        f"How sure: {_how_sure(of, lines, leader, of.beyond_protocol, longest)}{_over(of, leader)}."
        + (f" Left out as not comparable: {listed(out)}." if (out := _out_at_end(of)) else ""),
    ]
    fate, words = of.fates[leader]
    if fate:
        also = [of.names[scheme] for scheme in lines["scheme"] if of.fates[scheme][0] == fate and scheme != leader]
        others = f"; so {'do' if len(also) > 1 else 'does'} {listed(also)}" if also else ""
        told.append(f"Beyond L it {BECOMES[fate]}{words.removeprefix(of.names[leader])}{others}." + _uses(of, leader))
    told.append(f"{_at_l(of, leader)}.")
    return [*told, *_extended(of, leader, line["log_ppl"])]


def outcome(of: Group) -> dict[str, str]:
    """The same as a line of a table of many groups."""
    longest, lines = of.lengths[-1], longest_of(of)
    about = {"model": of.model, "L, used at": f"{of.train_len:,}, {longest:,}"}
    if longest == of.train_len or lines.empty:
        return about | dict.fromkeys(("lowest there as trained", "level there", "against the others", "beyond L"), NONE)
    leader = leader_at(of, lines, of.beyond_protocol, longest)
    line = lines.set_index("scheme").loc[leader]
    others = [scheme for scheme in lines["scheme"] if scheme != leader]
    if of.n_seeds == 1 or not others:
        sure = "one seed" if of.n_seeds == 1 else "no other that counts reaches it"
    elif of.yardstick in of.impossible:
        sure = f"{of.yardstick} is below the floor"
    elif of.yardstick not in (None, leader):
        word = _against_yardstick(of, leader, of.beyond_protocol, longest)
        sure = f"{word}: {of.yardstick}; not compared: {len({*others} - {of.yardstick})} others"
    else:
        open_ = undecided_with(of, leader, others, of.beyond_protocol, longest)
        decided = [f"decided: {len(others) - len(open_)}"] if len(open_) < len(others) else []
        sure = "; ".join([*decided, *([f"undecided: {listed([of.names[one] for one in open_])}"] if open_ else [])])
    return about | {
        "lowest there as trained": of.names[leader],
        "level there": of.level(line["ppl"]) + interval(line["ppl"], line["ppl_low"], line["ppl_high"]),
        "against the others": sure,
        "beyond L": of.verdict(leader) or NONE,
    }


def _why_none(of: Group) -> list[str]:
    """Of each scheme, why it does not count at the longest length as trained."""
    longest, at_end = of.lengths[-1], broken_at_end(of)
    here = (of.missing["extension"] == "none") & (of.missing["eval_len"] == longest)
    lost, lines = of.missing[here], as_trained(of.beyond).groupby("scheme", sort=False)
    told = []
    for scheme, reached in lines["eval_len"].max().items():
        broken = at_end.loc[(at_end["extension"] == "none") & (at_end["scheme"] == scheme), "seed"].nunique()
        reasons = " and ".join(map(one_line, lost.loc[lost["scheme"] == scheme, "reason"].unique()))
        if scheme in unfit(of):
            why = _why_unfit(of, scheme)
        elif broken:
            why = f"not a number in {broken} of {of.n_trained(scheme, 'none')} seeds"
        else:
            why = reasons or f"ends at {reached:,}"
        told.append(f"{of.names[scheme]}: {why}")
    return told


def _extended(of: Group, leader: str | None = None, log_ppl: float = np.inf) -> list[str]:
    """The lowest at the longest length of finished weights with an extension, where it is lower than the leader."""
    columns = ["scheme", "extension"]
    at_end = of.beyond[(of.beyond["extension"] != "none") & (of.beyond["eval_len"] == of.lengths[-1])]
    broken = pd.MultiIndex.from_frame(at_end[columns]).isin(pd.MultiIndex.from_frame(broken_at_end(of)[columns]))
    below = pd.MultiIndex.from_frame(at_end[columns]).isin([*of.below_floor])
    lower = at_end[~broken & ~below & ~at_end["scheme"].isin(unfit(of)) & (at_end["log_ppl"] < log_ppl)]
    if lower.empty:
        return []
    first = lower.sort_values("log_ppl", kind="stable").iloc[0]
    level = of.level(first["ppl"]) + interval(first["ppl"], first["ppl_low"], first["ppl_high"])
    what = f"{name(first['scheme'], first['extension'])}, {level}"
    if leader is None:
        return [f"Of finished weights with an extension the lowest there in the mean: {what}."]
    return [f"Lower in the mean, {_tested(of, leader, first)}: {what}, finished weights with an extension."]


def _tested(of: Group, leader: str, extended: pd.Series) -> str:
    """Whether these weights with an extension are beyond the noise lower than the leader as trained: only of its own is that
    asked."""
    extension, at = extended["extension"], [of.beyond_protocol, of.lengths[-1], leader]
    if extended["scheme"] == leader and extension == CONTROL and len(of.against_window):
        lines = of.against_window[(of.against_window[["protocol", "eval_len", "scheme"]] == at).all(axis=1)]
        decided, contrary = lines["window_verdict"] == "worse", lines["window_verdict"] == "better"
    elif extended["scheme"] == leader and len(of.extended):
        lines = of.extended[(of.extended[["protocol", "eval_len", "scheme_a"]] == at).all(axis=1)]
        lines = lines[(lines["extension_a"] == extension) & (lines["extension_b"] == "none")]
        decided, contrary = lines["verdict"] == "a", lines["verdict"] == "b"
    else:
        lines = decided = contrary = pd.Series(dtype=bool)
    if lines.empty:
        return "but not compared with it"
    if contrary.any():
        return "though on the seeds of both it is decidedly higher"
    return "which is decided" if decided.all() else "which is undecided"


BECOMES = {
    "breaks": "breaks",
    "unclear": "may break or survive",
    "survives": "survives",
    "ends": "ends",
}


def _uses(of: Group, scheme: str) -> str:
    word = of.word(scheme)
    if word[:1].isdigit():
        return f" It makes use of context beyond L, at {word}."
    if of.verdict(scheme) == "uses more context":
        return " It makes use of context beyond L, by the best possible prediction."
    if of.not_asked:
        return ""
    if scheme in of.uncontrolled:
        return (
            " Whether it makes use of context beyond L is not asked: attention cut off at L changes nothing in it, or fails."
        )
    return f" Whether it makes use of context beyond L: {word}." if word else ""


def _how_sure(of: Group, lines: pd.DataFrame, leader: str, protocol: str, eval_len: int) -> str:
    """Against the others of these lines at that length."""
    if of.n_seeds == 1:
        return "not at all, one seed decides nothing"
    if len(lines) == 1:
        return "no other scheme that counts reaches that length"
    if of.yardstick in (None, leader):  # every pair with the leader is compared
        return best_at(of, lines, protocol, eval_len)
    if of.yardstick in of.impossible:
        return f"not at all: all are compared with {of.yardstick} alone, which is below the floor"
    told = f"against {of.yardstick} it is {_against_yardstick(of, leader, protocol, eval_len)}"
    near = [of.names[scheme] for scheme in lines["scheme"] if scheme not in (leader, of.yardstick)][:2]
    if not near:
        return told
    ones = "one" if len(near) == 1 else "ones"
    return f"{told}; no two others are compared, so its lead over the next {ones}, {' and '.join(near)}, is undecided"


def _against_yardstick(of: Group, leader: str, protocol: str, eval_len: int) -> str:
    word = str(of.against_yardstick(protocol, eval_len)["word"].get(leader, "not compared"))
    return "undecided, with one seed in common" if word == "one seed" else word


def _over(of: Group, leader: str) -> str:
    """How many seeds comparisons with the leader at the longest length are over, and what they know of text."""
    pairs = both_ways(of.pairs_at(of.beyond_protocol, of.lengths[-1]))
    pairs = pairs[(pairs["scheme_a"] == leader) & ~pairs["scheme_b"].isin(left_out(of))]
    if pairs.empty or pairs["n_seeds"].max() == 1:
        return ""
    noise = "for this text alone" if (pairs["unit"] == "none").all() else "beyond the noise of seeds and of text"
    return f" ({seeds(pairs['n_seeds'])}, paired; verdicts hold {noise})"


def _by_pairs(lines: pd.DataFrame, leader: str) -> str:
    """Where the mean of another is lower, over other seeds."""
    return "" if leader == lines["scheme"].iloc[0] else " on the seeds that it shares with others"


def _out_at_end(of: Group) -> list[str]:
    """Of those that are left out the ones that reach the longest length."""
    lines = _at_longest(of)
    return [f"{of.names[one]} ({_why_unfit(of, one)})" for one in lines.loc[lines["scheme"].isin(left_out(of)), "scheme"]]


def _why_unfit(of: Group, scheme: str) -> str:
    return of.verdict(scheme) if scheme in of.fates else f"no number at L under {of.at_protocol}"


def _at_l(of: Group, leader: str) -> str:
    """What taking it costs at the training length."""
    start = of.start[~of.start["scheme"].isin(of.impossible)]
    best = leader_at(of, start, of.at_protocol, of.train_len)
    log_ppl, ppl = (start.set_index("scheme")[column] for column in ("log_ppl", "ppl"))
    where = "At L" if of.at_protocol == of.beyond_protocol else f"At L, over the whole text ({of.at_protocol}),"
    if leader == best:
        if of.yardstick in (None, leader):
            return f"{where} it is the lowest, too: {best_at(of, start, of.at_protocol, of.train_len)}"
        word = _against_yardstick(of, leader, of.at_protocol, of.train_len)
        against = "which is below the floor" if of.yardstick in of.impossible else word
        return f"{where} it has the lowest mean, too: {of.level(ppl[leader])}, against {of.yardstick} {against}"
    pairs = both_ways(of.pairs_at(of.at_protocol, of.train_len))
    pair = pairs[(pairs["scheme_a"] == leader) & (pairs["scheme_b"] == best)]
    word = "not compared" if pair.empty else "decided" if pair["verdict"].iloc[0] == "b" else lacking(pair.iloc[0])
    word = f"undecided: {word}" if word not in ("not compared", "decided") else word
    gap = log_ppl[leader] - log_ppl[best] if pair.empty else pair["difference"].iloc[0]  # paired by seed
    return f"{where} it is {of.above(gap)} the lowest, {of.names[best]} ({word})"
