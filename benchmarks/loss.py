"""Self-distillation loss and its backward pass, ours beside lightly's DINOLoss, on the same logits.

    pip install lightly
    python benchmarks/loss.py [--batch 64] [--prototypes 65536] [--rounds 7] [--threads 2]

Two global and eight local crops. The largest deviations of loss and gradient are printed with the times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from lightly.loss import DINOLoss

from mst_pretrain.method.losses import SelfDistillationLoss
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import in_turn, publish, table

VIEWS, CROPS = 2, 10
OURS, PEER = "MST", "lightly DINOLoss"


def main(argv: list[str] | None = None) -> None:
    """Time both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    student = torch.randn(CROPS, args.batch, args.prototypes, device=device, requires_grad=True)
    teacher = torch.randn(VIEWS, args.batch, args.prototypes, device=device)
    ours = SelfDistillationLoss(args.prototypes).to(device)
    peer = DINOLoss(args.prototypes, teacher_temp=0.04).to(device)

    def step_of_ours() -> torch.Tensor:
        student.grad = None
        loss, _ = ours(student, teacher, 0.04)
        loss.backward()
        return loss.detach()

    def step_of_peer() -> torch.Tensor:
        student.grad = None
        peer.center.zero_()  # it moves the center in its forward pass
        loss: torch.Tensor = peer(list(teacher), list(student), teacher_temp=0.04)
        loss.backward()
        return loss.detach()

    losses, gradients = [], []
    for step in (step_of_ours, step_of_peer):
        losses.append(step())
        assert student.grad is not None
        gradients.append(student.grad)
    seconds = in_turn({OURS: step_of_ours, PEER: step_of_peer}, args.rounds, device)
    deviation = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    publish(
        "loss",
        table(seconds, PEER),
        device,
        **vars(args),
        loss_deviation=float((losses[0] - losses[1]).abs() / losses[1]),
        gradient_deviation=float(deviation),
    )


if __name__ == "__main__":
    run_cli(main)
