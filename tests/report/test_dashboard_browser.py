"""The dashboard in a real browser that reaches nothing: drawn, worked by mouse and keys, and never taken in by its data."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from arena_cje.report import dashboard
from dashboard_study import HOSTILE, large_page, payload, study

if TYPE_CHECKING:
    from pathlib import Path

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make test installs it)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")

POLICIES = ("better", "<img src=x onerror='window.hacked = 1'>", "unhelpful")
expect = sync_api.expect  # unlike functions to wait for, it evaluates nothing, which the page forbids
TABS = ("overview", "estimates", "weights", "calibration", "comparisons", "data", "run", "items")
FIGURES = ("forest", "estimators", "sweep", "weights", "scatter", "calibration", "differences")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A page of a study whose prompts and names would be harmful as code."""
    folder = tmp_path_factory.mktemp("page")
    of = study(folder / "study", 240, POLICIES)
    results = [of.result(), of.result("direct")]
    page = dashboard.render(results, **of.arguments, others=[("0.1", of.result(oracle_coverage=0.1))], coverage="0.25")
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


@pytest.fixture
def opened(browser, written):
    """Opens the page, and checks at the end that it made no request, wrote nothing to the console, and ran no data."""
    closing = []

    def go(path: Path = written, hash: str = "", drawn: bool = False, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        page, requests, messages = context.new_page(), [], []
        context.route("**/*", lambda route: (requests.append(route.request.url), _only_files(route)))
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append("dialog"), dialog.dismiss()))
        closing.append((context, page, requests, messages))
        page.goto(path.as_uri() + hash)
        if drawn:
            page.wait_for_selector("html[data-ready=true]", timeout=30_000)
        return page

    yield go
    for context, page, requests, messages in closing:
        hacked = page.evaluate("window.hacked")
        context.close()
        assert [url for url in requests if not url.startswith("file:")] == []
        assert messages == []
        assert hacked is None


def _only_files(route):
    return route.continue_() if route.request.url.startswith("file:") else route.abort()


def rows(page) -> list[str]:
    return page.locator("#list tbody th").all_inner_texts()


def n_matches(page) -> int:
    return int(page.inner_text("#found").split()[0])


# ---- figures -----------------------------------------------------------------------------------------------------------


def test_every_figure_renders(opened, written):
    page = opened(drawn=True)
    assert {f["name"] for f in payload(written.read_text())["figures"]} == set(FIGURES)
    for name in FIGURES:
        marks = page.locator(f"#plot-{name} svg .mark-symbol path, #plot-{name} svg .mark-rect path")
        assert marks.count() > 1, name
    shown = payload(written.read_text())["figures"][0]["rows"]["levels"]
    points = page.locator("#plot-forest svg .mark-symbol path").count()
    assert points == sum(row["value"] is not None for row in shown)
    assert page.locator("#plot-forest svg text", has_text="refused").count() == 1
    page.click("#tab-weights")
    assert len({tuple(pixel) for pixel in pixels(page, "#plot-weights")}) > 3


