# The mask study on one GPU: ViT-S, patch 8 on 64-px photos, 50,000 of them, 100 epochs. All [ours].
_base_ = "./mask_cpu.py"

data_root = "data/tiny-imagenet-100/train-{0000..0009}.tar"
model = dict(
    backbone=dict(name="vit_small_patch16_224", embed_dim=384, depth=12, num_heads=6, drop_path_rate=0.1),
    head=dict(prototypes=8192, hidden_dim=2048, bottleneck_dim=256, norm="none"),
    decoder=dict(width=256, min_width=32),
)
train_dataloader = dict(
    batch_size=512,
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    dataset=dict(data_root=data_root),
)
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(dtype="bfloat16")
default_hooks = dict(
    schedule=dict(
        base_lr=5e-4,
        base_batch=256,
        final_lr=1e-6,
        warmup_epochs=10,
        weight_decay=(0.04, 0.4),
        momentum=(0.99, 1.0),
        freeze_last_layer_epochs=1,
    ),
    checkpoint=dict(interval=200),
)
