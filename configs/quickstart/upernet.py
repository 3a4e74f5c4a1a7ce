# UperNet at toy size on the backbone of quickstart/pretrain.py. All [ours].
_base_ = "./segmentation.py"

model = dict(
    backbone=dict(pyramid=True, out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type="UPerHead",
        in_channels=[128, 128, 128],
        in_index=[1, 2, 3],  # strides 4, 8, 16; the finest level would double the time
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.1,
        num_classes=10,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
