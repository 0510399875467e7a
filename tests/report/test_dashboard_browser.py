"""The dashboard in a real browser without a network: figures, mouse and keys, and data that would be harmful as code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from arena_cje.report import dashboard
from chromium import expect, needs_chromium
from dashboard_study import HOSTILE, large_page, payload, study

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_chromium

POLICIES = ("better", "<img src=x onerror='window.hacked = 1'>", "unhelpful")
TABS = ("overview", "estimates", "weights", "calibration", "comparisons", "data", "run", "items")
FIGURES = ("forest", "estimators", "sweep", "weights", "scatter", "calibration", "differences")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory) -> Path:
    """A page of a study whose prompts and names would be harmful as code."""
    folder = tmp_path_factory.mktemp("page")
    study_data = study(folder / "study", 240, POLICIES)
    results = [study_data.result(), study_data.result("direct")]
    page = dashboard.render(
        results, **study_data.arguments, others=[("0.1", study_data.result(oracle_coverage=0.1))], coverage="0.25"
    )
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


@pytest.fixture
def open_page(browser, page_path):
    """Opens the page, and checks at the end that it made no request, wrote nothing to the console, and ran no data."""
    opened_pages = []

    def open_in_new_context(path: Path = page_path, hash: str = "", with_figures: bool = False, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        page, requests, messages = context.new_page(), [], []
        context.route("**/*", lambda route: (requests.append(route.request.url), _allow_only_files(route)))
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append("dialog"), dialog.dismiss()))
        opened_pages.append((context, page, requests, messages))
        page.goto(path.as_uri() + hash)
        if with_figures:
            page.wait_for_selector("html[data-ready=true]", timeout=30_000)
        return page

    yield open_in_new_context
    for context, page, requests, messages in opened_pages:
        hacked = page.evaluate("window.hacked")
        context.close()
        assert [url for url in requests if not url.startswith("file:")] == []
        assert messages == []
        assert hacked is None


def _allow_only_files(route):
    return route.continue_() if route.request.url.startswith("file:") else route.abort()


def row_titles(page) -> list[str]:
    return page.locator("#list tbody th").all_inner_texts()


def n_matches(page) -> int:
    return int(page.inner_text("#found").split()[0])


# ---- figures -----------------------------------------------------------------------------------------------------------


def test_every_figure_renders(open_page, page_path):
    page = open_page(with_figures=True)
    assert {f["name"] for f in payload(page_path.read_text())["figures"]} == set(FIGURES)
    for name in FIGURES:
        marks = page.locator(f"#plot-{name} svg .mark-symbol path, #plot-{name} svg .mark-rect path")
        assert marks.count() > 1, name
    levels = payload(page_path.read_text())["figures"][0]["rows"]["levels"]
    points = page.locator("#plot-forest svg .mark-symbol path").count()
    assert points == sum(row["value"] is not None for row in levels)
    assert page.locator("#plot-forest svg text", has_text="refused").count() == 1
    page.click("#tab-weights")
    assert len({tuple(pixel) for pixel in pixel_colours(page, "#plot-weights")}) > 3


def pixel_colours(page, selector: str):
    """Colours along a grid over a picture of one element."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return [image.getpixel((x, y)) for x in range(0, image.width, 3) for y in range(0, image.height, 3)]


def test_panels_stand_in_the_declared_order(open_page):
    page = open_page(hash="#weights", with_figures=True)
    place = "all => all.map((one) => [one.textContent, one.getBoundingClientRect().x])"
    positions = {text[:8]: x for text, x in page.locator("#plot-weights svg text").evaluate_all(place)}
    assert positions["better"] < positions[POLICIES[1][:8]] < positions["unhelpfu"]


def test_a_point_opens_its_item_and_the_item_is_marked_in_the_figures(open_page, page_path):
    page = open_page(with_figures=True)
    page_items = payload(page_path.read_text())["items"]
    for name, tab in (("scatter", "weights"), ("calibration", "calibration")):
        page.click(f"#tab-{tab}")
        page.locator(f"#plot-{name} svg .mark-symbol path[fill='var(--accent)']").last.click(force=True)
        page.wait_for_selector("#items:not([hidden])")
        k = int(re.search(r"#items-(\d+)$", page.url)[1])
        assert page.inner_text("#item-title") == page_items["id"][k]
        assert page.locator("#list tr[aria-selected=true] th").inner_text() == page_items["id"][k]
        expect(page.locator(f"#plot-{name} svg path[stroke='var(--ring)']")).to_have_count(1)


