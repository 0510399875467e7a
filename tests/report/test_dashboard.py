"""The dashboard shows the numbers of results, keeps refused levels folded, and never treats data as code."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest

from arena_cje.data.draws import read_draws
from arena_cje.data.logged import load_logged, read_logged
from arena_cje.errors import UserError
from arena_cje.estimation.weights import hajek
from arena_cje.report import comparisons, dashboard, dashboard_data, dashboard_figures, dashboard_items, pages, tidy
from arena_cje.results import looks
from arena_cje.results.result import Result
from dashboard_study import HOSTILE, Study, large_page, payload, study, write
from workflow_run import Run


@pytest.fixture(scope="module")
def small_study(tmp_path_factory) -> Study:
    return study(tmp_path_factory.mktemp("small"), 240, ("better", "<b>worse</b>", "__proto__", "unhelpful"))


@pytest.fixture(scope="module")
def result(small_study) -> Result:
    return small_study.result()


@pytest.fixture(scope="module")
def page(small_study, result) -> str:
    others = [("0.1", small_study.result(oracle_coverage=0.1))]
    results = [result, small_study.result("direct"), small_study.result("snips")]
    truths = [
        {"estimator": "calibrated-ips", "policy": "better", "truth": 0.61234, "absolute_error": 0.0123, "covered": True}
    ]
    return dashboard.render(results, **small_study.arguments, others=others, validation=truths, coverage="0.25")


def figure(page: str, name: str) -> dict:
    return next(figure for figure in payload(page)["figures"] if figure["name"] == name)


class Reader(HTMLParser):
    """Text outside scripts, tags with their attributes, scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.tags, self.scripts, self.folded, self.inside, self.depth = [], [], [], [], None, 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.inside = tag
            self.scripts.append("")
        self.depth += tag == "details"

    def handle_endtag(self, tag):
        self.depth -= tag == "details"
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data
        else:
            (self.folded if self.depth else self.text).append(data)


# ---- numbers on the page -----------------------------------------------------------------------------------------------


def test_the_figures_hold_the_published_levels_and_no_refused_one(page, result):
    assert list(result.refused) == ["unhelpful"]
    rows = {row["policy"]: row for row in figure(page, "forest")["rows"]["levels"]}
    for policy, value, (low, high) in zip(result.policies, result.estimates, result.confidence_intervals, strict=True):
        row = rows[policy]
        if policy == "unhelpful":
            assert (row["value"], row["low"], row["high"], row["refused"]) == (None, None, None, True)
        else:
            assert [row["value"], row["low"], row["high"]] == pytest.approx([value, low, high], abs=1e-5)
    assert list(rows) == ["base", *result.policies]
    assert rows["better"]["truth"] == 0.61234
    assert rows["better"]["level"] == "ok" and "refused" in rows["unhelpful"]["word"]
    assert page.count("Not compared, since refused: unhelpful.") == 1
    for name in ("estimators", "sweep", "differences"):  # a panel without any value is left out, and named
        assert "unhelpful" not in {row["policy"] for row in figure(page, name)["rows"]["levels"]}
    assert page.count("Refused in every case, so not drawn: unhelpful.") == 2


def test_calibration_groups_of_the_page_equal_those_of_the_figure(page, result, small_study):
    logged, _ = load_logged(small_study.folder / "logged.jsonl")
    published = [tuple(row.values()) for row in figure(page, "calibration")["rows"]["groups"]]
    reference = tidy.calibration_of(result, logged).bins[["score", "label", "low", "high", "n"]].to_numpy()
    assert len(published) == 10
    np.testing.assert_allclose(published, reference, rtol=5e-4)


def test_numbers_of_a_refused_policy_are_shown_only_in_its_folded_section(page, result, small_study):
    reader = Reader(page)
    visible, folded = " ".join(reader.text), " ".join(reader.folded)
    for estimator in ("calibrated-ips", "snips"):
        source = result if estimator == result.name else small_study.result(estimator)
        assert "unhelpful" in source.refused
        summary = source.summary("unhelpful")
        for name in ("estimate", "ci_lower", "ci_upper", "se"):
            number_text = f"{summary[name]:.3f}"
            assert number_text in folded
            if name == "estimate":
                assert number_text not in visible
    assert "computed but not published" in folded
    for path, value in numbers(payload(page)["figures"]):
        assert value != pytest.approx(result.summary("unhelpful")["estimate"], abs=1e-5), path


