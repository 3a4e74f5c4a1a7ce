# The mask study on one GPU: ViT-Ti/8 on photos of 64 px, 1,310 steps of 256. What is not here is the study's on two
# CPU cores. All [ours] but what has a source; chosen for all arms alike and not tuned.
_base_ = "mask_cpu.py"

data_root = "data/tiny-imagenet-100/train-{0000..0005}.tar"  # 30,000 photos
model = dict(backbone=dict(depth=12))  # ViT-Ti with patches of 8
train_dataloader = dict(
    batch_size=256,
    num_workers=4,  # of 16 cores for four runs side by side
    persistent_workers=True,
    pin_memory=True,
    dataset=dict(data_root=data_root),
)
train_cfg = dict(max_epochs=None, max_iters=1310)  # 117 steps an epoch
default_hooks = dict(
    schedule=dict(
        base_batch=256,  # with base_lr 5e-4 [code: DINO]
        warmup_epochs=1.0,
        momentum=(0.99, 1.0),  # a shorter run than DINO's, whose 0.996 follows within 250 steps
    ),
)