def test_choosing_a_row_marks_its_points_in_the_figures(open_page):
    page = open_page(hash="#items", with_figures=True)
    page.check("#labelled")
    page.locator("#list tbody tr").nth(3).click()
    for name in ("scatter", "calibration"):
        expect(page.locator(f"#plot-{name} path[stroke='var(--ring)']")).to_have_count(1)


def test_the_scatter_plot_shows_the_chosen_policy(open_page):
    page = open_page(hash="#weights")
    expect(page.locator("#extra-scatter")).to_contain_text("better: ")
    page.select_option("#weights select.policy", label="unhelpful")
    expect(page.locator("#extra-scatter")).to_contain_text("unhelpful: ")
    assert page.input_value("#policy") == "2"


# ---- tabs, search, filters ---------------------------------------------------------------------------------------------


def test_tabs_open_by_mouse_by_keys_and_by_address(open_page):
    page = open_page()
    for name in TABS:
        page.click(f"#tab-{name}")
        assert visible_tabs(page) == [name]
        assert page.url.endswith(f"#{name}")
    page.focus("#tab-items")
    for key, name in (("ArrowRight", "overview"), ("ArrowLeft", "items"), ("Home", "overview"), ("End", "items")):
        page.keyboard.press(key)
        assert visible_tabs(page) == [name]
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
    assert page.locator("[role=tab][tabindex='0']").count() == 1
    assert visible_tabs(open_page(hash="#calibration")) == ["calibration"]
    assert visible_tabs(open_page(hash="#no-such-tab")) == ["overview"]


def visible_tabs(page) -> list[str]:
    panels = page.evaluate(
        "() => [...document.querySelectorAll('[role=tabpanel]')].filter((s) => s.checkVisibility()).map((s) => s.id)"
    )
    return [name for name in TABS if name in panels]


def test_search_and_filters_select_rows_and_can_be_cleared(open_page, page_path):
    page = open_page(hash="#items")
    page_items = payload(page_path.read_text())["items"]
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


def test_rows_can_be_sorted_and_paged_with_missing_values_last(open_page, page_path):
    page = open_page(hash="#items")
    page_items = payload(page_path.read_text())["items"]
    assert row_titles(page)[0] == page_items["id"][most_influential(page_items, 0)]
    page.click("[data-sort=score]")
    top = sorted(range(240), key=lambda k: -page_items["score"][k])
    assert row_titles(page)[0] == page_items["id"][top[0]]
    assert page.locator("#list th[aria-sort=descending]").inner_text().startswith("judge score")
    page.click("[data-sort=score]")
    assert row_titles(page)[0] in {
        page_items["id"][k] for k in range(240) if page_items["score"][k] == min(page_items["score"])
    }
    page.click("[data-sort=label]")
    page.click("#last")
    assert page.locator("#list tbody tr td:nth-child(5)").last.inner_text() == "–"  # missing ones last
    page.click("[data-sort=label]")
    page.click("#last")
    assert page.locator("#list tbody tr td:nth-child(5)").last.inner_text() == "–"
    page.click("#first")
    assert len(row_titles(page)) == 25
    listed_ids = set(row_titles(page))
    while page.is_enabled("#next"):
        page.click("#next")
        listed_ids |= set(row_titles(page))
    assert listed_ids == set(page_items["id"])


def most_influential(page_items, policy: int) -> int:
    """Row with the largest influence on a target; the base policy comes before the targets."""
    return max(range(len(page_items["id"])), key=lambda k: (page_items["move"][policy + 1][k] ** 2, -k))


def test_influence_is_that_on_the_chosen_policy_and_sums_to_one(open_page, page_path):
    page = open_page(hash="#items")
    page_items = payload(page_path.read_text())["items"]
    page.select_option("#size", "100")
    for policy in (0, 2):
        page.select_option("#policy", str(policy))
        assert row_titles(page)[0] == page_items["id"][most_influential(page_items, policy)]
        shares = []
        while True:
            shares += page.locator("#list tbody td:first-child").all_inner_texts()
            if not page.is_enabled("#next"):
                break
            page.click("#next")
        assert sum(float(text.removesuffix(" %")) for text in shares) == pytest.approx(100, abs=1)