def pixels(page, selector: str):
    """Colours along a grid over a picture of one element."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return [image.getpixel((x, y)) for x in range(0, image.width, 3) for y in range(0, image.height, 3)]


def test_panels_stand_in_the_declared_order(opened):
    page = opened(hash="#weights", drawn=True)
    place = "all => all.map((one) => [one.textContent, one.getBoundingClientRect().x])"
    n_matches = {said[:8]: x for said, x in page.locator("#plot-weights svg text").evaluate_all(place)}
    assert n_matches["better"] < n_matches[POLICIES[1][:8]] < n_matches["unhelpfu"]


def test_a_point_opens_its_item_and_the_item_is_marked_in_the_figures(opened, written):
    page = opened(drawn=True)
    page_items = payload(written.read_text())["items"]
    for name, tab in (("scatter", "weights"), ("calibration", "calibration")):
        page.click(f"#tab-{tab}")
        page.locator(f"#plot-{name} svg .mark-symbol path[fill='var(--accent)']").last.click(force=True)
        page.wait_for_selector("#items:not([hidden])")
        k = int(re.search(r"#items-(\d+)$", page.url)[1])
        assert page.inner_text("#item-title") == page_items["id"][k]
        assert page.locator("#list tr[aria-selected=true] th").inner_text() == page_items["id"][k]
        expect(page.locator(f"#plot-{name} svg path[stroke='var(--ring)']")).to_have_count(1)


def test_choosing_a_row_rings_its_points(opened):
    page = opened(hash="#items", drawn=True)
    page.check("#labelled")
    page.locator("#list tbody tr").nth(3).click()
    for name in ("scatter", "calibration"):
        expect(page.locator(f"#plot-{name} path[stroke='var(--ring)']")).to_have_count(1)


def test_the_scatter_follows_the_policy_chosen(opened):
    page = opened(hash="#weights")
    expect(page.locator("#extra-scatter")).to_contain_text("better: ")
    page.select_option("#weights select.policy", label="unhelpful")
    expect(page.locator("#extra-scatter")).to_contain_text("unhelpful: ")
    assert page.input_value("#policy") == "2"


# ---- tabs, search, filters ---------------------------------------------------------------------------------------------


def test_tabs_by_mouse_keys_and_address(opened):
    page = opened()
    for name in TABS:
        page.click(f"#tab-{name}")
        assert visible(page) == [name]
        assert page.url.endswith(f"#{name}")
    page.focus("#tab-items")
    for key, name in (("ArrowRight", "overview"), ("ArrowLeft", "items"), ("Home", "overview"), ("End", "items")):
        page.keyboard.press(key)
        assert visible(page) == [name]
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
    assert page.locator("[role=tab][tabindex='0']").count() == 1
    assert visible(opened(hash="#calibration")) == ["calibration"]
    assert visible(opened(hash="#no-such-tab")) == ["overview"]


def visible(page) -> list[str]:
    shown = page.evaluate(
        "() => [...document.querySelectorAll('[role=tabpanel]')].filter((s) => s.checkVisibility()).map((s) => s.id)"
    )
    return [name for name in TABS if name in shown]


def test_search_and_filters_and_their_clearing(opened, written):
    page = opened(hash="#items")
    page_items = payload(written.read_text())["items"]
    assert n_matches(page) == 240
    page.fill("#search", "QUESTION 117 answer")
    expect(page.locator("#found")).to_contain_text("1 of 240")
    page.fill("#search", "no such words")
    expect(page.locator("#found")).to_contain_text("0 of 240")
    assert "clear a filter" in page.inner_text("#found")
    page.click("#tools button[type=reset]")
    expect(page.locator("#found")).to_contain_text("240 of 240")
    page.check("#labelled")
    assert n_matches(page) == sum(label is not None for label in page_items["label"])
    page.fill("#from", "0.5")
    page.fill("#to", "0.75")
    both = [k for k in range(240) if page_items["label"][k] is not None and 0.5 <= page_items["score"][k] <= 0.75]
    assert n_matches(page) == len(both)
    page.uncheck("#labelled")
    page.fill("#from", "")
    page.fill("#to", "")
    page.select_option("#weight", "above1")
    above = sum(2.718281828459045 ** (ratio - page_items["log_mean"][0]) > 1 for ratio in page_items["ratio"][0])
    assert n_matches(page) == above


def test_sorting_and_paging(opened, written):
    page = opened(hash="#items")
    page_items = payload(written.read_text())["items"]
    assert rows(page)[0] == page_items["id"][0]  # the most influential one
    page.click("[data-sort=score]")
    top = sorted(range(240), key=lambda k: -page_items["score"][k])
    assert rows(page)[0] == page_items["id"][top[0]]
    assert page.locator("#list th[aria-sort=descending]").inner_text().startswith("judge")
    page.click("[data-sort=score]")
    assert rows(page)[0] in {
        page_items["id"][k] for k in range(240) if page_items["score"][k] == min(page_items["score"])
    }
    page.click("[data-sort=label]")
    page.click("#last")
    assert page.locator("#list tbody tr td:nth-child(5)").last.inner_text() == "–"  # missing ones last
    page.click("[data-sort=label]")
    page.click("#last")
    assert page.locator("#list tbody tr td:nth-child(5)").last.inner_text() == "–"
    page.click("#first")
    assert len(rows(page)) == 25
    seen = set(rows(page))
    while page.is_enabled("#next"):
        page.click("#next")
        seen |= set(rows(page))
    assert seen == set(page_items["id"])


def test_the_table_by_keys(opened):
    page = opened(hash="#items")
    page.locator("#list tbody tr").first.focus()
    names = rows(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.inner_text("#item-title") == names[1]
    assert page.evaluate("document.activeElement.id") == "item"
    page.locator("#list tbody tr").nth(24).focus()
    page.keyboard.press("ArrowDown")  # over the end of the page
    assert page.inner_text("#page").startswith("page 2 ")
    page.keyboard.press("PageUp")
    assert page.inner_text("#page").startswith("page 1 ")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.querySelector('th').textContent") == names[24]


# ---- data are data -----------------------------------------------------------------------------------------------------


def test_harmful_prompts_stay_text(opened, written):
    page = opened(hash="#items")
    page_items = payload(written.read_text())["items"]
    for text in HOSTILE:
        k = next(k for k, (prompt, *_) in enumerate(page_items["texts"]) if prompt.startswith(text))
        page.evaluate("k => { location.hash = '#items-' + k }", k)
        expect(page.locator("#item-title")).to_have_text(page_items["id"][k])
        assert page.locator("#item pre").first.text_content() == page_items["texts"][k][0]
        assert page.locator("#item pre *, #item img, #item script").count() == 0
        assert POLICIES[1] in page.locator("#item table").inner_text()


def test_tooltips_are_text(opened):
    page = opened(hash="#overview", drawn=True)
    page.locator("#plot-forest svg .mark-symbol path").nth(2).hover(force=True)
    page.wait_for_selector("#tip:not([hidden])")
    assert f"policy: {POLICIES[1]}" in page.inner_text("#tip")
    assert page.locator("#tip *:not(p)").count() == 0


def test_an_injected_script_would_not_run(opened, written, tmp_path):
    """The page's policy holds even where the escaping would fail."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        written.read_text().replace("<h2>Overview</h2>", "<h2>Overview</h2><script>window.bad=1</script>")
    )
    said = []
    page = opened(written).context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto(broken.as_uri())
    assert page.evaluate("window.bad") is None
    assert any("Content Security Policy" in text for text in said)


