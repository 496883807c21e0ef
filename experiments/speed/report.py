"""Timings -> ratios, tables and a figure: functions of timings.csv alone. Imports no torch."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from experiments.speed.figure import learning_figure, speed_figure
from experiments.speed.timings import (
    ATTENTION,
    BESIDE,
    COMPARED,
    LOOK,
    OURS,
    STEP,
    YARDSTICK,
    called,
    compare,
    load_timings,
    ratios,
    times_to_loss,
    where,
)
from extrap.files import write_atomic
from extrap.report.drawing import save_figure
from extrap.report.families import by_family
from extrap.report.typesetting import NONE, number
from extrap.results.shown import save_table

# columns of words
NAMES = {
    "scheme", "precision", "peer", "objective", "setting", "attention", "path", "runs", "training", "step", "beside", "",
}  # fmt: skip
LINEAR = 2.5  # a peak that twice the length makes this much larger is not linear; what is quadratic makes it 4 times
NOTES = yaml.safe_load(Path(__file__).with_name("notes.yaml").read_text(encoding="utf-8"))


def write_speed_report(folder: Path) -> list[Path]:
    """Everything in results/speed/ that follows from its timings; returns what was written."""
    timings = load_timings(folder / "timings.csv")
    compared = ratios(timings)
    save_table(folder / "ratios.csv", compared)
    write_atomic(folder / "table.md", markdown(timings, compared))
    figures = save_figure(*speed_figure(timings), folder / "speed")
    if len(where(timings, case=LOOK)):
        figures += save_figure(*learning_figure(timings), folder / "time_to_loss")
    return [folder / "ratios.csv", folder / "table.md", *figures]


def write_scheme_report(folder: Path) -> list[Path]:
    """A table an objective, of every scheme by family: functions of steps.csv alone; returns what was written."""
    timings = load_timings(folder / "steps.csv")
    parts = [NOTES["Schemes"].format(machine=timings["machine"].iloc[0], threads=timings["threads"].max())]
    for objective, rows in timings.groupby("objective", sort=False):
        lines = {scheme: of_scheme(group, where(rows, scheme="nope")) for scheme, group in rows.groupby("scheme")}
        parts.append(f"# {objective}, trained on {where(rows, case='training')['n'].iloc[0]:,}")
        parts.append(NOTES["Rounds"].format(training=spread(rows, "training"), scoring=spread(rows, "evaluation")))
        for title, members in by_family(list(rows["scheme"].unique())).items():
            table = pd.DataFrame([{"scheme": scheme} | lines[scheme] for scheme in members])
            align = ["left", *["right"] * (table.shape[1] - 1)]
            parts += [f"**{title}**", table.fillna(NONE).to_markdown(index=False, disable_numparse=True, colalign=align)]
    write_atomic(folder / "table.md", "\n\n".join(parts) + "\n")
    return [folder / "table.md"]


def spread(rows: pd.DataFrame, case: str) -> str:
    """How far the rounds of a comparison lie apart, largest over smallest ratio to NoPE, in half of all comparisons."""
    apart = []
    for _, part in where(rows, case=case).groupby("n"):
        seconds = part.pivot(index="round", columns="scheme", values="value")
        over = seconds.rdiv(seconds["nope"], axis=0).drop(columns="nope")
        apart += list(over.max() / over.min())
    return f"{float(np.median(apart)):.2f}"


def of_scheme(rows: pd.DataFrame, nope: pd.DataFrame) -> dict[str, str]:
    """Training and scoring over NoPE, the median over rounds of the ratio within a round; memory, and how it grows."""
    told = {"parameters": f"{where(rows, case='training')['params'].iloc[0]:,}"}
    for case, unit, title in (("training", "tokens/s", "training"), ("evaluation", "tokens/s", "scoring {n:,}")):
        for n, part in where(rows, case=case).groupby("n"):
            over = compare("", part, where(nope, case=case, n=n), unit)["ratio"]
            told[title.format(n=n)] = f"{over:.2f}"
    peaks = where(rows, case="memory").set_index("n")["value"].sort_index()
    if len(peaks) > 1:
        *_, half, whole = peaks
        told[f"MB at {peaks.index[-1]:,}"] = number(whole / 1e6)
        growth = whole / half
        told["memory grows"] = f"{'linearly' if growth < LINEAR else 'faster'} ({growth:.2f})"
    return told


def markdown(rows: pd.DataFrame, compared: pd.DataFrame) -> str:
    """For a page: a table a case, each with what its numbers mean."""
    parts = [NOTES["Timings"], f"# {rows['machine'].iloc[0]}, {rows['threads'].max()} threads"]
    tables = {
        "Training by scheme": by_scheme(rows, compared),
        "Training against the peers": by_peer(rows, compared),
        "Steps by objective": by_objective(rows, compared),
        "Attention by length": by_length(rows, compared, "attention", YARDSTICK),
        "Evaluation by length": by_length(rows, compared, "evaluation"),
        "Peak memory by length": by_length(rows, compared, "memory", OURS),
        "A sweep": by_sweep(rows),
        "Time to the same loss": by_learning(rows, compared),
        "Equality": by_path(rows),
    }
    told = about_training(rows)
    for title, lines in tables.items():
        if len(lines):
            align = ["left" if column in NAMES else "right" for column in lines.columns]
            table = lines.to_markdown(index=False, disable_numparse=True, colalign=align)
            parts += [f"**{title}**", NOTES[title].format(**told), table]
    return "\n\n".join(parts) + "\n"


def about_training(rows: pd.DataFrame) -> dict[str, object]:
    """What its note tells of this machine."""
    steps = where(rows, case="training")
    peaks = where(rows, case="peak").eval("rate = flops / value / 1e9").groupby("precision")["rate"].median()
    told = " and ".join(f"{rate:,.0f} GFLOP/s in {precision}" for precision, rate in peaks.items())
    looks = where(rows, case=LOOK)["round"].nunique()
    ours = where(steps, name=OURS).groupby("objective", sort=False)
    rounds = " and ".join(f"{spread(part, 'training')} ({objective})" for objective, part in ours)
    return {"tokens": steps["tokens"].max(), "n": steps["n"].max(), "peaks": told, "rounds": rounds, "looks": looks}


def tokens_per_s(rows: pd.DataFrame) -> str:
    return number((rows["tokens"] / rows["value"]).median())


def ratio(compared: pd.DataFrame, **of: str) -> str:
    """Of a comparison: two digits behind the point, or two that are not zero; – where it was not made."""
    lines = where(compared, **of)
    if lines.empty:
        return NONE
    value = lines["ratio"].iloc[0]
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def by_scheme(rows: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for scheme, group in where(rows, case="training", name=OURS).groupby("scheme", sort=False):
        line = {"scheme": scheme, "precision": group["precision"].iloc[0], "parameters": f"{group['params'].iloc[0]:,}"}
        for objective, part in group.groupby("objective", sort=False):
            case = f"training {objective} {scheme}"
            line[f"{objective}: tokens/s"] = tokens_per_s(part)
            line[f"{objective}: over NoPE"] = ratio(compared, case=case, peer=f"{OURS} nope")
            line[f"{objective}: of peak"] = ratio(compared, case=case, peer="matrix product")
        lines.append(line)
    return pd.DataFrame(lines)


def by_peer(rows: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    lines = []
    peers = where(rows, case="training")
    peers = peers[peers["name"] != OURS]
    schemes = peers.groupby("name")["scheme"].nunique()
    for (objective, name, scheme, setting), group in peers.groupby(["objective", "name", "scheme", "setting"], sort=False):
        line = {"peer": f"{name} ({scheme})", "objective": objective, "setting": setting}
        line |= {"parameters": f"{group['params'].iloc[0]:,}", "logits": f"{group['logits'].iloc[0]:,}"}
        line["tokens/s"] = tokens_per_s(group)
        for ours in COMPARED:
            told = ratio(compared, case=f"training {objective} {ours}", peer=name, setting=setting)
            line[ours] = told if schemes[name] == 1 or ours == scheme else NONE
        lines.append(line)
    return pd.DataFrame(lines)


def by_objective(rows: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    steps = dict(list(where(rows, case=STEP).groupby(["objective", "setting"], sort=False)))
    table = []
    for of, beside in BESIDE:
        if of in steps and beside in steps:
            own, told = steps[of], ratio(compared, case=f"step {called(*of)}", peer=f"{OURS} {called(*beside)}")
            line = {"step": called(*of), "parameters": f"{own['params'].iloc[0]:,}", "tokens/s": tokens_per_s(own)}
            table.append(line | {"beside": called(*beside), "times as long": told})
    return pd.DataFrame(table)


def by_length(rows: pd.DataFrame, compared: pd.DataFrame, case: str, against: str = "") -> pd.DataFrame:
    """A line a (scheme, objective), a column a length; `against` a peer, or against half the length of our own."""
    lines = []
    chosen = where(rows, case=case)
    for (objective, name, scheme), group in chosen.groupby(["objective", "name", "scheme"], sort=False):
        whose = scheme if name == OURS else f"{name} ({scheme})" if scheme != "nope" else name
        line = {"": whose, "attention": ATTENTION[objective]}
        for n, part in group.groupby("n"):
            line[f"{n:,}"] = number(part["value"].median() / (1e6 if case == "memory" else 1))
            peer = f"{OURS} at {n // 2:,}" if against == OURS else against
            told = ratio(compared, case=f"{case} {ATTENTION[objective]} {scheme} {n:,}", peer=peer)
            if name == OURS and told != NONE:
                line[f"{n:,}"] += f" ({told})"
        lines.append(line)
    order = ["", "attention", *(f"{n:,}" for n in sorted(chosen["n"].unique()))]
    return pd.DataFrame(lines, columns=order).fillna(NONE)


def by_sweep(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"runs": setting, "tokens/s": tokens_per_s(group)}
        for setting, group in where(rows, case="sweep").groupby("setting", sort=False)
    )


def by_learning(rows: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """A line a training; what is only known to be more, or less, says so."""
    lines = []
    for one in times_to_loss(rows).itertuples():
        told = ratio(compared, case=f"time to loss {one.objective} {one.scheme}", peer=one.name, setting=one.setting)
        lines.append({
            "training": f"{one.name} ({one.scheme})", "objective": one.objective, "setting": one.setting,
            "tokens": f"{one.tokens:,}", "loss": f"{one.loss:.3f}", "goal": f"{one.goal:.3f}",
            "s to the goal": number(one.seconds) if one.arrives else f"more than {number(one.seconds)}",
            "ours / theirs": told if one.arrives else f"less than {told}",
        })  # fmt: skip
    return pd.DataFrame(lines)


def by_path(rows: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for (setting, scheme), group in where(rows, case="equality").groupby(["setting", "scheme"], sort=False):
        line = {"scheme": scheme, "path": setting}
        lines.append(line | {f"{n:,}": f"{part['value'].max():.1e}" for n, part in group.groupby("n")})
    return pd.DataFrame(lines).fillna(NONE)