def test_the_table_can_be_used_with_keys(open_page):
    page = open_page(hash="#items")
    page.locator("#list tbody tr").first.focus()
    names = row_titles(page)
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


# ---- data are never treated as code ------------------------------------------------------------------------------------


def test_harmful_prompts_stay_text(open_page, page_path):
    page = open_page(hash="#items")
    page_items = payload(page_path.read_text())["items"]
    for text in HOSTILE:
        k = next(k for k, (prompt, *_) in enumerate(page_items["texts"]) if prompt.startswith(text))
        page.evaluate("k => { location.hash = '#items-' + k }", k)
        expect(page.locator("#item-title")).to_have_text(page_items["id"][k])
        assert page.locator("#item pre").first.text_content() == page_items["texts"][k][0]
        assert page.locator("#item pre *, #item img, #item script").count() == 0
        assert POLICIES[1] in page.locator("#item table").inner_text()


def test_tooltips_are_text(open_page):
    page = open_page(hash="#overview", with_figures=True)
    page.locator("#plot-forest svg .mark-symbol path").nth(2).hover(force=True)
    page.wait_for_selector("#tip:not([hidden])")
    assert f"policy: {POLICIES[1]}" in page.inner_text("#tip")
    assert page.locator("#tip *:not(p)").count() == 0