def test_a_refused_policy_without_an_estimate_has_no_withheld_number(result):
    policy = next(iter(result.refused))
    nothing = {"estimate": None, "se": None, "confidence_interval": [None, None]}
    document = {**result.document, "refused": {**result.document["refused"], policy: nothing}}
    empty = dataclasses.replace(result, document=document)
    assert dashboard_data.value(result, policy).withheld and not dashboard_data.value(empty, policy).withheld


def test_answering_models_are_listed():
    served = {"judge": {"base": [{"model": "a-2025", "n": 6}, {"model": "b", "n": 1}]}}
    assert dashboard_data.flat(served) == [("judge.base", "model a-2025 n 6, model b n 1")]


def numbers(value, path=""):
    if isinstance(value, float):
        yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from numbers(part, f"{path}.{key}")


def test_the_page_begins_with_the_decision(page, result):
    """The headline word for word, why this estimator, then each policy with its decision, interval and sentence."""
    headline = result.decision["headline"]
    text = Reader(page).text
    assert headline.startswith("Compared with base, better, <b>worse</b> and __proto__ are not yet known")
    assert "highest" not in headline
    at = text.index(headline)
    assert any("is recommended" in part for part in text[at : at + 3])
    table = dashboard_data.decision(result)
    assert at < text.index(table.caption)
    cards = {card.policy: card for card in dashboard_data.cards(result)}
    for row, (policy, entry) in zip(table.rows, result.decision["policies"].items(), strict=True):
        assert row[0].text == policy
        assert row[1].text == entry["status"].replace("_", " ")
        refused = entry["difference"] is None
        assert row[4].text == (dashboard_data.MISSING if refused else "judge scores alone")
        assert entry["judge_only"] or refused
        assert cards[policy].decision == ("" if policy in result.refused else entry["sentence"])  # only once
    assert "decides nothing" in table.note


def test_the_page_shows_the_decision_of_planned_looks(result):
    """One paragraph, in addition to the decision of the coverage alone."""
    plan = looks.Plan(coverages=("0.25", "0.5"))
    look = looks.Look.of("0.25", result, target_labels=0, usd_per_label=0.5)
    account = looks.document(plan, [look], alpha=0.05, estimator=result.name, against=result.base_policy)
    text = Reader(dashboard.render([result], look=account)).text
    lines = [part for part in text if part.startswith("Planned look 1 of 2 (coverage 0.25, 60 labels, 30.00 US")]
    assert len(lines) == 1
    assert account["sentence"] in lines[0]
    assert "<b>worse</b> not yet known" in lines[0]
    assert "unhelpful refused" in lines[0]
    assert not any("Planned looks" in part for part in Reader(dashboard.render([result])).text)


def test_a_result_of_an_earlier_version_has_a_page_without_a_decision(result):
    document = {name: part for name, part in result.document.items() if name != "decision"}
    page = dashboard.render([Result(document, result.prompt_id, result.influence, result.base_influence)])
    assert "The results file is of an earlier version and has no decision." in Reader(page).text


def test_comparisons_are_those_of_the_result(result):
    table = dashboard_data.comparisons(result)
    pairs = result.comparisons().to_dicts()
    published = [pair for pair in pairs if "unhelpful" not in (pair["first"], pair["second"])]
    assert len(published) == 6 < len(pairs)
    for row, pair in zip(table.rows, published, strict=True):
        assert (row[0].text, row[1].text) == (pair["first"], pair["second"])
        assert row[2].text == f"{pair['difference']:+.3f}"
        assert row[3].text == f"[{pair['corrected_lower']:+.3f}, {pair['corrected_upper']:+.3f}]"
        assert row[4].text == dashboard_data.p_value(pair["p_corrected"])
        assert row[5].text == "not claimed"
    assert "Not claimed: the difference is based on judge scores alone." in table.note
    assert comparisons.top(result, comparisons.pairs(result)).says in table.note


def test_the_chart_of_differences_has_the_intervals_of_its_table(page, result):
    """Corrected intervals, as in the decision; hollow where the difference depends on judge scores alone."""
    rows = {row["policy"]: row for row in figure(page, "differences")["rows"]["levels"]}
    compared = {policy: one for policy, one in result.decision["policies"].items() if one["difference"] is not None}
    assert list(rows) == list(compared)
    for policy, entry in compared.items():
        ends = [rows[policy][name] for name in ("low", "high")]
        assert ends == pytest.approx(entry["corrected_interval"], abs=1e-5)
        assert rows[policy]["judge_only"] == entry["judge_only"]