# ---- accessible --------------------------------------------------------------------------------------------------------

# Text whose contrast is below 4.5 (WCAG 2.2, 1.4.3), by what lies behind it.
CONTRAST = """() => {
  const linear = (v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(node).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest('script') || node.disabled) continue;
    const style = getComputedStyle(node);
    const ink = parse(node.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [dark, light] = [luminance(ink), luminance(behind(node))].sort((x, y) => x - y);
    const ratio = (light + .05) / (dark + .05);
    if (ratio < 4.5) poor.push([node.tagName, node.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(opened, scheme):
    page = opened(color_scheme=scheme, drawn=True)
    for name in TABS:
        page.click(f"#tab-{name}")
        page.locator("details summary").first.click() if name == "overview" else None
        page.mouse.move(0, 0)
        assert page.evaluate(CONTRAST) == [], name


def test_everything_has_a_name_and_is_reached_by_keys(opened):
    page = opened(hash="#items")
    unnamed = """all => all.filter((one) => !(one.labels && one.labels.length) && !one.textContent.trim()
      && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"""
    assert page.locator("input, select, button").evaluate_all(unnamed) == []
    page.focus("#tab-items")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    for name in ("search", "policy", "weight", "from", "to", "labelled", "size", "TR", "next", "last", "item"):
        assert name in reached, name
    page.focus("#search")
    outline = page.evaluate("getComputedStyle(document.querySelector('#search')).outlineStyle")
    assert outline != "none"
    assert page.locator(".plot[role=img]").evaluate_all("all => all.every((one) => one.ariaLabel.length > 30)")


def test_a_narrow_page_does_not_scroll_sideways_and_print_shows_every_section(opened):
    page = opened(drawn=True)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(600)
    for name in TABS:
        page.click(f"#tab-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
    page.emulate_media(media="print")
    assert visible(page) == [name for name in TABS if name != "items"]
    assert page.locator("#plot-calibration svg").is_visible()


# ---- large -------------------------------------------------------------------------------------------------------------


def test_10_000_prompts_open_and_answer_in_time(opened, tmp_path, tmp_path_factory):
    (tmp_path / "large.html").write_text(large_page(tmp_path_factory.getbasetemp()), encoding="utf-8")
    start = time.monotonic()
    page = opened(tmp_path / "large.html", hash="#items", drawn=True)
    assert time.monotonic() - start < 15
    assert "10000 of 10000" in page.inner_text("#found")
    assert re.search(r"Texts of \d+ of them are in this page", page.inner_text("#counted"))
    assert page.locator("#list tbody tr").count() == 25
    assert page.locator("#plot-scatter svg .mark-symbol path").count() <= 2 * 2000 + 1
    start = time.monotonic()
    page.fill("#search", "prompt-9999")
    expect(page.locator("#found")).to_contain_text("1 of 10000", timeout=3000)
    assert time.monotonic() - start < 3
    page.fill("#search", "")
    page.click("[data-sort=weight]")
    assert page.locator("#list tbody tr").count() == 25
