# Dense probe at toy size: the frozen backbone of quickstart/pretrain.py and one linear 1x1 layer
# on the patch tokens of its four blocks, as in configs/probe/. All [ours].
_base_ = "./segmentation.py"

model = dict(
    backbone=dict(pyramid=False, out_indices=(0, 1, 2, 3), normed_taps="all", frozen_stages=4),
    decode_head=dict(
        type="FCNHead",
        in_channels=[128] * 4,
        in_index=[0, 1, 2, 3],
        input_transform="resize_concat",
        channels=512,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=10,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
train_pipeline = [  # no change of colour or scale: the features stay as they are
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="Resize", scale=(256, 144), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(128, 256)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-2, weight_decay=0.0))
train_cfg = dict(max_iters=300)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=30, end=300),
]
