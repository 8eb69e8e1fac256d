from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tokenreel.errors import FormatError, InputError, MissingExtraError
from tokenreel.generate.condition import Condition, label_condition
from tokenreel.generate.text import ByteText, ByteTextConfig, TextEncoder, bytes_of, words_of
from tokenreel.generate.text_t5 import T5Text
from tokenreel.tokenizers.configs import Stack

torch.set_num_threads(1)

CONFIG = ByteTextConfig(stack=Stack(dim=24, depth=2, num_heads=2, head_dim=8, mlp_dim=48), max_bytes=40)
PROMPTS = ["a red ball", "a ball", "", "two red balls and a cat"]


def byte_text(seed: int = 0, words: int | None = None) -> ByteText:
    torch.manual_seed(seed)
    return ByteText(replace(CONFIG, words=words)).eval()


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 of 24 channels and its tokenizer, as transformers saves them."""
    pytest.importorskip("transformers")
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    from tokenizers import Tokenizer

    words = ["<pad>", "</s>", "<unk>", "a", "red", "ball", "two", "balls", "and", "cat"]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("t5")
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 10, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder)
    return folder


@pytest.fixture(params=["bytes", "words", "t5"])
def encoder(request: pytest.FixtureRequest, t5_folder: Path) -> TextEncoder:
    if request.param == "t5":
        return T5Text(t5_folder)
    return byte_text(words=None if request.param == "bytes" else 64)


# The laws of every encoder.


@torch.no_grad()
def test_states_of_a_prompt_do_not_depend_on_its_neighbours(encoder: TextEncoder) -> None:
    together = encoder.encode(PROMPTS)
    assert together.context_BSD.shape == (*together.valid_mask_BS.shape, encoder.dim)
    for row, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        num = alone.context_BSD.shape[1]
        assert alone.valid_mask_BS.all()
        assert together.valid_mask_BS[row].sum() == num
        assert together.valid_mask_BS[row, :num].all()
        torch.testing.assert_close(together.context_BSD[row, :num], alone.context_BSD[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_equal_calls_give_equal_bits_and_prompts_differ(encoder: TextEncoder) -> None:
    first, second = encoder.encode(PROMPTS), encoder.encode(PROMPTS)
    assert torch.equal(first.context_BSD, second.context_BSD)
    assert (first.context_BSD[0, 0] - first.context_BSD[3, 0]).abs().max() > 1e-3
    assert len(encoder.fingerprint) == 64


@torch.no_grad()
def test_a_state_of_zero_stays_valid(encoder: TextEncoder) -> None:
    model = encoder if isinstance(encoder, ByteText) else encoder._models()[1]  # type: ignore[attr-defined]
    for parameter in model.parameters():
        parameter.zero_()
    told = encoder.encode(["a red ball", "a"])
    assert not told.context_BSD.any()
    assert told.valid_mask_BS.sum(1).tolist() == (
        [11, 2] if encoder.name == "bytes" and encoder.config.words is None else [4, 2]
    )  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prompts", "text"),
    [
        ("one", r"write encode\(\[prompt\]\)"),
        ([], "at least one prompt"),
        (["a", 3], "prompt 1 must be text, got int"),
        (["\udcff"], "prompt 0 is not Unicode"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(encoder: TextEncoder, prompts: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        encoder.encode(prompts)


# Bytes.


def test_bytes_are_utf8_and_too_long_prompts_are_told() -> None:
    ids, valid = bytes_of(["né", "x" * 4], max_bytes=4)
    assert ids.tolist() == [[110, 195, 169, 256, 256], [120, 120, 120, 120, 256]]
    assert valid.sum(1).tolist() == [4, 5]
    with pytest.raises(InputError, match="has 5 bytes, at most 4"):
        bytes_of(["x" * 5], max_bytes=4)
    with pytest.raises(InputError, match="max_bytes"):
        replace(CONFIG, max_bytes=0)


@torch.no_grad()
def test_words_are_read_without_case_by_two_hashes_each() -> None:
    encoder = byte_text(words=8)
    ids, valid = words_of(["A red ball, a cat", "a RED"], size=8)
    assert ids.shape == (2, 7, 2)
    assert valid.sum(1).tolist() == [7, 3]  # six words and signs, two words; an end each
    assert torch.equal(ids[0, :2], ids[1, :2])
    assert torch.equal(ids[0, 0], ids[0, 4])
    assert ids[1, 2].tolist() == [8, 8]
    assert bool((ids[valid] <= 8).all())
    names = [f"word{number}" for number in range(40)]
    pairs, _ = words_of(names, size=64)
    assert len({tuple(pair) for pair in pairs[:, 0].tolist()}) == 40  # one table of 64 would mix them up
    first, other = (encoder.encode([prompt]).context_BSD for prompt in ("a red ball", "A Red  ball"))
    assert torch.equal(first, other)
    with pytest.raises(InputError, match="at most 40 are read"):
        encoder.encode(["long " * 20])
    with pytest.raises(InputError, match="words must be a whole number in"):
        replace(CONFIG, words=1)


def test_the_order_of_bytes_counts_and_gradients_reach_every_weight() -> None:
    model = byte_text().train()
    told = model.encode(["ab", "ba"])
    assert (told.context_BSD[0] - told.context_BSD[1]).abs().max() > 1e-3
    told.context_BSD.square().mul(torch.randn(24)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_fingerprint_is_of_weights_and_configuration() -> None:
    a, b, c = byte_text(), byte_text(), byte_text(seed=1)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    with torch.no_grad():
        b.embed.weight[0, 0] += 1
    assert a.fingerprint != b.fingerprint
    assert a.name == "bytes"


# T5.


@torch.no_grad()
def test_t5_states_are_those_of_transformers(t5_folder: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer, model = AutoTokenizer.from_pretrained(t5_folder), T5EncoderModel.from_pretrained(t5_folder).eval()
    coded = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    wanted = model(input_ids=coded.input_ids, attention_mask=coded.attention_mask).last_hidden_state
    told = T5Text(t5_folder).encode(PROMPTS)
    assert torch.equal(told.valid_mask_BS, coded.attention_mask.bool())
    torch.testing.assert_close(told.context_BSD[told.valid_mask_BS], wanted[told.valid_mask_BS], rtol=1e-5, atol=1e-5)
    assert not told.context_BSD.requires_grad
    assert T5Text(t5_folder).name == f"t5:{t5_folder}"


def test_states_are_kept_on_disk_and_read_again(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = T5Text(t5_folder, cache=tmp_path).encode(["a cat", "a red ball", "a cat"])
    kept = sorted(tmp_path.rglob("*.safetensors"))
    assert len(kept) == 2
    assert all(T5Text(t5_folder).fingerprint.startswith(path.parent.parent.name) for path in kept)
    assert sorted(len(load_file(path)["states_SD"]) for path in kept) == [3, 4]
    again = T5Text(t5_folder, cache=tmp_path)
    seen: list[list[str]] = []
    computed = again._computed
    monkeypatch.setattr(again, "_computed", lambda prompts: seen.append(prompts) or computed(prompts))
    told = again.encode(["a cat", "a red ball", "a cat"])
    again.encode(["a cat", "two balls"])
    assert seen == [[], ["two balls"]]
    for one, other in zip(told, fresh):
        assert one is other is None or torch.equal(one, other)


def test_states_are_those_of_float32_whatever_is_around(t5_folder: Path, tmp_path: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        told = T5Text(t5_folder, cache=tmp_path).encode(["a red ball"])
    assert torch.equal(told.context_BSD, T5Text(t5_folder).encode(["a red ball"]).context_BSD)
    assert torch.equal(told.context_BSD, T5Text(t5_folder, cache=tmp_path).encode(["a red ball"]).context_BSD)


def test_a_damaged_file_of_states_is_named(t5_folder: Path, tmp_path: Path) -> None:
    T5Text(t5_folder, cache=tmp_path).encode(["a cat"])
    [path] = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"nothing")
    with pytest.raises(FormatError, match=f"{path.name} holds no text states"):
        T5Text(t5_folder, cache=tmp_path).encode(["a cat"])


def test_other_weights_and_lengths_have_other_fingerprints(t5_folder: Path) -> None:
    plain, short, other = T5Text(t5_folder), T5Text(t5_folder, max_tokens=3), T5Text(t5_folder)
    with torch.no_grad():
        next(other._models()[1].parameters())[0, 0] += 1
    assert len({plain.fingerprint, short.fingerprint, other.fingerprint}) == 3
    used = T5Text(t5_folder)
    used.encode(["a", "two red balls"])
    assert used.fingerprint == plain.fingerprint
    told = short.encode(["two red balls"])
    assert told.valid_mask_BS.shape == (1, 3)
    with pytest.raises(InputError, match="max_tokens must be at least 2"):
        T5Text(t5_folder, max_tokens=1)


@pytest.mark.parametrize("source", ["no/such-t5-anywhere", "/no/such/folder"])
def test_an_absent_t5_is_told(source: str) -> None:
    with pytest.raises(InputError, match=f"'{source}' is no folder with a T5.*byte-level"):
        T5Text(source, local_files_only=True).encode(["a"])


def test_without_transformers_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokenreel\[text\]'"):
        T5Text("anything").encode(["a"])


# Conditions.


def test_a_condition_of_one_row_stands_for_many() -> None:
    told = Condition(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), torch.tensor([4]))
    many = told.rows(3)
    assert (many.num, many.context_BSD.shape, many.valid_mask_BS.shape) == (3, (3, 2, 3), (3, 2))
    assert many.labels_B is not None
    assert many.labels_B.tolist() == [4, 4, 4]
    assert many.rows(3) is many
    with pytest.raises(InputError, match="3 prompts cannot stand for 2 videos"):
        many.rows(2)
    with pytest.raises(InputError, match="labels must be whole numbers"):
        label_condition(torch.zeros(2))
