"""The two losses and the centre against plain loops over their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mst_pretrain.method.losses import SelfDistillationLoss, restoration_loss

Numbers = list[list[list[float]]]
GRID = [
    (batch, crops, temperatures)
    for batch in (1, 2, 5)
    for crops in ((2, 2), (1, 3), (2, 5), (3, 4))
    for temperatures in ((0.1, 0.04), (0.2, 0.07), (1.0, 1.0))
]


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    exponentials = [math.exp(value - top) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def reference(
    student: Numbers, teacher: Numbers, center: list[float], tau_s: float, tau_t: float
) -> list[float]:
    """Loss, teacher entropy and mean KL: q = softmax((t - c) / tau_t), p = softmax(u / tau_s), pairs v != s."""
    batch = len(teacher[0])
    crosses, entropies, divergences = [], [], []
    for view, view_logits in enumerate(teacher):
        for image in range(batch):
            q = softmax([(t - c) / tau_t for t, c in zip(view_logits[image], center, strict=True)])
            entropies.append(-sum(x * math.log(x) for x in q))
            for crop, crop_logits in enumerate(student):
                if crop == view:
                    continue
                p = softmax([u / tau_s for u in crop_logits[image]])
                crosses.append(-sum(x * math.log(y) for x, y in zip(q, p, strict=True)))
                divergences.append(sum(x * math.log(x / y) for x, y in zip(q, p, strict=True)))
    return [sum(terms) / len(terms) for terms in (crosses, entropies, divergences)]


def logits(crops: int, batch: int, prototypes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(crops, batch, prototypes, generator=generator, dtype=torch.float64) * 0.3


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("batch", "crops", "temperatures"), GRID)
def test_cross_entropy_is_the_formula(
    batch: int, crops: tuple[int, int], temperatures: tuple[float, float]
) -> None:
    """Pairs, centring, sharpening or the means would differ from DINO's equation."""
    views, tau_s, tau_t = crops[0], *temperatures
    loss = SelfDistillationLoss(7, student_temperature=tau_s).double()
    loss.center.copy_(torch.linspace(-0.4, 0.5, 7))
    student, teacher = logits(crops[1], batch, 7, 1), logits(views, batch, 7, 2)
    value, watched = loss(student, teacher, tau_t)
    expected = reference(student.tolist(), teacher.tolist(), loss.center.tolist(), tau_s, tau_t)
    got = [float(value), float(watched["teacher_entropy"]), float(watched["kl"])]
    assert got == pytest.approx(expected, rel=1e-10)
    assert float(watched["center_norm"]) == pytest.approx(math.sqrt(sum(c * c for c in loss.center.tolist())))


@pytest.mark.usefixtures("double_precision")
def test_gradient_is_p_minus_q() -> None:
    """The student would be pulled elsewhere than to the teacher's distribution, or the teacher would learn too."""
    loss = SelfDistillationLoss(5, student_temperature=0.2).double()
    student, teacher = logits(3, 2, 5, 3).requires_grad_(), logits(2, 2, 5, 4).requires_grad_()
    loss(student, teacher, 0.07)[0].backward()
    assert student.grad is not None and teacher.grad is None
    pairs = 2 * 3 - 2
    for crop in range(3):
        for image in range(2):
            p = softmax([u / 0.2 for u in student[crop, image].tolist()])
            expected = [0.0] * 5
            for view in range(2):
                q = softmax([t / 0.07 for t in teacher[view, image].tolist()])
                if view != crop:
                    expected = [
                        e + (x - y) / (0.2 * pairs * 2) for e, x, y in zip(expected, p, q, strict=True)
                    ]
            assert student.grad[crop, image].tolist() == pytest.approx(expected, abs=1e-12)


def test_half_precision_logits_are_taken_to_float32() -> None:
    """Under autocast the softmax over 65536 prototypes would run in bfloat16."""
    loss = SelfDistillationLoss(7)
    student, teacher = logits(3, 2, 7, 1).bfloat16(), logits(2, 2, 7, 2).bfloat16()
    expected = loss(student.float(), teacher.float(), 0.04)[0]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher, 0.04)[0]
        restored = restoration_loss(student, 2 * student)
    assert value.dtype == restored.dtype == torch.float32
    assert torch.equal(value, expected)
    assert restored.item() == pytest.approx(student.double().abs().mean().item(), rel=1e-6)


