"""LaTeX tables hold the numbers of the Markdown ones, are LaTeX whatever schemes are called, and fit a page and a column."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from rows import both_protocols, forced, many, scheme_rows, with_floor
from test_tables import NAMES, TWO_SEEDS, Table, decided, markdown_blocks, rows_named, shown, with_null

from extrap.errors import UserError
from extrap.report.latex import Choice, choose, latex_tables, narrow_table, write_latex
from extrap.report.report import all_or_nothing
from extrap.report.tables import csv_table, markdown_table
from extrap.report.typesetting import name as printed
from extrap.results.rows import load_missing, load_rows, scored
from extrap.stats.statistics import Statistics

RESULTS = Path(__file__).parents[1] / "results"
PAGE, COLUMN = 397, 240  # pt, of NeurIPS and of one of two columns


def tables_of(rows: pd.DataFrame) -> dict[str, str]:
    return latex_tables(forced(Statistics(rows), pairs=decided(rows)))


def forced_narrow(rows: pd.DataFrame) -> str:
    return narrow_table(forced(Statistics(rows), pairs=decided(rows)), choose(rows))


def narrow(rows: pd.DataFrame, chosen: str = "") -> str:
    return narrow_table(Statistics(rows), choose(rows, chosen))


def cells(text: str) -> Table:
    """The table of a file, each interval behind its number again, in the signs of Markdown."""
    (body,) = re.findall(r"\\begin{tabular}{@{}lr*@{}}\n(.*?)\\end{tabular}", text, flags=re.DOTALL)
    table: Table = []
    for line in body.splitlines():
        if line in (r"\toprule", r"\midrule", r"\bottomrule"):
            continue
        row = [cell.strip() for cell in re.split(r"(?<!\\)&", re.fullmatch(r"(.*)\\\\(?:\[2pt\])?", line)[1])]
        if row[0]:
            table.append(row)
        else:
            small = [re.sub(r"{\\scriptsize (.*)}", r" \1", cell) for cell in row]
            small = [re.sub(r"^ ([\d.,e+]+)--([\d.,e+]+)$", r" (\1 to \2)", cell) for cell in small]
            table[-1] = [a + b for a, b in zip(table[-1], small, strict=True)]
    return table


def plain(table: Table) -> Table:
    signs = {r"$\pm$": "±", r"\%": "%", "--": "–", "{[}": "[", r"$\dagger$": "†"}

    def of(cell: str) -> str:
        for sign, meant in signs.items():
            cell = cell.replace(sign, meant)
        return re.sub(r"\\textbf{([^}]*)}", r"**\1**", cell)

    return [[of(cell) for cell in row] for row in table]


def expected(table: Table) -> Table:
    """A Markdown table without what is left out: ratios, bits and tokens."""
    kept = [i for i, head in enumerate(table[0]) if head not in ("bpb", "bits", "tokens")]
    return [[re.sub(r" \(\d+\.\d\d\)$", "", row[i]) for i in kept] for row in table]


# numbers


@pytest.mark.parametrize(
    "rows",
    [many(TWO_SEEDS), with_null(), with_floor({"a": {128: [1.5, 1.6], 512: [1.3, 1.4]}})],
    ids=["two", "null", "floor"],
)
def test_every_table_of_markdown_is_a_file_with_its_numbers(rows):
    tables = list(tables_of(rows).values())
    blocks = markdown_blocks(markdown_table(forced(Statistics(rows), pairs=decided(rows))))
    assert [plain(cells(text)) for text in tables] == [expected(block) for block in blocks]


def test_files_are_named_for_what_they_show():
    assert list(tables_of(with_null())) == [
        "table_nonoverlap", "table_nonoverlap_controls", "table_nonoverlap_excess", "table_sliding_stride_32",
    ]  # fmt: skip
    two = pd.concat([many(TWO_SEEDS), many(TWO_SEEDS, objective="causal")])
    assert list(tables_of(two)) == ["table_mlm_stdlib_128_nonoverlap", "table_causal_stdlib_128_nonoverlap"]
    signs = pd.concat([many(TWO_SEEDS, setting=f"shift={shift}") for shift in (-1, 1)])
    assert list(tables_of(signs)) == [f"table_mlm_stdlib_128_shift_{shift}_nonoverlap" for shift in ("minus_1", "1")]


def test_who_has_not_learned_is_marked():
    rows = pd.concat([many({"flat": {128: [2.0, 2.0]}}), scheme_rows("unigram", {128: [2.0]}, kind="unigram")])
    assert r"flat $\dagger$ & " in tables_of(rows)["table_nonoverlap"]


def test_a_caption_says_what_its_marks_mean_and_of_no_others():
    """A paper has no table.md beside it."""
    marks = [r"$\pm$: 95 \% t interval over seeds", "bold: decidedly better", r"$\dagger$: next to nothing"]
    plain = {"a": {128: [1.0, 1.01]}, "b": {128: [2.0, 2.03]}}
    flat = pd.concat([many(plain), scheme_rows("unigram", {128: [2.0]}, kind="unigram")])
    for rows, told in (
        (many(plain), [True, True, False]),
        (flat, [True, True, True]),
        (many({"a": {128: [1.0]}}), [False] * 3),
    ):
        for text in (tables_of(rows)["table_nonoverlap"], forced_narrow(rows)):
            caption = re.search(r"\\caption{(.*)}", text)[1]
            assert [mark in caption for mark in marks] == told, caption
            assert f"{rows['seed'].nunique()} seed" in caption


def test_each_float_has_a_label_of_its_own_and_says_what_it_needs():
    tables = tables_of(with_null()) | {"table_narrow": narrow(with_null())}
    labels = [re.search(r"\\label{(.*?)}", text)[1] for text in tables.values()]
    assert labels == ["tab:made:" + stem.removeprefix("table_").replace("_", "-") for stem in tables]
    for stem, text in tables.items():
        assert rf"\input{{{stem}}}, with \usepackage{{booktabs}} in the preamble" in text
        assert text.count(r"\begin{table}") == 1


def test_bold_stands_where_table_csv_says_best():
    rows = both_protocols({"a": {128: [1.0, 1.01], 256: [3.0, 3.02]}, "b": {128: [2.0, 2.03], 256: [2.0, 2.01]}})
    best = csv_table(forced(Statistics(rows), pairs=decided(rows))).set_index(["protocol", "scheme", "eval_len"])["best"]
    for protocol in ("nonoverlap", "same_targets"):
        for scheme, at_128, at_256, *_ in cells(tables_of(rows)[f"table_{protocol}"])[1:]:
            bold = (r"\textbf" in at_128, r"\textbf" in at_256)
            assert bold == (best[protocol, scheme, 128], best[protocol, scheme, 256])


def test_what_is_missing_is_a_cell_and_a_comment():
    absent = {"run": "learned-seed0", "scheme": "learned", "objective": "mlm", "data": "stdlib", "train_len": 128,
              "setting": "", "seed": 0, "extension": "none", "protocol": "nonoverlap", "eval_len": 256,
              "reason": "out of memory"}  # fmt: skip
    rows = many(TWO_SEEDS)
    (text,) = latex_tables(Statistics(rows, pd.DataFrame([absent]))).values()
    assert cells(text)[-1][2] == "out of memory"
    assert "% Not measured: learned-seed0 (out of memory at 256)." in text


def test_one_seed_has_no_line_of_intervals_and_claims_none():
    rows = many({"a": {128: [1.0], 256: [2.0]}})
    assert cells(narrow(rows)) == [["scheme", "128", "256"], ["a", "2.72", "7.39"]]
    assert "intervals" not in narrow(rows)


# the narrow table


def test_a_length_that_some_seed_lacks_is_told_in_the_caption():
    text = narrow(many({"a": {128: [1.0, 1.1, 1.2], 256: [1.0, 1.1]}, "b": {128: [1.0] * 3, 256: [1.0] * 3}}))
    assert re.search(r"\\caption\{.*, 2 to 3 seeds.*; a at 256: 2 seeds; ", text)
    shown = narrow(many({"a": {128: [1.0, 1.1, 1.2], 256: [1.0]}}), "lengths=128")
    assert ", 3 seeds" in shown


CONTROLLED = pd.concat([
    both_protocols({name: {128 * 2**i: [1.0, 1.1] for i in range(6)} for name in ("t5(a=1, b=2)", "rope")}),
    scheme_rows("rope", {128 * 2**i: [1.0, 1.1] for i in range(6)}, extension="window"),
])  # fmt: skip
BOTH = [("t5(a=1, b=2)", "none"), ("rope", "none")]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", Choice("same_targets", [128, 512, 4096], BOTH)),
        ("protocol=nonoverlap", Choice("nonoverlap", [128, 512, 4096], BOTH)),
        ("lengths=4096,128", Choice("same_targets", [4096, 128], BOTH)),
        ("lengths=4096,128, 4096 schemes=rope,rope", Choice("same_targets", [4096, 128], BOTH[1:])),
        (
            "schemes=rope + window,rope,t5(a=1, b=2) protocol=nonoverlap",
            Choice("nonoverlap", [128, 512, 4096], [("rope", "window"), ("rope", "none"), BOTH[0]]),
        ),
    ],
)
def test_what_can_be_chosen(text, chosen):
    assert choose(CONTROLLED, text) == chosen
    table = cells(narrow_table(Statistics(CONTROLLED), chosen))
    assert table[0][1:] == [f"{n:,}" for n in chosen.lengths]
    assert [row[0] for row in table[1:]] == [printed(*label) for label in chosen.schemes]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("protocol=sliding", "no rows of protocol=sliding"), ("lengths=100", "no rows of lengths=100 under same_targets"),
        ("lengths=a", "lengths=a"), ("lengths=128,256,512,1024,2048,4096", "up to 5"),
        ("schemes=alibi", "schemes=alibi"), ("rope", "found 'rope'"), ("width=3", "found 'width=3'"),
        ("lengths=", "found 'lengths='"), ("lengths=128 lengths=256", "found 'lengths=128 lengths=256'"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_told_in_one_line(text, told):
    with pytest.raises(UserError, match=re.escape(told)) as error:
        choose(CONTROLLED, text)
    assert str(error.value).startswith("TABLE: ")
    assert "\n" not in str(error.value)


KEPT = {"mine.tex", "rows.csv", "choice.csv", "probes.csv", "reach.png", "page.html", "pairs.ods", "mine_table.tex"}


def test_tables_of_other_rows_do_not_stay(tmp_path):
    for left in ("table_nonoverlap_floor.tex", "table.tex", "pairs.csv", "pairs.md", "extrapolates.csv", "perplexity_a.png"):
        (tmp_path / left).write_text("old")
    for left in KEPT:
        (tmp_path / left).write_text("old")
    with all_or_nothing(tmp_path) as draft:
        write_latex(draft, Statistics(many(TWO_SEEDS)))
        written = {path.name for path in draft.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == written | KEPT


# names


def test_no_name_breaks_latex():
    tables, others = (tables_of(rows_named(*names)) for names in (NAMES, ["plain"]))
    for text, other in zip(tables.values(), others.values(), strict=True):
        assert_balanced(text)
        table, (head, numbers, *references) = cells(text), cells(other)
        assert table[0] == head
        assert len(table) == 1 + len(NAMES) + len(references)
        for row, name in zip(table[1:], NAMES, strict=False):
            assert without_latex(row[0]) == shown(name)
            assert row[1:] == numbers[1:], name


SPECIAL = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
           r"\textgreater{}": ">", r"\textbar{}": "|", r"\textasciigrave{}": "`", "{[}": "["}  # fmt: skip
SPECIAL |= {f"\\{c}": c for c in "&%$#_{}"}


def without_latex(cell: str) -> str:
    """What a cell shows; whatever is not escaped must be a character that LaTeX sets as it is."""
    parts = re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", cell)
    for part in parts[::2]:
        assert not re.search(r"[\\{}$&#^_~%]", part), cell
    return "".join(SPECIAL.get(part, part) for part in parts)


def assert_balanced(text: str) -> None:
    """No comment within a line, braces and environments closed in order, dollars in pairs."""
    open_environments = []
    for line in text.splitlines():
        if line.startswith("%"):
            continue
        assert not re.search(r"(?<!\\)%", line), line
        bare = re.sub(r"\\[&%$#_{}]", "", line)
        assert bare.count("$") % 2 == 0, line
        assert bare.count("{") == bare.count("}"), line
        assert not re.search(r"[_^~#]", re.sub(r"\$\\pm\$", "", bare)), line
        for verb, name in re.findall(r"\\(begin|end){(\w+)}", bare):
            if verb == "begin":
                open_environments.append(name)
            else:
                assert open_environments.pop() == name
    assert not open_environments


def test_latex_of_a_whole_experiment_is_balanced():
    rows = with_floor(TWO_SEEDS | {"t5(max_distance=64)": {128: [1.5, 1.6], 256: [1.5, 1.6], 512: [2.0, 2.1]}})
    for text in [*tables_of(rows).values(), narrow(rows)]:
        assert_balanced(text)
        assert len({len(row) for row in cells(text)}) == 1


@pytest.mark.parametrize(
    "broken", [r"a & b \\ % c", "a_b", r"\textbf{a", r"\begin{table}", r"\begin{a}\begin{b}\end{a}\end{b}", "$x"]
)
def test_unbalanced_latex_is_noticed(broken):
    with pytest.raises(AssertionError):
        assert_balanced(broken)


# on paper


def compiled(folder: Path, width: int, files: list[Path]) -> dict[str, float]:
    """Widths in pt by file, of a document that holds all of these tables."""
    preamble = rf"\documentclass{{article}}\usepackage{{booktabs}}\usepackage[textwidth={width}pt]{{geometry}}"
    lines = [preamble, r"\begin{document}", r"\newsavebox\shown"]
    for path in files:
        body = re.search(r"\\begin{tabular}.*\\end{tabular}", path.read_text(), flags=re.DOTALL)[0]
        size = r"\footnotesize\setlength{\tabcolsep}{4pt}"
        assert size in path.read_text()
        lines.append(rf"\input{{{path.with_suffix('')}}}\sbox\shown{{{size}{body}}}")
        lines.append(rf"\typeout{{WIDTH {path.name} \the\wd\shown}}\clearpage")
    (folder / "all.tex").write_text("\n".join([*lines, r"\end{document}"]))
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    return {name: float(width) for name, width in re.findall(r"WIDTH (\S+) ([\d.]+)pt", done.stdout)}


TEX = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")]


@pytest.mark.parametrize("name", [pytest.param(p.parent.name, marks=TEX) for p in sorted(RESULTS.glob("*/rows.csv"))])
def test_every_table_compiles_and_fits(name, tmp_path):
    rows, missing = scored(load_rows(RESULTS / name / "rows.csv")), load_missing(RESULTS / name / "missing.csv")
    protocol = rows["protocol"].iloc[0]
    lengths = sorted(rows.loc[rows["protocol"] == protocol, "eval_len"].unique())
    chosen = f"protocol={protocol} lengths={','.join(map(str, lengths[-5:]))}"
    write_latex(tmp_path, Statistics(rows, missing), chosen)
    files = [*tmp_path.glob("*.tex")]
    widths = compiled(tmp_path, PAGE, files)
    assert set(widths) == {path.name for path in files}
    assert max(widths.values()) <= PAGE
    assert max(compiled(tmp_path, COLUMN, [*tmp_path.glob("table_narrow*.tex")]).values()) <= COLUMN


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_names_of_latin_letters_and_signs_compile(tmp_path):
    names = [name for name in NAMES if shown(name).isascii() and len(name) < 40]
    rows = rows_named(*names)
    write_latex(tmp_path, Statistics(rows))
    compiled(tmp_path, 2 * PAGE, [*tmp_path.glob("*.tex")])