def test_an_injected_script_does_not_run(open_page, page_path, tmp_path):
    """The page's policy holds even where the escaping would fail."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        page_path.read_text().replace("<h2>Overview</h2>", "<h2>Overview</h2><script>window.bad=1</script>")
    )
    messages = []
    page = open_page(page_path).context.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.goto(broken.as_uri())
    assert page.evaluate("window.bad") is None
    assert any("Content Security Policy" in text for text in messages)


# ---- accessibility -----------------------------------------------------------------------------------------------------

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
def test_all_text_has_sufficient_contrast(open_page, scheme):
    page = open_page(color_scheme=scheme, with_figures=True)
    for name in TABS:
        page.click(f"#tab-{name}")
        page.locator("details summary").first.click() if name == "overview" else None
        page.mouse.move(0, 0)
        assert page.evaluate(CONTRAST) == [], name


def test_every_control_has_a_name_and_is_reached_by_keys(open_page):
    page = open_page(hash="#items")
    unnamed = """all => all.filter((one) => !(one.labels && one.labels.length) && !one.textContent.trim()
      && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"""
    assert page.locator("input, select, button").evaluate_all(unnamed) == []
    page.focus("#tab-items")
    stops = []
    for _ in range(30):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    for name in ("search", "policy", "weight", "from", "to", "labelled", "size", "TR", "next", "last", "item"):
        assert name in stops, name
    page.focus("#search")
    outline = page.evaluate("getComputedStyle(document.querySelector('#search')).outlineStyle")
    assert outline != "none"
    assert page.locator(".plot[role=img]").evaluate_all("all => all.every((one) => one.ariaLabel.length > 30)")


def test_a_narrow_page_does_not_scroll_sideways_and_print_shows_every_section(open_page):
    page = open_page(with_figures=True)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(600)
    for name in TABS:
        page.click(f"#tab-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
    page.emulate_media(media="print")
    assert visible_tabs(page) == [name for name in TABS if name != "items"]
    assert page.locator("#plot-calibration svg").is_visible()


LONG_NAMES = (
    "meta-llama/Llama-3.1-8B-Instruct/system-prompt-v2/temperature-0.7",
    "8f14e45fceea167a5a36dedd4bea2543f3a0c0e1b2c3d4e5f60718293a4b5c6d",
    "parallel_universe_prompt",
    "candidate_with_underscores_in_its_name_and_no_slash_at_all_2026",
    "unhelpful",
)
# Boxes whose content is wider than they are, and cells that are taller than a few lines, in the visible section.
CLIPPED = """() => [...document.querySelectorAll('main section:not([hidden]) :is(.scroll, .plot)')]
  .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.id || one.getAttribute('aria-label'))"""
TALL = """() => [...document.querySelectorAll('main section:not([hidden]) tbody tr')]
  .map((row) => row.getBoundingClientRect().height).filter((height) => height > 480)"""


@pytest.fixture(scope="module")
def long_names_path(tmp_path_factory) -> Path:
    """A page of policies whose names are 24 to 65 characters long, with the truth known."""
    folder = tmp_path_factory.mktemp("long")
    study_data = study(folder / "study", 160, LONG_NAMES)
    results = [study_data.result(name) for name in ("direct", "calibrated-ips", "raw-ips", "snips")]
    truths = [{"estimator": "direct", "policy": policy, "truth": 0.6, "absolute_error": 0.1} for policy in LONG_NAMES]
    page = dashboard.render(
        results, **study_data.arguments, validation=truths, others=[("0.1", study_data.result("direct", oracle_coverage=0.1))],
        benchmarks=[{"stage": "generate", "s": 12.0, "items": 400, "cpu_time": 11.0, "max_rss": 320.0}],
        configuration={"policies": list(LONG_NAMES)}, coverage="0.25",
    )  # fmt: skip
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize("width", [1400, 1000, 400])
def test_nothing_is_clipped_and_no_row_grows_beyond_the_screen(open_page, long_names_path, width):
    page = open_page(long_names_path, with_figures=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(600)
    for name in TABS:
        page.click(f"#tab-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(CLIPPED) == [], name
        assert page.evaluate(TALL) == [], name


def test_every_value_has_its_column_title_where_rows_are_blocks(open_page, long_names_path):
    page = open_page(long_names_path, hash="#estimates")
    page.set_viewport_size({"width": 400, "height": 900})
    unnamed = "all => all.filter((one) => !getComputedStyle(one, '::before').content.match(/[a-z]/)).length"
    cells = page.locator("#estimates table.plain tbody td, #estimates table.wide tbody td")
    assert cells.count() > 50
    assert cells.evaluate_all(unnamed) == 0


def test_short_names_stay_whole_and_long_ones_break_after_their_parts(open_page, long_names_path):
    page = open_page(long_names_path)
    heading = page.locator("#overview .card h4", has_text="parallel_universe_prompt")
    assert heading.locator("wbr").count() == 0
    page.set_viewport_size({"width": 400, "height": 900})
    page.click("#tab-overview")
    lines = "one => one.getClientRects().length"
    assert page.locator("#overview tbody th", has_text="parallel_universe_prompt").evaluate(lines) == 1
    parts = page.locator("#overview .card h4", has_text="meta-llama").evaluate(
        "one => [...one.childNodes].filter((part) => part.nodeType === 3).map((part) => part.textContent)"
    )
    assert "".join(parts) == LONG_NAMES[0] and all(part[-1] in "-/_" for part in parts[:-1])


def test_verdicts_differ_by_shape_and_word_not_by_colour_alone(open_page, tmp_path):
    """A policy of each verdict: a circle, a triangle, a word."""
    study_data = study(tmp_path / "study", 240, ("near", "unhelpful"), coverage=0.1)
    result = study_data.result(thresholds={"ess_caution": 0.999})
    assert [result.verdicts[policy].level for policy in ("near", "unhelpful")] == ["caution", "refuse"]
    (tmp_path / "page.html").write_text(dashboard.render([result], **study_data.arguments), encoding="utf-8")
    page = open_page(tmp_path / "page.html", with_figures=True)
    shapes = {
        path.split("A")[0][:4]
        for path in page.locator("#plot-forest svg .mark-symbol path").evaluate_all(
            "all => all.map((one) => one.getAttribute('d'))"
        )
    }
    assert len(shapes) == len({result.verdicts[policy].level for policy in ("base", "near")})
    note = page.inner_text("#overview figcaption")
    assert "Triangle: caution." in note
    assert page.locator("#plot-forest svg text", has_text="refused").count() == 1


# ---- large pages -------------------------------------------------------------------------------------------------------


def test_10_000_prompts_open_and_are_searched(open_page, tmp_path, tmp_path_factory):
    (tmp_path / "large.html").write_text(large_page(tmp_path_factory.getbasetemp()), encoding="utf-8")
    page = open_page(tmp_path / "large.html", hash="#items", with_figures=True)
    assert "10000 of 10000" in page.inner_text("#found")
    assert re.search(r"The page stores the texts of \d+ of them", page.inner_text("#counted"))
    assert page.locator("#list tbody tr").count() == 25
    assert page.locator("#plot-scatter svg .mark-symbol path").count() <= 2 * 2000 + 1
    page.fill("#search", "prompt-9999")
    expect(page.locator("#found")).to_contain_text("1 of 10000")
    page.fill("#search", "")
    page.click("[data-sort=weight]")
    assert page.locator("#list tbody tr").count() == 25
