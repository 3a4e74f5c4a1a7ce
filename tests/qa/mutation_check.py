"""One-line mutations of the method, its schedules, hooks, data and loading, each to be caught by a named test.

    python tests/qa/mutation_check.py              # all, a few minutes
    python tests/qa/mutation_check.py --only loss  # those whose file, line or test contains "loss"
    python tests/qa/mutation_check.py --list FILE  # others, for which any test of the package may fail
    python tests/qa/mutation_check.py --package mst_transfer --list tests/qa/transfer_mutations.txt

The checkout is not touched: its packages, tests and configs are copied to a temporary folder and mutated there, one
at a time. Exit code 1 when a mutation survives, a mutated line is not found exactly once, or a named test fails on
the unchanged code.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mst_toolkit.cli import child_environment

ROOT = Path(__file__).parents[2]
COPIED = (
    *("mst_toolkit", "mst_pretrain", "mst_transfer", "examples", "studies", "benchmarks"),
    *("tests", "configs", "tools", "pyproject.toml"),
)

# FILE of mst_pretrain, TEST of tests/mst_pretrain; the line to replace; its replacement.
TABLE = """
method/masking.py method/test_masking.py::test_candidates_are_the_least_attended
- attention.argsort(dim=1, stable=True)[:, :candidates]
+ attention.argsort(dim=1, stable=True, descending=True)[:, :candidates]

