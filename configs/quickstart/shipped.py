# The checkpoint in examples/quickstart/shipped: MST on 20,000 drawn street scenes, in less than an hour on a CPU with
# instructions for bfloat16. All [ours]. The scenes: python -m examples.quickstart.drawn work_dirs/street_photos
# 64 tokens per global view, 16 per local crop. The small-data values are those of the mask study on a CPU; see
# "Small data" in benchmarks/README.md.
_base_ = "../_base_/mst_pretrain.py"

data_root = "work_dirs/street_photos"
model = dict(
    backbone=dict(
        name="vit_tiny_patch16_224",
        img_size=64,
        patch_size=8,
        embed_dim=192,
        depth=4,
        num_heads=3,
        drop_path_rate=0.0,
    ),
    head=dict(prototypes=256, hidden_dim=512, bottleneck_dim=128, norm="bn"),
    masking=dict(mode="attention", num=4, prob=1.0),
    decoder=dict(width=64, min_width=16),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        crops=dict(
            global_crops=[
                dict(size=64, scale=(0.4, 1.0), blur_probability=0.5, blur_sigma=(0.1, 0.7)),
                dict(
                    size=64,
                    scale=(0.4, 1.0),
                    blur_probability=0.1,
                    blur_sigma=(0.1, 0.7),
                    solarize_probability=0.2,
                ),
            ],
            local_crop=dict(size=32, scale=(0.05, 0.4), blur_probability=0.2, blur_sigma=(0.1, 0.5)),
            local_count=4,
        ),
    ),
)
train_cfg = dict(max_epochs=None, max_iters=8000)
optim_wrapper = dict(dtype="bfloat16")
randomness = dict(seed=1)
default_hooks = dict(
    schedule=dict(
        base_lr=5e-4,
        base_batch=16,
        final_lr=1e-6,
        warmup_epochs=0.2,
        weight_decay=(0.04, 0.04),
        momentum=(0.98, 1.0),
        freeze_last_layer_epochs=0.0,
    ),
    logger=dict(interval=50),
    checkpoint=dict(interval=400, max_keep_ckpts=1),
)
