# UperNet at toy size on the backbone of quickstart/pretrain.py. All [ours].
_base_ = "./segmentation.py"

model = dict(
    # strides 4, 8, 16 of blocks 2, 3, 4; the finest scale, 2, would double the time
    backbone=dict(pyramid=True, out_indices=(1, 2, 3)),
    decode_head=dict(
        type="UPerHead",
        in_channels=[128, 128, 128],
        in_index=[0, 1, 2],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.1,
        num_classes=10,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
