"""The labelling page in a real browser without a network: used with keys and with a mouse, at desktop width and at 400 pixels."""

from __future__ import annotations

import pytest

from arena_cje.labeling import page, votes
from arena_cje.labeling.records import Scale
from chromium import expect, needs_chromium
from labeling_study import SCALE, make

pytestmark = needs_chromium

BATCH = make()
N_TASKS = len(BATCH.tasks)


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the page of a scale, and checks at the end that it made no request and wrote nothing to the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    requests, messages = [], []
    context.on("request", lambda request: requests.append(request.url))

    def go(scale: Scale = SCALE, rater: str = "ann"):
        (tmp_path / "label.html").write_text(page.render(BATCH, scale, "Be fair."), encoding="utf-8")
        tab = context.new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto((tmp_path / "label.html").as_uri())
        tab.fill("#rater", rater)
        tab.keyboard.press("Enter")
        return tab

    yield go
    context.close()
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []
    assert messages == []


def expect_progress(tab, voted: int, skipped: int = 0):
    text = f"{voted} of {N_TASKS} voted, {skipped} skipped, {N_TASKS - voted - skipped} open"
    expect(tab.locator("#progress")).to_have_text(text)


def test_labelling_works_with_keys_alone_and_the_votes_are_in_the_download(open_page, tmp_path):
    tab = open_page()
    expect(tab.locator("#prompt")).to_have_text(BATCH.tasks[0].prompt)
    tab.keyboard.press("Enter")  # without a vote the page stays on this task
    expect(tab.locator("#response")).to_have_text(BATCH.tasks[0].response)
    for place, task in enumerate(BATCH.tasks):
        expect(tab.locator("#response")).to_have_text(task.response)
        if place == 1:
            tab.keyboard.press("c")
            tab.keyboard.type("5 is too much")
            tab.keyboard.press("Escape")
        tab.keyboard.press(str(1 + place % 5))
        tab.keyboard.press("Enter")
    expect(tab.locator("#end")).to_be_visible()
    with tab.expect_download() as waiting:
        tab.click("#download")
    waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
    assert waiting.value.suggested_filename == "votes_first_ann.csv"
    ballot_rows = votes.read(tmp_path / "votes_first_ann.csv")
    assert [(row["item_id"], row["score"]) for _, row in ballot_rows] == [
        (task.item_id, str(1 + place % 5)) for place, task in enumerate(BATCH.tasks)
    ]
    assert ballot_rows[1][1]["comment"] == "5 is too much"
    assert votes.collect(ballot_rows, BATCH.key, SCALE, votes=1).n_open == 0


def test_votes_are_kept_when_the_page_is_closed_and_each_rater_has_separate_votes(open_page):
    tab = open_page()
    tab.keyboard.press("4")
    tab.keyboard.press("Enter")
    tab.keyboard.press("s")
    expect_progress(tab, 1, 1)
    tab.close()
    expect_progress(open_page(), 1, 1)
    expect_progress(open_page(rater="bob"), 0)


def test_a_vote_can_be_changed(open_page):
    tab = open_page()
    tab.keyboard.press("4")
    tab.keyboard.press("Enter")
    tab.keyboard.press("b")
    expect(tab.locator("input[value='4']")).to_be_checked()
    tab.click("#points label:nth-of-type(2)")
    expect(tab.locator("input[value='2']")).to_be_checked()
    expect_progress(tab, 1)


def test_a_slider_gives_no_vote_before_it_is_moved(open_page):
    tab = open_page(Scale(0, 100))
    expect(tab.locator("#next")).to_be_disabled()
    tab.focus("#slider")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#shown")).to_have_text("51")
    tab.click("#next")
    expect_progress(tab, 1)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_does_not_scroll_sideways_and_buttons_are_large(open_page, width):
    tab = open_page()
    tab.set_viewport_size({"width": width, "height": 800})
    for selector in ("#points label:nth-of-type(5)", "#next", "#skip", "#back"):
        box = tab.locator(selector).bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
    expect(tab.locator("#progress")).to_be_in_viewport()
    expect(tab.locator("#next")).to_be_in_viewport()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.click("#finish")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