def test_the_page_states_that_influence_values_are_missing(small_study, result):
    bare = Result(result.document)
    page = dashboard.render([bare], **small_study.arguments)
    assert "influence values" in " ".join(Reader(page).text)
    assert set(payload(page)["items"]["squares"]) == {0}
    assert payload(page)["items"]["move"][0][0] is None


def test_a_page_without_data_rows_has_tables_and_no_items(result):
    page = dashboard.render([result])
    assert payload(page)["items"] is None
    assert "no items to look at" in " ".join(Reader(page).text)
    assert {f["name"] for f in payload(page)["figures"]} == {"forest", "estimators", "differences", "calibration"}


def test_rows_of_other_data_are_refused(small_study, result):
    arguments = small_study.arguments
    with pytest.raises(UserError, match="not those of the results file"):
        dashboard.render([result], logged=arguments["logged"][1:])


def test_dropped_rows_are_counted_with_their_reason(result):
    summary = {
        "n_responses": 250,
        "dropped": {"response empty": 7, "no judge score: refused": 3},
        "not_scored": {"better": 2},
    }
    rows = {row[0].text: row[1].text for row in dashboard_data.rows_read(result, summary).rows}
    assert rows["responses read"] == "250"
    assert rows["responses analysed"] == "240"
    assert rows["dropped: response empty"] == "7"
    assert rows["dropped: no judge score: refused"] == "3"
    assert rows["not scored under better"] == "2"


def test_a_clone_has_equal_weights_and_an_infinite_tail_index(tmp_path):
    source = study(tmp_path, 120, ("clone", "unhelpful"))
    result = source.result(oracle_coverage=1.0)
    table = dashboard_data.weights(result)
    row = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))
    assert (row["raw ESS"], row["largest weight"], row["tail index"]) == ("100.0 %", "1", "∞")
    assert (row["overlap"], row["mean before scaling"]) == ("ok", "1 ± 0")
    bins = figure(dashboard.render([result], **source.arguments), "weights")["rows"]["bins"]
    (bar,) = [row for row in bins if row["policy"] == "clone"]
    assert bar["n"] == 120
    assert bar["low"] < 1 < bar["high"]


def test_the_weight_table_of_an_estimator_without_weights_has_no_verdict_column(small_study):
    """`direct` publishes a policy whose weights are useless: the table shows what the weights allow."""
    result = small_study.result("direct", thresholds={"effective_labels_refuse": 0, "label_share_refuse": 0})
    table = dashboard_data.weights(result)
    rows = {row[0].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert "verdict" not in table.columns and "ESS as used" not in table.columns
    assert (rows["unhelpful"]["overlap"].text, rows["unhelpful"]["overlap"].level) == ("insufficient", "refuse")
    assert rows["better"]["overlap"].level == "ok"
    assert "direct uses no weights" in table.note
    assert "ESS as used" in dashboard_data.weights(small_study.result()).columns


def test_without_log_probabilities_there_is_a_sentence_and_no_empty_axes(tmp_path):
    source = study(tmp_path, 120, ("better", "unhelpful"))
    rows = [json.loads(line) for line in (source.folder / "logged.jsonl").read_text().splitlines()]
    bare = [{k: v for k, v in row.items() if not k.endswith(("_logprob", "_logprobs"))} for row in rows]
    write(source.folder / "logged.jsonl", bare)
    result = source.result("direct")
    draws = {name: read_draws(source.folder / "draws" / f"{k}.jsonl", name) for k, name in enumerate(source.policies)}
    logged = read_logged(source.folder / "logged.jsonl", policies=source.policies)[0]
    page = dashboard.render([result], logged=logged, draws=draws)
    assert not {"weights", "scatter"} & {one["name"] for one in payload(page)["figures"]}
    assert "no log probabilities, so that there are no weights; direct needs none" in " ".join(Reader(page).text)


def test_the_number_of_labels_in_the_data_comes_from_the_summary_not_from_the_masked_file(result):
    summary = {"n_labels_found": 480, "n_labels_wanted": 100}
    rows = {row[0].text: row[1].text for row in dashboard_data.rows_read(result, summary).rows}
    assert (rows["oracle labels in the data"], rows["oracle labels at this coverage"]) == ("480", "100")
    assert rows["oracle labels used"] == str(result.document["metadata"]["n_oracle"])
    assert "of 100 that the coverage asks for" in dashboard_data.subtitle(result, summary)
    assert "asks for" not in dashboard_data.subtitle(result, {})


def test_every_column_has_a_title(page):
    reader = Reader(page)
    cells = [attributes for tag, attributes in reader.tags if tag == "td" and attributes.get("role") == "cell"]
    assert len(cells) > 100
    assert all(attributes["data-label"] for attributes in cells)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("parallel_universe_prompt's", "parallel_universe_prompt&#39;s"),
        ("a/" * 15 + "b", "<wbr>".join(["a/"] * 15 + ["b"])),
        ("see <b> " + "x" * 30, "see &lt;b&gt; " + "x" * 24 + "<wbr>" + "x" * 6),
    ],
)
def test_long_words_get_places_to_break_and_are_escaped(text, html):
    assert str(pages.breakable(text)) == html


