"""The page in a browser: what it shows, copies, speaks and asks for. Skipped where there is no browser; make test-page."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.page import on_page, write_page
from extrap.report.typesetting import factor, interval, number
from extrap.results.rows import load_rows
from extrap.stats.perplexity import perplexity
from extrap.stats.written import load

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra page; make test-page installs it")
axe = pytest.importorskip("axe_playwright_python", reason="needs the extra page; make test-page installs it")
BROWSER = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")]

RESULTS = Path(__file__).parents[1] / "results"
ON_PAGE = ("main", "zoo", "extend", "budget", "rates+best-lr", "causal", "markov", "electra", "claims", "papers")
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text() if BROWSER else ""
READY = "html[data-ready]"
WIDE, PHONE = 1400, 390


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A page of some of the tracked reports, claims and papers."""
    results = tmp_path_factory.mktemp("results")
    for name in ON_PAGE:
        (results / name).symlink_to(RESULTS / name)
    return write_page(results, on_page(results))[0]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # root may not have one
        running = play.chromium.launch(executable_path=BROWSER, args=options)
        yield running
        running.close()


@pytest.fixture
def visit(browser, file) -> Iterator:
    """Opens the page at an address; at the end nothing was wrong, and nothing asked for but the file."""
    contexts, problems, asked = [], [], []

    def opened(address: str = "", width: int = WIDE, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True,
                                      permissions=["clipboard-read", "clipboard-write"])  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{file}{address}")
        page.wait_for_selector(READY, state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    assert {url.split("#")[0] for url in asked} == {f"file://{file}"}


def cells(page, table: str) -> list[list[str]]:
    lines = page.locator(f"#{table} tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim()))"
    )
    return [line for line in lines if line]


def copied(page, button: str) -> str:
    page.locator(f"#{button}").click()
    sync_api.expect(page.locator("#live")).to_have_text(f"copied as {button.rpartition('-')[2]}")
    return page.evaluate("navigator.clipboard.readText()")


def change(page, key: str, value: str) -> None:
    page.evaluate("([key, value]) => change(key, value)", [key, value])
    page.wait_for_selector(READY, state="attached")


def chosen(page) -> dict[str, list[str]]:
    """Everything that controls say."""
    return page.evaluate("""() => Object.fromEntries([...document.querySelectorAll('[data-key]')].map(
        one => [one.id, one.type === 'checkbox' ? one.checked : one.value]))""")


# numbers


@pytest.mark.parametrize("name", ["main", "causal", "markov", "extend"])
def test_every_cell_is_that_of_the_table(visit, name):
    table = load(RESULTS / name).summary
    extensions = [extension for extension in table["extension"].unique() if extension != "none"]
    page = visit(f"#x={name}&lengths=all&" + "&".join(f"e={quote(one)}" for one in extensions))
    for (protocol, lines), how in product(table.groupby("protocol"), ("value", "ratio")):
        change(page, "p", protocol)
        change(page, "as", how)
        head, *rows = cells(page, "by-length")
        lengths = [int(re.match(r"[\d,]+", text)[0].replace(",", "")) for text in head[1:]]
        shown = {(row[0], n): text for row in rows for n, text in zip(lengths, row[1:], strict=True)}
        for line in lines.itertuples():
            label = line.scheme if line.extension == "none" else f"{line.scheme} + {line.extension}"
            words, what = (number, "ppl") if how == "value" else (factor, "ratio")
            value, low, high = (getattr(line, f"{what}{end}") for end in ("", "_low", "_high"))
            expected = words(value) + ("" if line.kind != "scheme" else interval(value, low, high))
            assert shown[label, line.eval_len] == expected, (label, line.eval_len)
        assert len([text for text in shown.values() if text not in ("–", "ends")]) == len(lines)


def test_every_choice_of_seeds_has_its_own_interval(visit):
    rows = load_rows(RESULTS / "main" / "rows.csv")
    nats = perplexity(
        rows[(rows["extension"] == "none") & (rows["protocol"] == "same_targets")], ["scheme", "eval_len", "seed"]
    )
    nats = nats.set_index(["scheme", "eval_len", "seed"])["log_ppl"].sort_index()
    for size in (1, 2, 3, 5):
        seeds = list(combinations(range(5), size))[-1]
        page = visit("#x=main&s=rope&s=alibi&r=&" + "&".join(f"seeds={seed}" for seed in seeds))
        table = pd.read_csv(io.StringIO(copied(page, "by-length-CSV")))
        assert len(table) == 12
        for line in table.itertuples():
            values = nats.loc[line.scheme, line.eval_len][list(seeds)]
            assert (line.n_seeds, line.value) == (size, pytest.approx(np.exp(values.mean()), rel=1e-7))
            if size > 1:
                low, high = stats.t.interval(0.95, size - 1, values.mean(), stats.sem(values))
                assert [line.low, line.high] == pytest.approx(np.exp([low, high]), rel=1e-6)
            else:
                assert np.isnan(line.high)


def test_a_ratio_to_another_scheme_is_paired_by_seed(visit):
    pairs = pd.read_csv(RESULTS / "main" / "pairs.csv")
    page = visit("#x=main&as=scheme&base=rope&p=same_targets")
    table = pd.read_csv(io.StringIO(copied(page, "by-length-CSV"))).set_index(["scheme", "eval_len"])
    lines = pairs[(pairs["protocol"] == "same_targets") & (pairs["scheme_b"] == "rope")]
    assert len(lines) > 10
    for line in lines.itertuples():
        found = table.loc[line.scheme_a, line.eval_len]
        assert np.log(found[["value", "low", "high"]].astype(float)).to_list() == pytest.approx(
            [line.difference, line.low, line.high], rel=6e-6, abs=1e-6
        )


def test_who_beats_whom_is_what_the_table_of_pairs_says(visit):
    for name, yardstick in (("main", None), ("zoo", "rope")):
        pairs = pd.read_csv(RESULTS / name / "pairs.csv")
        schemes = "&".join(f"s={quote(one)}" for one in {*pairs["scheme_a"], *pairs["scheme_b"]})
        page = visit(f"#x={name}&p=same_targets&n=4096&{schemes}")
        lines = pairs[(pairs["protocol"] == "same_targets") & (pairs["eval_len"] == 4096)]
        head, *rows = cells(page, "matrix")
        if yardstick:
            shown = {(row[0], yardstick): row[5] for row in rows}
            expected = {(line.scheme_a, yardstick): {"a": "better", "b": "worse"}.get(line.verdict, "undecided")
                        for line in lines.itertuples()}  # fmt: skip
            assert shown == expected
            continue
        signs = {(row[0], column): text[:1] for row in rows for column, text in zip(head[1:], row[1:], strict=True) if text}
        assert len(signs) == 2 * len(lines)
        for line in lines.itertuples():
            assert signs[line.scheme_a, line.scheme_b] == {"a": "▼", "b": "▲"}.get(line.verdict, "·")
            assert signs[line.scheme_b, line.scheme_a] == {"a": "▲", "b": "▼"}.get(line.verdict, "·")


def test_a_pair_opens_with_its_two_intervals(visit):
    page = visit("#x=main&p=same_targets&n=512")
    button = page.get_by_role("button", name=re.compile("^rope against sinusoidal:"))
    button.click()
    page.wait_for_selector(READY, state="attached")
    text = page.locator("#pair").inner_text()
    line = pd.read_csv(RESULTS / "main" / "pairs.csv").query(
        "protocol == 'same_targets' and eval_len == 512 and scheme_a == 'rope' and scheme_b == 'sinusoidal'"
    ).iloc[0]  # fmt: skip
    for value in (line["difference"], line["low"], line["high"], line["text_low"], line["text_high"]):
        assert f"{abs(value):.3f}" in text
    assert "rope is better" in text
    assert "rope%7Csinusoidal" in page.url
    assert page.evaluate("document.activeElement.id").startswith("pair-"), "the keyboard stays where it was"


def test_verdicts_of_claims_and_the_tables_of_python_are_there(visit):
    page = visit("#verdict=refuted")
    table = pd.read_csv(RESULTS / "claims" / "claims.csv")
    _, *rows = cells(page, "claim")
    assert {row[2] for row in rows} == {"refuted"}
    assert len(rows) == (table["verdict"] == "refuted").sum()
    page = visit("#x=extend&n=4096&p=same_targets")
    lines = pd.read_csv(RESULTS / "extend" / "extensions.csv").query("protocol == 'same_targets' and eval_len == 4096")
    of_both = {*lines[["scheme_a", "extension_a"]].itertuples(index=False, name=None)}
    _, *rows = cells(page, "extended")
    assert of_both <= {(row[0], row[1]) for row in rows}
    page = visit("#x=budget+max_steps%3D400")
    assert "stable" in page.locator("#budget").inner_text()
    assert "chosen" in visit("#x=rates%2Bbest-lr").locator("#chosen").inner_text()


# copies


def test_what_is_copied_can_be_read_back(visit):
    page = visit("#x=main&p=same_targets")
    head, *rows = cells(page, "by-length")
    markdown = copied(page, "by-length-Markdown").splitlines()
    parsed = [
        [cell.strip().replace("\\", "").replace("**", "") for cell in line.strip("|").split(" | ")] for line in markdown
    ]
    assert [parsed[0], *parsed[2:]] == [head, *rows]
    latex = copied(page, "by-length-LaTeX")
    assert latex.count(r" \\") == len(rows) + 1
    assert r"local(rope) & \textbf{4.09} $\pm$1.7\%" in latex
    assert "95 % t interval" in latex.splitlines()[0]
    assert r"same_targets" in latex.splitlines()[0], "a comment names the choice"


# the address


HOSTILE = (
    "#x=%3Cscript%3E&p=../../etc&as=%00&s=rope&s=%3Cimg%20onerror%3D1%3E&n=-1&from=1e9&to=NaN&seeds=99&at=%23main"
    "&__proto__=1&constructor=2&%%%"
)
ADDRESSES = ["", HOSTILE, "#%%%", "#x=main&s=&seeds=&r=&show=", "#x=zoo&as=scheme&base=learned&lengths=all&from=4096&to=128",
             "#x=extend&p=nonoverlap&show=each&show=bands&e=window&e=yarn", "#x=causal&lengths=all&p=nonoverlap",
             "#x=markov&p=sliding(stride%3D16)"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_any_address_is_shown_without_an_error_or_scrolling_sideways(visit, address):
    page = visit(address, WIDE)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDE
    before = chosen(page)
    change(page, "at", "")
    page.set_viewport_size({"width": PHONE, "height": 900})
    page.reload()
    page.wait_for_selector(READY, state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    assert chosen(page) == before, "a link shows what was shown"


def test_what_an_address_names_and_is_not_there_is_told(visit):
    page = visit(HOSTILE)
    assert "s=<img onerror=1>" in page.locator("#refused").inner_text()
    assert page.locator("#refused img").count() == 0
    assert page.locator("#of-x").input_value() == "main"
    assert chosen(page)["s-rope"]
    assert not chosen(page)["s-alibi"]
    assert visit("").locator("#refused").inner_text() == ""


def test_every_group_can_be_chosen(visit):
    """Those of one experiment differ by setting, or by objective: a discriminator and its generator."""
    page = visit()
    values = page.locator("select").first.evaluate("select => [...select.options].map(option => option.value)")
    assert len(values) == len({*values})
    shown = set()
    for value in (value for value in values if value.startswith("electra")):
        shown.add(str(cells(visit(f"#x={quote(value)}"), "by-length")))
    assert len(shown) == 2


def test_the_same_question_is_answered_for_every_experiment_and_each_answer_opens_its_own(visit):
    page = visit("#x=main")
    page.locator("#all summary").click()
    _, *rows = cells(page, "outcomes")
    assert len(rows) == page.locator("#of-x option").count()
    page.get_by_role("button", name="extend", exact=True).click()
    page.wait_for_selector(READY, state="attached")
    assert "x=extend" in page.url
    (asked,) = [row for row in rows if row[0] == "extend"]
    assert f": {asked[3]} is the lowest as trained, {asked[4]}." in page.locator(".take strong").inner_text()


def test_a_choice_stands_in_the_address_and_reset_forgets_it(visit):
    page = visit("#x=main")
    page.get_by_label("shown as").select_option("ratio")
    page.locator("#s-rope").uncheck()
    page.wait_for_selector(READY, state="attached")
    assert "as=ratio" in page.url
    assert "s=rope" not in page.url
    assert "rope" not in [row[0] for row in cells(page, "by-length")]
    page.locator("#reset").click()
    page.wait_for_selector(READY, state="attached")
    assert "as=ratio" not in page.url
    assert "rope" in [row[0] for row in cells(page, "by-length")]


# speech, keys, contrast


EVERYWHERE = [("#x=main&verdict=refuted", width, scheme) for width in (WIDE, PHONE) for scheme in ("light", "dark")]
OTHERS = [
    ("#x=zoo&verdict=", PHONE, "light"),
    ("#x=extend&verdict=", WIDE, "dark"),
    ("#x=budget+max_steps%3D400&verdict=", WIDE, "light"),
]


@pytest.mark.parametrize(("address", "width", "scheme"), [*EVERYWHERE, *OTHERS])
def test_axe_finds_nothing_even_with_all_open(visit, address, width, scheme):
    page = visit(address, width, scheme)
    page.evaluate(AXE)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    def found() -> list[str]:
        violations = page.evaluate("axe.run().then(found => found.violations)")
        return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in violations]

    page.locator("#matrix button").first.evaluate("one => one.click()")
    page.wait_for_selector(READY, state="attached")
    page.locator("#chart-length").focus()
    page.wait_for_timeout(300)  # to be scrolled to: a tooltip goes when the page moves under it
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    assert found() == []


def test_arrow_keys_speak_every_point_that_the_table_shows(visit):
    page = visit("#x=main&s=rope&s=alibi&r=")
    head, *rows = cells(page, "by-length")
    page.locator("#chart-length").focus()
    heard = []
    for _ in head[1:]:
        page.keyboard.press("ArrowRight")
        heard.append(page.locator("#live").inner_text())
    assert [re.search(r"([\d,]+) tokens", text)[1] for text in heard] == [re.match(r"[\d,]+", text)[0] for text in head[1:]]
    for text, shown in zip(heard, rows[0][1:], strict=True):
        assert text.startswith("alibi: ")
        assert shown.replace("**", "") in text
        assert "5 seeds: 0: " in text
    page.keyboard.press("ArrowDown")
    assert page.locator("#live").inner_text().startswith("rope: ")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_the_keyboard_alone_reaches_and_changes_everything(visit):
    page = visit("#x=main")
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        now = page.evaluate(
            "(one => one === document.body ? '' : one.id || one.className || one.tagName)(document.activeElement)"
        )
        if not now:
            break
        reached.add(now)
    assert {"of-x", "of-p", "of-as", "s-rope", "seeds-4", "reset", "chart-length", "by-length-CSV", "of-n"} <= reached
    page.locator("#s-rope").focus()
    page.keyboard.press("Space")
    page.wait_for_selector(READY, state="attached")
    assert not page.locator("#s-rope").is_checked()
    assert page.evaluate("document.activeElement.id") == "s-rope"
    page.locator("#of-x").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(READY, state="attached")
    assert page.evaluate("document.activeElement.id") == "of-x", "another experiment does not lose the place"


# speed, paper


@pytest.mark.parametrize("address", ["#x=zoo&p=nonoverlap", "#x=extend&show=each&show=bands"])
def test_a_change_is_there_at_once(visit, address):
    """Of what can be seen half a second, on a machine that does nothing else; here with everything shown."""
    page = visit(address)
    page.locator("#s-all").click()
    page.wait_for_selector(READY, state="attached")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    took = page.evaluate("""async () => {
        const took = [], ready = () => document.documentElement.hasAttribute('data-ready');
        for (const how of ['ratio', 'value', 'ratio', 'value', 'ratio']) {
            const start = performance.now();
            change('as', how);
            document.body.offsetHeight;
            took.push(performance.now() - start);
            while (!ready()) await new Promise(done => setTimeout(done, 5));
        }
        return took;
    }""")
    assert min(took) < 500, took


def test_on_paper_the_page_is_light_and_has_all(visit, tmp_path):
    page = visit("#x=main", scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--l-0072b2')") == "#0072b2"
    assert page.locator("aside").is_hidden()
    assert "same_targets" in page.locator("#length .note").first.inner_text(), "the choice is told without the controls"
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 100_000
