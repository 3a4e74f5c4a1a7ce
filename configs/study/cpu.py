# The mask study on two CPU cores: a ViT of width 192 and depth 4 on Tiny-ImageNet's 64-px photos. All [ours].
# 64 tokens per global view, 16 per local crop.
_base_ = "../_base_/mst_pretrain.py"

data_root = "data/tiny-imagenet-100/train-{0000..0001}.tar"
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
    head=dict(prototypes=1024, hidden_dim=512, bottleneck_dim=128),
    masking=dict(mode="attention", num=4, prob=1.0),
    decoder=dict(width=64, min_width=16),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
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
train_cfg = dict(max_epochs=15)
default_hooks = dict(
    schedule=dict(
        base_lr=1e-3,
        base_batch=64,
        final_lr=1e-5,
        warmup_epochs=1,
        weight_decay=(0.04, 0.04),
        momentum=(0.99, 1.0),
    ),
    logger=dict(interval=20),
    checkpoint=dict(interval=100, max_keep_ckpts=1),
)