method/masking.py method/test_masking.py::test_candidates_are_the_least_attended
- candidates = attention.shape[1] // num
+ candidates = -(-attention.shape[1] // num)

method/masking.py method/test_masking.py::test_noise_decides_among_candidates
- return is_candidate & (noise < prob)
+ return is_candidate & (noise > prob)

method/masking.py method/test_masking.py::test_share_of_hidden_candidates_is_binomial
- return is_candidate & (noise < prob)
+ return is_candidate

method/masking.py method/test_masking.py::test_row_depends_on_its_own_attention_and_seed
- z = _mix(seeds.unsqueeze(1)) +
+ z = _mix(seeds[:1].unsqueeze(1)) +

method/masking.py method/test_masking.py::test_share_of_whole_images
- (whole >= unmasked_image_probability)
+ (whole < unmasked_image_probability)

method/masking.py method/test_masking.py::test_guidance_comes_from_the_attention
- mask = attention_guided_mask(order, bernoulli, num, prob)
+ mask = attention_guided_mask(attention, bernoulli, num, prob)

method/losses.py method/test_losses.py::test_cross_entropy_is_the_formula
- if view != crop:
+ if True:

method/losses.py method/test_losses.py::test_cross_entropy_is_the_formula
- logits = (teacher.detach().float() - self.center) / teacher_temperature
+ logits = teacher.detach().float() / teacher_temperature

method/losses.py method/test_losses.py::test_cross_entropy_is_the_formula
- logits = (teacher.detach().float() - self.center) / teacher_temperature
+ logits = (teacher.detach().float() - self.center) / self.student_temperature

method/losses.py method/test_losses.py::test_cross_entropy_is_the_formula
- loss = total / (views * crops - views)
+ loss = total / (views * crops)

method/losses.py method/test_losses.py::test_center_is_the_running_mean
- .add_(batch_center, alpha=1 - self.center_momentum)
+ .add_(batch_center, alpha=self.center_momentum)

method/losses.py method/test_losses.py::test_center_is_the_running_mean
- self.pending_sum.zero_()
+ pass

method/losses.py method/test_losses.py::test_restoration_is_the_mean_absolute_error
- (restored.float() - images.float()).abs().mean()
+ (restored.float() - images.float()).square().mean()

method/mst.py method/test_networks.py::test_teacher_follows_by_momentum_and_shares_nothing
- teacher.mul_(momentum).add_(student.detach(), alpha=1 - momentum)
+ teacher.mul_(1 - momentum).add_(student.detach(), alpha=momentum)

method/mst.py method/test_method.py::test_three_steps_are_the_equations
- self.distillation.update_center()
+ self.distillation.pending_sum.zero_()

method/mst.py method/test_method.py::test_three_steps_are_the_equations
- seeds=_view_seeds(seeds, len(global_views))
+ seeds=seeds.repeat(len(global_views))

method/mst.py method/test_method.py::test_losses_have_their_weights
- self.lambda_rec * restoration_loss
+ restoration_loss

method/mst.py method/test_networks.py::test_drop_path_acts_in_the_student_only
- self.teacher = Network({**backbone, "drop_path_rate": 0.0}, head)
+ self.teacher = Network(backbone, head)

method/mst.py method/test_networks.py::test_teacher_follows_by_momentum_and_shares_nothing
- self.teacher.load_state_dict(self.student.state_dict())
+ self.teacher.backbone = self.student.backbone

method/backbones.py method/test_backbones.py::test_vit_is_timms
- row = scores.softmax(-1).mean(1)
+ row = scores.softmax(-1).amax(1)

method/backbones.py method/test_backbones.py::test_swin_map_of_shifted_and_padded_windows
- return torch.roll(whole, (shift[0], shift[1]), (1, 2))
+ return whole

method/backbones.py method/test_backbones.py::test_swin_masks_whole_stage_4_tokens
- mask = mask.repeat_interleave(unit, 1).repeat_interleave(unit, 2)
+ mask = mask.repeat(1, unit, unit)

method/head.py method/test_method.py::test_three_steps_are_the_equations
- x = F.normalize(x.float(), dim=-1, eps=1e-6)
+ x = x.float()

training/schedules.py training/test_schedules.py::test_cosine_is_dinos_array
- * (1 + math.cos(math.pi * progress))
+ * (1 - math.cos(math.pi * progress))

training/schedules.py training/test_schedules.py::test_cosine_is_dinos_array
- index / (count - 1)
+ index / count

training/hooks.py training/test_schedules.py::test_every_value_of_a_300_epoch_run
- self.weight_decay_schedule(iteration) if group["decays"] else 0.0
+ self.weight_decay_schedule(iteration)

training/hooks.py training/test_schedules.py::test_every_value_of_a_300_epoch_run
- lr = self.base_lr * loop.global_batch / self.base_batch
+ lr = self.base_lr

training/hooks.py training/test_schedules.py::test_every_value_of_a_300_epoch_run
- if iteration < self.frozen_iters else []
+ if iteration <= self.frozen_iters else []

training/hooks.py training/test_schedules.py::test_teacher_moves_with_the_momentum_of_its_iteration
- momentum = self.schedule.momentum_schedule(runner.iter)
+ momentum = self.schedule.momentum_schedule(runner.iter + 1)

training/hooks.py training/test_engine.py::test_log_shows_the_values_that_were_used
- priority = "HIGHEST"
+ priority = "VERY_HIGH"

training/optim.py training/test_optim.py::test_step_clips_freezes_and_reports
- clip_each_tensor(parameters, self.clip_grad_per_tensor)
+ torch.nn.utils.clip_grad_norm_(parameters, self.clip_grad_per_tensor)

training/optim.py training/test_optim.py::test_groups_of_the_method
- if name.endswith(".bias") or parameter.ndim == 1 else decayed
+ if name.endswith(".bias") else decayed

training/loop.py training/test_engine.py::test_eight_of_one_are_one_of_eight
- wrapper._accumulative_counts = self.accumulate
+ wrapper._accumulative_counts = 1

training/loop.py training/test_engine.py::test_resumed_run_is_the_uninterrupted_one
- self.sampler.advance(self.global_batch)
+ self.sampler.advance(self.dataloader.batch_size)

training/loop.py training/test_engine.py::test_resumed_run_is_the_uninterrupted_one
- seed_all(self.runner.seed, get_rank(), self._iter)
+ pass

checkpoints/loading.py training/test_engine.py::test_checkpoint_of_another_model_is_refused
- if strict and (report.missing_keys or report.unexpected_keys):
+ if strict and report.missing_keys:

checkpoints/backbone.py checkpoints/test_checkpoint_io.py::test_partial_coverage_fails_and_changes_nothing
- "missing": [name for name in expected if name not in shapes],
+ "missing": [],

checkpoints/storage.py checkpoints/test_checkpoint_io.py::test_code_in_a_checkpoint_is_refused_and_named
- map_location=map_location, weights_only=not trusted
+ map_location=map_location, weights_only=False

checkpoints/loading.py checkpoints/test_checkpoint_io.py::test_position_embedding_is_resized_to_the_grid
- backbone.note_resized(POSITIONS, resized)
+ backbone.note_resized(POSITIONS, module.pos_embed)

checkpoints/storage.py checkpoints/test_checkpoint_io.py::test_crash_while_writing_leaves_the_old_file
- part = temporary_name(path)
+ part = path

data/datasets.py data/test_multicrop.py::test_sample_is_a_function_of_seed_epoch_and_index
- rng = np.random.default_rng([self.seed, epoch, index])
+ rng = np.random.default_rng([self.seed, index])

data/photometric.py data/test_photometric.py::test_blur_is_torchvisions_whatever_the_neighbours
- * (offsets.abs() <= radii.unsqueeze(1))
+ * 1.0

data/photometric.py data/test_photometric.py::test_preprocessor_is_exact_under_autocast
- with torch.autocast(pixels.device.type, enabled=False):
+ if True:

data/sampler.py data/test_sampler.py::test_ranks_together_are_one_rank_with_a_larger_batch
- position += self.world_size
+ position += 1

evaluation/knn.py evaluation/test_knn.py::test_accuracy_is_the_brute_forces
- votes = ((similarity - similarity[:, :1]) / temperature).exp()
+ votes = torch.ones_like(similarity)

evaluation/knn.py evaluation/test_knn.py::test_every_prediction_is_scikit_learns
- torch.cat([best_index, index + start], 1)
+ torch.cat([best_index, index], 1)

evaluation/features.py evaluation/test_features.py::test_swin_features_are_esvits
- tokens = trunk.norm(x) if layer is trunk.layers[-1] else x
+ tokens = x

evaluation/heads.py evaluation/test_linear.py::test_heads_are_sgd_loops
- (losses * bank.rates).sum().backward()
+ losses.sum().backward()

evaluation/labelled.py evaluation/test_linear.py::test_low_shot_is_seeded_and_balanced
- count = min(max(1, round(share * len(members))), len(members) - leave)
+ count = min(round(share * len(members)), len(members) - leave)
"""


@dataclass(frozen=True)
class Mutation:
    """Replace ``old`` by ``new`` in a file of the package; ``test``, or any where it is empty, must then fail."""

    file: str
    test: str
    old: str
    new: str


def parse(table: str) -> list[Mutation]:
    """The mutations of ``TABLE``."""
    mutations = []
    for block in table.strip().split("\n\n"):
        place, old, new = block.splitlines()
        file, _, test = place.partition(" ")
        mutations.append(Mutation(file, test, old.removeprefix("- "), new.removeprefix("+ ")))
    return mutations


def run_tests(folder: Path, package: str, *tests: str) -> subprocess.CompletedProcess[str]:
    """pytest on tests of a package, in the copy."""
    env = child_environment(folder, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    paths = [f"tests/{package}/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def check(folder: Path, package: str, mutation: Mutation) -> tuple[str, str]:
    """``caught`` or what is wrong, and the test that failed."""
    path = folder / package / mutation.file
    source = path.read_text()
    count = source.count(mutation.old)
    if count != 1:
        return f"FOUND {count} TIMES", mutation.test
    path.write_text(source.replace(mutation.old, mutation.new))
    try:
        for tests in [[mutation.test]] if mutation.test else [related(folder, package, mutation.file), [""]]:
            ended = run_tests(folder, package, *tests)
            failed = re.search(rf"^(?:FAILED|ERROR) tests/{package}/(\S+)", ended.stdout, re.MULTILINE)
            if ended.returncode:
                break
    finally:
        path.write_text(source)
    result = {0: "SURVIVED", 1: "caught"}.get(ended.returncode, f"PYTEST ENDED WITH {ended.returncode}")
    return result, failed[1] if failed else mutation.test


def related(folder: Path, package: str, file: str) -> list[str]:
    """Test files that name a module or what it defines are asked first; most mutations end there."""
    source = (folder / package / file).read_text()
    names = [Path(file).stem, *re.findall(r"^(?:class|def) ([A-Za-z]\w*)", source, re.MULTILINE)]
    named = re.compile(rf"\b(?:{'|'.join(names)})\b")
    tests = sorted((folder / "tests" / package).rglob("test_*.py"))
    return [
        str(test.relative_to(folder / "tests" / package)) for test in tests if named.search(test.read_text())
    ] or [""]


def main() -> int:
    """Copy, try the unchanged code, mutate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="mutations whose file, line or test contains this")
    parser.add_argument(
        "--list", type=Path, help="other mutations, in blocks like the table's but without a test"
    )
    parser.add_argument(
        "--package", choices=("mst_pretrain", "mst_transfer"), default="mst_pretrain", help="with --list"
    )
    args = parser.parse_args()
    if args.package != "mst_pretrain" and not args.list:
        parser.error(f"--package {args.package} needs --list: the table is of mst_pretrain")
    mutations = [
        m
        for m in parse(args.list.read_text() if args.list else TABLE)
        if args.only in f"{m.file} {m.test} {m.old}"
    ]
    console, start = Console(width=160), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            if source.is_dir():
                shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / item)
        unchanged = run_tests(folder, args.package, *sorted({mutation.test for mutation in mutations}))
        if unchanged.returncode:
            print(f"The tests fail on the unchanged code:\n{unchanged.stdout[-3000:]}", file=sys.stderr)
            return 1
        table = Table()
        for title in ("file", "line", "becomes", "test", "result"):
            table.add_column(title, overflow="fold")
        results = []
        for mutation in mutations:
            result, test = check(folder, args.package, mutation)
            results.append(result)
            print(f"{result:8} {mutation.file}: {mutation.new}", file=sys.stderr, flush=True)
            cells = (mutation.file, mutation.old, mutation.new, test, result)
            table.add_row(*map(escape, cells))
    console.print(table)
    caught = results.count("caught")
    print(f"{caught} of {len(results)} mutations caught in {time.monotonic() - start:.0f} s")
    return int(caught < len(results))


if __name__ == "__main__":
    sys.exit(main())
