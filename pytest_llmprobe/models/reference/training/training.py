"""The training loop: Muon for the matrices, AdamW for the rest, checkpoints that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pytest_llmprobe.models.reference.training.batches import FIRST, Batch, Batches

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from pytest_llmprobe.models.reference.training.model import Paces

MATRIX_RATE, REST_RATE = 3e-3, 1e-3
MOMENTUM, DECAY = 0.95, 0.02  # of the matrices; the decay is times the learning rate
TEXT_SHARE = 0.5  # weight of the texts' loss beside the conversations'


class Muon:
    """Nesterov momentum whose steps are made orthogonal, for matrices (Jordan et al. 2024).

    Args:
        matrices: Two-dimensional parameters.
        rate: Learning rate; a step changes a matrix by this much in spectral norm, about.
    """

    def __init__(self, matrices: Sequence[torch.nn.Parameter], rate: float) -> None:
        self.matrices, self.rate = matrices, rate
        self.buffers = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients."""
        shapes: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
        for matrix, buffer in zip(self.matrices, self.buffers, strict=True):
            assert matrix.grad is not None
            buffer.mul_(MOMENTUM).add_(matrix.grad)
            update = matrix.grad.add(buffer, alpha=MOMENTUM)
            shapes.setdefault(matrix.shape, []).append((matrix, update))
        for shape, members in shapes.items():
            updates = orthogonalized(torch.stack([update for _, update in members]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (matrix, _), update in zip(members, updates, strict=True):
                matrix.mul_(1 - self.rate * DECAY).sub_(update, alpha=self.rate * scale)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices, about, by five Newton-Schulz steps [n, rows, columns].

    In bfloat16 on a GPU; most CPUs have no instructions for it.
    """
    x = matrices if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: torch.Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


class Trainer:
    """A training run in a folder: goes on from the folder's checkpoint if it has one.

    Args:
        model: The model, which is trained in place, in float32.
        paces: How fast each of its parameters may move, by name.
        batches: What it sees.
        folder: For the checkpoint.
    """

    def __init__(
        self, model: LlamaForCausalLM, paces: Paces, batches: Batches, folder: Path
    ) -> None:
        self.model, self.batches, self.folder = model.train(), batches, folder
        self.device = model.device
        embedding = model.model.embed_tokens.weight
        rest = [p for p in model.model.parameters() if p.ndim != 2 or p is embedding]
        matrices = [p for p in model.model.parameters() if p.ndim == 2 and p is not embedding]
        self.muon = Muon(matrices, MATRIX_RATE)
        # Few weights stay where they are or move slowly, so the others are not listed here.
        self.slow = [
            (p, paces[name].to(self.device))
            for name, p in model.named_parameters()
            if paces[name].min() != 1
        ]
        self.adam = torch.optim.AdamW(rest, lr=REST_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        self.done, self.seconds = 0, 0.0
        self._before: dict[str, torch.Tensor] = {}  # weights from before the stage
        self.restore()

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "steps": self.batches.steps,
            "done": self.done,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "before": self._before,
            "muon": self.muon.buffers,
            "adam": self.adam.state_dict(),
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            ValueError: It belongs to a run of another length.
        """
        if not self._checkpoint.is_file():
            return
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        if state["steps"] != self.batches.steps:
            raise ValueError(
                f"{self._checkpoint} belongs to a run of {state['steps']} steps, not "
                f"{self.batches.steps}: give its --steps, or another --out"
            )
        self.model.load_state_dict(state["model"])
        self._before = state["before"]
        for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):
            buffer.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        self.done, self.seconds = state["done"], state["seconds"]

    def run(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields the figures of each step."""
        while self.done < self.batches.steps:
            started = time.monotonic()
            stage, done = self.batches.stage(self.done)
            if done == 0 and stage.kept < 1:
                self._before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
            figures = self.step()
            self.done += 1
            if done + 1 == stage.steps and stage.kept < 1:
                self._go_back(stage.kept)
            self.seconds += time.monotonic() - started
            yield figures | {"step": self.done, "seconds": self.seconds}

    @torch.no_grad()
    def _go_back(self, kept: float) -> None:
        """To a share of the way from the weights of before the stage."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(torch.lerp(self._before[name], parameter, kept))
        self._before = {}

    def step(self) -> dict[str, float]:
        """One step: the loss and accuracies of the answers, and the loss of the texts if any."""
        stage, done = self.batches.stage(self.done)
        factor = stage.rate_factor(done)
        self.muon.rate = MATRIX_RATE * factor
        for group in self.adam.param_groups:
            group["lr"] = REST_RATE * factor
        talk, *texts = self.batches.step(self.done)
        loss, correct, first = self.loss(talk)
        loss.backward()
        figures = {"loss": loss.item(), "correct": correct, "first": first}
        for text in texts:
            text_loss, _, _ = self.loss(text)
            (TEXT_SHARE * text_loss).backward()
            figures["text"] = text_loss.item()
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        before = [p.detach().clone() for p, _ in self.slow]
        self.muon.step()
        self.adam.step()
        with torch.no_grad():
            for (p, pace), old in zip(self.slow, before, strict=True):
                p.copy_(old + pace * (p - old))
        self.model.zero_grad(set_to_none=True)
        return figures

    def loss(self, batch: Batch) -> tuple[torch.Tensor, float, float]:
        """The weighted loss of a batch, and the shares of tokens and of first tokens got right."""
        tokens, weights = batch.tokens.to(self.device), batch.weights.to(self.device)
        weights, targets = weights[:, 1:].flatten(), tokens[:, 1:].flatten()
        counted = weights.nonzero().flatten()
        with torch.autocast(self.device.type, torch.bfloat16, self.device.type != "cpu"):
            hidden = self.model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[counted]).float()
        weights, targets = weights[counted], targets[counted]
        losses = functional.cross_entropy(logits, targets, reduction="none")
        with torch.no_grad():
            right = (logits.argmax(-1) == targets).float()
            first = right[weights == FIRST]
        return (losses * weights).sum() / weights.sum(), right.mean().item(), first.mean().item()
