# Dense probe: frozen patch features of MST DeiT-S/16 (last four blocks), one linear 1x1 layer to the label map, mIoU.
# Protocol ours.
_base_ = "../_base_/cityscapes.py"

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        size=(512, 1024),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_small_patch16_224",
        out_indices=(
            8,
            9,
            10,
            11,
        ),  # patch tokens of the last four blocks, each normalised [code: DINO, linear]
        normed_taps="all",
        pyramid=False,
        frozen_stages=12,  # all of it
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_deit-s_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    decode_head=dict(  # without convolutions an FCNHead is one linear 1x1 layer
        type="FCNHead",
        in_channels=[384] * 4,
        in_index=[0, 1, 2, 3],
        input_transform="resize_concat",
        channels=4 * 384,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=19,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(512, 1024), stride=(341, 683)),
)
train_cfg = dict(max_iters=4000, val_begin=1000, val_interval=1000)  # ours
default_hooks = dict(checkpoint=dict(interval=1000))
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.0),  # ours
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=0, end=4000)]  # ours
auto_scale_lr = dict(enable=False, base_batch_size=8)
