# SETR-PUP, MST DeiT-S/16 of 300 epochs, Cityscapes 768x768, 40k iterations, 8 GPUs x 1 crop: what the paper's 74.04
# mIoU [paper, summary] fits, there after 100 epochs of pretraining: --init mst-100. Heads and taps [code: SETR],
# there with DeiT-B.
_base_ = "../_base_/setr.py"

norm_cfg = dict(type="BN", requires_grad=True)  # SyncBN with several GPUs, see sync_bn


def auxiliary(tap):
    """A convolution, four times upsampled, on one tap [code: SETR]."""
    return dict(
        type="SETRUPHead",
        in_channels=384,
        in_index=tap,
        channels=256,
        num_convs=1,
        up_scale=4,
        kernel_size=3,
        dropout_ratio=0.0,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),  # [code: SETR]
    )


model = dict(
    # SETR's in_index counts blocks from 0 (its backbone returns every block's output, the decoder reads 11, the
    # last), and so does out_indices: blocks 5, 8, 10 and 12 of 12
    backbone=dict(out_indices=(4, 7, 9, 11)),  # [code: SETR]
    decode_head=dict(
        type="SETRUPHead",
        in_channels=384,
        in_index=3,
        channels=256,
        num_convs=4,
        up_scale=2,
        kernel_size=3,
        dropout_ratio=0.0,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=[auxiliary(tap) for tap in range(4)],
)
