"""Who is best at a length, and how sure that is, in sentences. Imports no torch."""

import pandas as pd

from extrap.report.group import Group, lacking, listed
from extrap.report.typesetting import interval, name, seeds
from extrap.stats.pairs import CONTROL, both_ways


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
        return f"{first}; a single scheme has nobody to be compared with"
    against = pairs[pairs["scheme_b"] == leader].set_index("scheme_a")
    gaps = against["difference"].reindex(others).fillna(log_ppl[others] - log_ppl[leader])  # paired by seed, if that goes
    following = f"next {of.names[others[0]]}, {of.above(gaps[others[0]])}"
    if of.n_seeds == 1:
        return f"lowest is {first}; {following}; undecided, with one seed"
    undecided = [scheme for scheme in others if scheme not in against.index[against["verdict"] == "b"]]
    if not undecided:
        return f"{first}, decided against all others; {following}"
    told = [
        f"{of.names[scheme]}, {of.above(gaps[scheme])}"
        + (f" ({lacking(against.loc[scheme])})" if scheme in against.index else "")
        for scheme in undecided
    ]
    n_decided = len(others) - len(undecided)
    rest = f"; decided against the other {n_decided}" if n_decided else ""
    return f"{first}, but undecided against {listed(told)}{rest}"


def leader_at(of: Group, possible: pd.DataFrame, protocol: str, eval_len: int) -> str:
    """The lowest of these, the lowest first, that loses no pair: seeds that only one of two has shift its mean, and pairs
    know nothing of them."""
    pairs = both_ways(of.pairs_at(protocol, eval_len))
    losers = {*pairs.loc[pairs["verdict"] == "b", "scheme_a"]}
    schemes = list(possible["scheme"])
    return str(next((scheme for scheme in schemes if scheme not in losers), schemes[0]))


def longest_of(of: Group) -> pd.DataFrame:
    """Of schemes as trained that can count, the lines at the longest length, the lowest first."""
    lines = of.beyond[(of.beyond["extension"] == "none") & (of.beyond["eval_len"] == of.lengths[-1])]
    out = {*of.impossible, *of.unlearned}
    return lines[~lines["scheme"].isin(out)].sort_values("log_ppl", kind="stable")


def take(of: Group) -> list[str]:
    """Which scheme to take for short training and long use, and how sure that is, sentence by sentence."""
    longest, lines = of.lengths[-1], longest_of(of)
    if longest == of.train_len:
        return [f"No length beyond L = {of.train_len:,} was scored: nothing is said about long use."]
    if lines.empty:
        return [f"None is worth taking: no scheme that has learned from context at L reaches {longest:,} tokens."]
    leader = leader_at(of, lines, of.beyond_protocol, longest)
    line = lines.set_index("scheme").loc[leader]
    level = of.level(line["ppl"]) + interval(line["ppl"], line["ppl_low"], line["ppl_high"])
    told = [
        f"Trained on {of.train_len:,} tokens and used at {longest:,} ({longest / of.train_len:.3g} L), "
        f"{leader} is the lowest as trained: {level}.",
        f"How sure: {_how_sure(of, lines, leader)}.",
    ]
    fate, words = of.fates[leader]
    if fate:
        told.append(f"Beyond L it {BECOMES[fate]}: {words}." + _uses(of, leader))
    told.append(f"{_at_l(of, leader)}.")
    extended = of.beyond[(of.beyond["extension"] != "none") & (of.beyond["eval_len"] == longest)]
    extended = extended[~extended["scheme"].isin({*of.impossible, *of.unlearned})]
    lower = extended[extended["log_ppl"] < line["log_ppl"]].sort_values("log_ppl", kind="stable")
    if len(lower):
        first = lower.iloc[0]
        what = f"{name(first['scheme'], first['extension'])}, {of.level(first['ppl'])}"
        told.append(f"Lower yet, {_tested(of, leader, first)}: {what}, finished weights with an extension.")
    return told


def _tested(of: Group, leader: str, extended: pd.Series) -> str:
    """Whether these weights with an extension are beyond the noise lower than the leader as trained: only of its own is that
    asked."""
    extension, at = extended["extension"], [of.beyond_protocol, of.lengths[-1], leader]
    if extended["scheme"] == leader and extension == CONTROL and len(of.against_window):
        lines = of.against_window[(of.against_window[["protocol", "eval_len", "scheme"]] == at).all(axis=1)]
        decided = lines["window_verdict"] == "worse"
    elif extended["scheme"] == leader and len(of.extended):
        lines = of.extended[(of.extended[["protocol", "eval_len", "scheme_a"]] == at).all(axis=1)]
        lines = lines[(lines["extension_a"] == extension) & (lines["extension_b"] == "none")]
        decided = lines["verdict"] == "a"
    else:
        lines = decided = pd.Series(dtype=bool)
    if lines.empty:
        return "though nobody has tested whether beyond the noise"
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
    return f" Whether it makes use of context beyond L: {word}." if word else ""


def _how_sure(of: Group, lines: pd.DataFrame, leader: str) -> str:
    """Against the others at the longest length."""
    if of.n_seeds == 1:
        return "not at all, one seed decides nothing"
    if len(lines) == 1:
        return "nobody else that can count reaches that length"
    pairs = of.pairs_at(of.beyond_protocol, of.lengths[-1])
    noise = "about this text alone" if (pairs["unit"] == "none").all() else "beyond the noise of seeds and of text"
    over = f"{seeds(lines['n_seeds'])}; what is decided is so {noise}"
    if of.yardstick in (None, leader):  # every pair with the leader is compared
        return f"{best_at(of, lines, of.beyond_protocol, of.lengths[-1])} ({over})"
    words = of.against_yardstick(of.beyond_protocol, of.lengths[-1])["word"]
    told = f"against {of.yardstick} it is {words.get(leader, 'not compared')} ({over})"
    near = [of.names[scheme] for scheme in lines["scheme"] if scheme not in (leader, of.yardstick)][:2]
    if not near:
        return told
    return f"{told}; no two others are compared, so that it is ahead of the next ones, {' and '.join(near)}, is not decided"


def _at_l(of: Group, leader: str) -> str:
    """What taking it costs at the training length."""
    start = of.start[~of.start["scheme"].isin(of.impossible)]
    best = leader_at(of, start, of.at_protocol, of.train_len)
    log_ppl, ppl = (start.set_index("scheme")[column] for column in ("log_ppl", "ppl"))
    if leader == best:
        return f"At L it is the lowest, too: {of.level(ppl[leader])}"
    pairs = both_ways(of.pairs_at(of.at_protocol, of.train_len))
    pair = pairs[(pairs["scheme_a"] == leader) & (pairs["scheme_b"] == best)]
    word = "not compared" if pair.empty else "decided" if pair["verdict"].iloc[0] == "b" else lacking(pair.iloc[0])
    word = f"undecided: {word}" if word not in ("not compared", "decided") else word
    return f"At L it is {of.above(log_ppl[leader] - log_ppl[best])} the lowest, {best} ({word})"