def test_an_interval_limit_that_rounds_to_zero_has_a_sign_only_in_a_signed_format():
    assert dashboard_data.interval(-0.0001, 0.0171, "+.3f") == "[-0.000, +0.017]"
    assert dashboard_data.interval(-0.0001, 0.0171) == "[0.000, 0.017]"


def test_a_missing_cost_is_not_shown_as_zero(tmp_path):
    (tmp_path / "judge" / "base").mkdir(parents=True)
    (tmp_path / "judge/base/0000.tsv").write_text("s\titems\tprompt_tokens\tresponse_tokens\n2.5\t10\tNA\t40\n")
    (tmp_path / "judge/base/0001.tsv").write_text("s\titems\tprompt_tokens\tresponse_tokens\n1.5\t10\tNA\t2\n")
    table = dashboard_data.throughput(dashboard.read_benchmarks(tmp_path))
    row = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))
    assert (row["stage"], row["jobs"], row["items"], row["seconds of jobs"]) == ("judge", "2", "20", "4.0")
    assert (row["items a second"], row["prompt tokens"], row["response tokens"]) == ("5.0", "–", "42")
    assert "No job recorded a cost" in table.note
    assert "cost, US$" not in table.columns
    assert dashboard_data.throughput([]).note == "No times were recorded."


def test_costs_are_summed_where_they_are_known():
    table = dashboard_data.throughput([{"stage": "judge", "cost_usd": 0.5}, {"stage": "judge", "cost_usd": 0.25}])
    assert table.rows[0][table.columns.index("cost, US$")].text == "0.7500"


# ---- items -------------------------------------------------------------------------------------------------------------


def test_weights_on_the_page_are_scaled_to_a_mean_of_one(page, small_study):
    page_items = payload(page)["items"]
    position = {response.prompt_id: k for k, response in enumerate(small_study.arguments["logged"])}
    ratio, log_mean = dashboard_items.weights_of(small_study.arguments["logged"], small_study.policies)
    for k in range(len(small_study.policies)):
        weight = np.exp(np.array(page_items["ratio"][k]) - page_items["log_mean"][k])
        expected = hajek(ratio[:, k])[[position[name] for name in page_items["id"]]]
        np.testing.assert_allclose(weight, expected, rtol=1e-3)
        assert np.exp(ratio[:, k] - log_mean[k]).mean() == pytest.approx(1)


def test_the_most_influential_row_comes_first_and_every_row_once(page, result):
    page_items = payload(page)["items"]
    influence = np.column_stack([result.base_influence, result.influence])
    share = dashboard_items.influence_shares(influence)
    assert page_items["id"][0] == result.prompt_id[np.argmax(share)]
    of_policy = (
        np.array(page_items["move"]) ** 2 / np.array(page_items["squares"])[:, None]
    )  # as the page's script has it
    assert of_policy.sum(axis=1) == pytest.approx(1, rel=1e-3)  # the shares of each policy are shares of a whole
    assert of_policy[:, 0].max() == pytest.approx(share.max(), rel=1e-3)
    assert sorted(page_items["id"]) == sorted(result.prompt_id.tolist())


