# MST at toy size for the quickstart: a ViT of width 128 and depth 4 on 64-px views, minutes on a CPU. All [ours].
_base_ = "../_base_/mst_pretrain.py"

data_root = "quickstart_out/data/coco/train2017"
model = dict(
    backbone=dict(
        name="vit_tiny_patch16_224",
        img_size=64,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        drop_path_rate=0.0,
    ),
    head=dict(prototypes=512, hidden_dim=256, bottleneck_dim=64),
    masking=dict(mode="attention", num=2, prob=1.0),
    decoder=dict(width=64, min_width=16),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        crops=dict(
            global_crops=[
                dict(
                    size=64, scale=(0.45, 1.0), ratio=(1.0, 2.0), blur_probability=0.3, blur_sigma=(0.1, 0.7)
                ),
                dict(
                    size=64,
                    scale=(0.45, 1.0),
                    ratio=(1.0, 2.0),
                    blur_probability=0.1,
                    blur_sigma=(0.1, 0.7),
                    solarize_probability=0.1,
                ),
            ],
            local_crop=dict(size=32, scale=(0.02, 0.3), blur_probability=0.1, blur_sigma=(0.1, 0.5)),
            local_count=4,
        ),
    ),
)
train_cfg = dict(max_epochs=24)
default_hooks = dict(
    schedule=dict(
        base_lr=7e-4,
        base_batch=32,
        final_lr=1e-5,
        warmup_epochs=1.0,
        weight_decay=(0.04, 0.04),
        momentum=(0.99, 1.0),
        freeze_last_layer_epochs=0.0,
    ),
    logger=dict(interval=10),
    checkpoint=dict(interval=200, max_keep_ckpts=2),
)
