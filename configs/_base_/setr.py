# What SETR-PUP and SETR-MLA share on Cityscapes: 768x768 crops, DeiT-S tokens of stride 16, SGD without weight decay,
# sliding windows, 40k iterations, 8 GPUs x 1 crop. All values [code: SETR] unless tagged otherwise.
_base_ = "./cityscapes.py"

crop_size = (768, 768)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2049, 1025), keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: the label map keeps its size
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))  # 8 GPUs x 1 crop = 8 per step
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        size=crop_size,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_small_patch16_224",
        model_args=dict(img_size=768),  # position embeddings are resized once, when they are loaded
        pyramid=False,
        normed_taps="none",  # each head or the neck has a LayerNorm of its own
        drop_path_rate=0.0,  # [code: SETR]
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_deit-s_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(768, 768), stride=(512, 512)),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0),  # [code: SETR]
    paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=10.0)}),  # decode and auxiliary heads, not the neck
)
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=40000)  # [code: SETR]
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
