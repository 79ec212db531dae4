"""What a unit of work costs in memory on 82M parameters, and what two workers share.

    pytest tests/benchmarks/test_memory.py -n 0 -s

Linux only: it reads /proc. At most the largest batch's keys and values and 300 MiB come on top of
the process that has loaded the model; the weights stay the pages of their file.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from workloads import reference

SCRIPT = Path(__file__).with_name("memory_of_a_unit.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """82M parameters with a large vocabulary: its logits are the larger risk."""
    config = LlamaConfig(
        hidden_size=640,
        intermediate_size=1728,
        num_hidden_layers=10,
        num_attention_heads=10,
        vocab_size=50257,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model, path = LlamaForCausalLM(config), tmp_path_factory.mktemp("82m")
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    model.save_pretrained(path)
    reference().tokenizer.save_pretrained(path)
    return path


def measured(folder, dtype, workers=1):
    command = [sys.executable, SCRIPT, folder, dtype]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(workers)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_unit_takes_its_cache_and_little_more(capsys, folder, dtype):
    (found,) = measured(folder, dtype)
    rest = found["peak"] - found["VmRSS"] - found["largest cache"]
    with capsys.disabled():
        print(f"\n82M, {dtype}, MiB: " + ", ".join(f"{k} {v:.0f}" for k, v in found.items()))
        print(f"  beside the loaded process and the largest cache: {rest:.0f}")
    assert rest < 300


def test_two_workers_share_the_weights(capsys, folder):
    (alone,), both = measured(folder, "float32"), measured(folder, "float32", workers=2)
    together = sum(worker["Pss"] for worker in both)
    with capsys.disabled():
        print(f"\n82M, MiB after loading: one {alone['Pss']:.0f}, two {together:.0f} in all")
        print(f"  private and written: {both[0]['Private_Dirty']:.0f}")
    assert together < 2 * alone["Pss"] - 0.8 * alone["weights"]
