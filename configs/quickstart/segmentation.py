# Segmentation at toy size: what the quickstart's probe and UperNet share. All [ours].
_base_ = "../_base_/cityscapes.py"

data_root = "quickstart_out/data/cityscapes/"
classes = (
    "road",
    "sidewalk",
    "building",
    "vegetation",
    "sky",
    "person",
    "car",
    "truck",
    "bus",
    "bicycle",
)
crop_size = (128, 256)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,
    ),
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_tiny_patch16_224",
        model_args=dict(img_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4),
        init_cfg=dict(
            type="Pretrained", checkpoint="quickstart_out/pretrain/latest.pth", prefix="teacher.backbone."
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(256, 144), ratio_range=(0.9, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(256, 144), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=350, val_begin=100000)  # tools/test.py follows
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=30, end=350),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100000, max_keep_ckpts=1))
