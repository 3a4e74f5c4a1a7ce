# MST, DeiT-S/16 on a few thousand photos of your own, one GPU. All [ours]. The values below, but the
# warm-up's, were measured at a smaller size, a ViT of width 192 and depth 4 on 10,000 photos of 64 px
# (benchmarks/README.md, "Small data"), not on a DeiT-S: what counts there is the number of steps, a teacher that
# follows sooner, and few prototypes.
_base_ = "../_base_/mst_pretrain.py"

data_root = "data/photos"
model = dict(
    head=dict(prototypes=256, norm="bn"),
    masking=dict(mode="attention", num=4, prob=1.0),  # hides 49 of a view's 196 tokens
)
train_dataloader = dict(batch_size=16, dataset=dict(data_root=data_root))
train_cfg = dict(max_epochs=300)  # not measured: as long as you can wait
default_hooks = dict(
    schedule=dict(
        base_lr=5e-4,
        base_batch=16,
        warmup_epochs=0.5,
        weight_decay=(0.04, 0.04),
        momentum=(0.98, 1.0),  # 0.95 collapses
        freeze_last_layer_epochs=0.0,
    ),
)
