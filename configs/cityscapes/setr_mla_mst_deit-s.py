# SETR-MLA, MST DeiT-S/16 of 300 epochs, Cityscapes 768x768, 40k iterations, 8 GPUs x 1 crop. Taps and learning rate
# [code: SETR], there with DeiT-B; neck and heads as mmseg ships them [code: mmseg] (its classifier is a 1x1
# convolution, SETR's a 3x3). The [CLS] token stays in the sequence, which SETR-MLA cuts off: ours.
_base_ = "../_base_/setr.py"

norm_cfg = dict(type="BN", requires_grad=True)  # SyncBN with several GPUs, see sync_bn


def auxiliary(level):
    """A linear classifier on one level of the neck [code: SETR]."""
    return dict(
        type="FCNHead",
        in_channels=256,
        in_index=level,
        channels=256,
        num_convs=0,
        kernel_size=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=19,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),  # [code: SETR]
    )


model = dict(
    # SETR's mla_index counts blocks from 0 (it indexes the list of all blocks' outputs): blocks 3, 6, 9 and 12 of 12
    backbone=dict(out_indices=(2, 5, 8, 11)),  # [code: SETR]
    neck=dict(
        type="MLANeck",
        in_channels=[384, 384, 384, 384],
        out_channels=256,
        norm_cfg=norm_cfg,
        act_cfg=dict(type="ReLU"),
    ),
    decode_head=dict(
        type="SETRMLAHead",
        in_channels=(256, 256, 256, 256),
        in_index=(0, 1, 2, 3),
        channels=512,
        mla_channels=128,
        dropout_ratio=0.0,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=[auxiliary(level) for level in range(4)],
)
optim_wrapper = dict(optimizer=dict(lr=0.002))  # [code: SETR]