def test_a_scaled_loss_scales_a_gradient_that_float16_would_lose() -> None:
    """Training in float16 would learn nothing from prototypes with a gradient below 6e-8."""
    loss, scale = SelfDistillationLoss(4096), 2.0**14
    student, teacher = logits(3, 2, 4096, 1).half().requires_grad_(), logits(2, 2, 4096, 2)
    (loss(student, teacher, 0.04)[0] * scale).backward()
    wanted = student.detach().float().requires_grad_()
    loss(wanted, teacher, 0.04)[0].backward()
    assert student.grad is not None and wanted.grad is not None and student.grad.dtype == torch.float16
    assert (wanted.grad.half() == 0).float().mean() > 0.01
    torch.testing.assert_close(student.grad.float() / scale, wanted.grad, rtol=2e-3, atol=1e-11)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_center_is_the_running_mean(momentum: float, micro_batches: int) -> None:
    """The centre would move per micro-batch, forget its momentum, or keep what was collected for a past step."""
    loss = SelfDistillationLoss(4, center_momentum=momentum).double()
    center = [0.0] * 4
    for step in range(2):
        teachers = [logits(2, 3 + micro, 4, 10 * step + micro) for micro in range(micro_batches)]
        for teacher in teachers:
            before = loss.center.clone()
            loss(logits(3, teacher.shape[1], 4, 5), teacher, 0.04)
            loss.collect(teacher)
            assert torch.equal(loss.center, before)
        loss.update_center()
        rows = [row for teacher in teachers for view in teacher.tolist() for row in view]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        center = [momentum * c + (1 - momentum) * m for c, m in zip(center, mean, strict=True)]
        assert loss.center.tolist() == pytest.approx(center, rel=1e-10, abs=1e-12)


def test_center_is_saved_and_pending_is_not() -> None:
    """A resumed run would start from a zero centre, or a checkpoint would hold half a step."""
    assert set(SelfDistillationLoss(4).state_dict()) == {"center"}


def test_center_needs_something_collected() -> None:
    """A step without a forward pass would fill the centre with NaN."""
    loss = SelfDistillationLoss(4)
    with pytest.raises(RuntimeError, match="collect"):
        loss.update_center()
    loss.collect(torch.ones(2, 1, 4))
    loss.update_center()
    with pytest.raises(RuntimeError, match="collect"):
        loss.update_center()


@pytest.mark.parametrize(
    "arguments",
    [
        {"student_temperature": 0.0},
        {"student_temperature": -0.1},
        {"center_momentum": 1.1},
        {"center_momentum": -0.1},
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    """A negative temperature or a momentum beyond 1 would train to nothing without a word."""
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        SelfDistillationLoss(4, **arguments)


@pytest.mark.parametrize(
    ("student", "teacher", "temperature"),
    [
        ((1, 2, 4), (1, 2, 4), 0.04),  # no pair
        ((2, 2, 4), (3, 2, 4), 0.04),  # a view without its crop
        ((3, 2, 4), (2, 1, 4), 0.04),  # another batch
        ((3, 2, 4), (2, 2, 5), 0.04),  # other prototypes
        ((3, 2, 4), (2, 2, 4), 0.0),
        ((3, 2, 4), (2, 2, 4), -1.0),
    ],
)
def test_impossible_input_is_refused(
    student: tuple[int, ...], teacher: tuple[int, ...], temperature: float
) -> None:
    """Wrong shapes would broadcast into a number that looks like a loss."""
    loss = SelfDistillationLoss(4)
    with pytest.raises(ValueError, match="got"):
        loss(torch.zeros(student), torch.zeros(teacher), temperature)


def test_restoration_is_the_mean_absolute_error() -> None:
    """The restoration would be a sum, a square, or over a part of the image."""
    restored, images = logits(2, 3, 8, 1).view(1, 3, 4, 4), logits(2, 3, 8, 2).view(1, 3, 4, 4)
    pairs = zip(restored.flatten().tolist(), images.flatten().tolist(), strict=True)
    differences = [abs(x - y) for x, y in pairs]
    assert restoration_loss(restored, images).item() == pytest.approx(sum(differences) / 48, rel=1e-6)
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\).*\(1, 3, 2, 8\)"):
        restoration_loss(restored, images.view(1, 3, 2, 8))