def test_a_row_has_a_share_where_it_has_an_influence():
    influence = np.array([[3.0, np.nan], [-4.0, 0.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(dashboard_items.influence_shares(influence), [9 / 25, 16 / 25, np.nan])


def test_infinite_and_missing_ratios_are_distinct():
    assert dashboard_items._rounded(np.array([np.nan, -np.inf, 0.0, 2.0, 0.123456])) == [None, "outside", 0, 2, 0.1235]
    assert dashboard_items._log_mean(np.array([-np.inf, 0.0])) == pytest.approx(np.log(0.5))
    assert np.isnan(dashboard_items._log_mean(np.array([])))


def test_rows_and_texts_that_do_not_fit_are_counted(small_study, result, monkeypatch):
    monkeypatch.setattr(dashboard_items, "LISTED", 100)
    monkeypatch.setattr(dashboard_items, "TEXT_BYTES", 12_000)
    monkeypatch.setattr(dashboard_items, "CUTS", (30, 20))
    page_items = dashboard_items.items(result, **small_study.arguments)
    assert (page_items["n_rows"], len(page_items["id"])) == (240, 100)
    assert 10 < len(page_items["texts"]) < 100
    assert page_items["cut"] == 20
    k = 0
    full = next(r for r in small_study.arguments["logged"] if r.prompt_id == page_items["id"][k]).row["response"]
    assert page_items["texts"][k][1] == [full[:20], len(full)]
    assert len(dashboard_items.script_json(page_items["texts"]).encode()) <= 12_000 + len(page_items["texts"]) + 2
    assert page_items["begin"][0] is None
    assert "question" in page_items["begin"][-1] or len(page_items["begin"][-1]) > 10


def test_a_page_needs_only_the_texts_of_the_rows_that_it_lists(small_study, result, monkeypatch):
    assert dashboard_items.listed_prompts(result) is None  # the page lists all rows
    monkeypatch.setattr(dashboard_items, "LISTED", 50)
    listed = dashboard_items.listed_prompts(result)
    few = {
        "logged": read_logged(small_study.folder / "logged.jsonl", texts=listed)[0],
        "draws": {
            policy: read_draws(small_study.folder / "draws" / f"{k}.jsonl", policy, texts=listed)
            for k, policy in enumerate(result.policies)
        },
    }
    assert sum("response" in one.row for one in few["logged"]) == 50
    assert dashboard_items.items(result, **few) == dashboard_items.items(result, **small_study.arguments)


def test_long_texts_are_whole_where_they_fit(small_study, result):
    assert dashboard_items.items(result, **small_study.arguments)["cut"] == dashboard_items.CUTS[0]


# ---- data are never treated as code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_the_script_data_is_unchanged_and_cannot_close_the_script_element(text):
    script_text = dashboard_items.script_json({"text": [text]})
    assert json.loads(script_text) == {"text": [text]}
    assert not set("<>&\u2028\u2029") & set(script_text)


def test_unpaired_surrogates_become_the_replacement_character():
    script_text = dashboard_items.script_json(["a\ud800b", "\U0001f600"])
    assert json.loads(script_text) == ["a\ufffdb", "\U0001f600"]
    script_text.encode()


def test_no_markup_comes_from_data(page):
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 3
    assert not {"img", "b", "iframe", "object", "embed", "base"} - {"b"} & {tag for tag, _ in reader.tags}
    assert "<b>worse</b>" in " ".join(reader.text)
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    texts = payload(page)["items"]["texts"]
    assert {prompt.rpartition(" question")[0] for prompt, *_ in texts} == set(HOSTILE)


def test_the_page_references_no_external_resource(page):
    reader = Reader(page)
    places = ("src", "href", "srcset", "action", "poster", "data", "formaction")
    assert [attributes[name] for _, attributes in reader.tags for name in places if name in attributes] == ["data:,"]
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import", styles[0])


def test_only_the_pages_own_scripts_may_run(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    allowed = re.search(r"script-src ([^;]*);", policy)[1].split()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(sha256(s.encode()).digest()).decode()}'" for s in scripts]
    assert allowed == hashes


def test_chart_specifications_contain_policy_names_only_as_scale_domains(page, small_study):
    """Names of policies stand in lists of domains alone; the rest of a specification is the same for any data."""
    for drawing in payload(page)["figures"]:
        for path, text in strings(drawing["spec"]):
            if any(name in text for name in ("better", "worse", "__proto__", "unhelpful")):
                assert re.search(r"\.scale\.domain\.\d+$", path), (path, text)
            if path.endswith((".filter", ".expr", ".test", ".calculate")):
                assert text in EXPRESSIONS


EXPRESSIONS = {
    "isValid(datum.value)",
    "isValid(datum.truth)",
    "datum.refused",
    "datum.labelled",
    "!datum.labelled",
    "datum.k === chosen",
    "lowest",
    "datum.judge_only",
    "highest",
    "datum.left",
    "datum.right",
    *(f"isValid(datum.value) && datum.level === '{level}'" for level in ("ok", "caution")),
    "isValid(datum.truth) && isValid(datum.value)",
    *(f"length({dashboard_figures.LINES}) === {n}" for n in range(2, dashboard_figures.MOST_LINES)),
}


def strings(value, path=""):
    if isinstance(value, str):
        yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from strings(part, f"{path}.{key}")


# ---- size of a page ----------------------------------------------------------------------------------------------------


def test_the_same_results_give_the_same_bytes(small_study, result):
    assert dashboard.render([result], **small_study.arguments) == dashboard.render([result], **small_study.arguments)


def test_200_prompts_and_6_policies_stay_under_3_mb(tmp_path):
    names = tuple(f"policy_{k}" for k in range(6))
    source = study(tmp_path, 200, names, prompts=("How? " * 50,), length=1800)
    page = dashboard.render([source.result()], **source.arguments)
    assert len(page.encode()) < 3_000_000
    assert len(payload(page)["items"]["texts"]) > 80


def test_10_000_prompts_make_a_page_of_bounded_size(tmp_path_factory):
    page = large_page(tmp_path_factory.getbasetemp())
    page_items = payload(page)["items"]
    assert len(page_items["id"]) == 10_000
    assert len(page.encode()) < 6_500_000
    assert 50 < len(page_items["texts"]) < 1000


# ---- accessibility, as far as it can be tested without a browser -------------------------------------------------------


def test_headings_descend_one_level_at_a_time_and_everything_has_a_name(page):
    reader = Reader(page)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert dict(reader.tags[1][1] if reader.tags[0][0] != "html" else reader.tags[0][1]) == {"lang": "en"}
    figures = [attributes for tag, attributes in reader.tags if attributes.get("role") == "img"]
    assert len(figures) == len(payload(page)["figures"])
    assert all(len(attributes["aria-label"]) > 30 for attributes in figures)
    assert [tag for tag, _ in reader.tags].count("table") == [tag for tag, _ in reader.tags].count("caption")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-controls"] for _, a in reader.tags if a.get("role") == "tab"} <= set(ids)


# ---- as a target of the workflow ---------------------------------------------------------------------------------------


def test_the_workflow_makes_the_page_and_only_when_something_changed(tmp_path):
    source = study(tmp_path / "data", 120, ("better", "unhelpful"))
    for k, name in enumerate(source.policies):
        (source.folder / "draws" / f"{k}.jsonl").rename(source.folder / "draws" / f"{name}.jsonl")
    run = Run(
        tmp_path,
        {"logged_data": "data/logged.jsonl", "fresh_draws": "data/draws", "coverages": ["0.1", "0.2"]}
        | {"estimators": ["calibrated-ips", "direct"]},
    )
    target = "results/coverage_0.2/diagnostics_dashboard.html"
    run.snakemake(target)
    page = run.path("coverage_0.2/diagnostics_dashboard.html").read_text()
    assert {f["name"] for f in payload(page)["figures"]} >= {"weights", "scatter", "sweep"}
    assert run.path("coverage_0.1/calibrated-ips.json").exists()
    assert "direct is recommended" in page
    assert run.path("coverage_0.1/direct.json").exists()  # the recommended estimator is run at all coverages
    assert "Nothing to be done" in run.snakemake(target)
    run.config["n_slots"] = 4
    assert "Nothing to be done" in run.snakemake(target)


def test_labels_by_people_are_counted_with_the_noise_of_their_raters(result):
    people = {"n_items": 40, "n_votes": 114, "n_raters": 3, "n_open": 6, "noise_share": 0.118}
    rows = dashboard_data.rows_read(result, {"people": people}).rows
    assert [(row[0].text, row[1].text) for row in rows[-5:]] == [
        ("texts labelled by people", "40"),
        ("their votes", "114"),
        ("raters", "3"),
        ("open votes", "6"),
        ("share of the labels' variance that is noise of raters", "12 %"),
    ]
