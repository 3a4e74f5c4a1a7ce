# Cascade Mask R-CNN with FPN on four scales, without a backbone: three stages of four convolutions and one linear
# layer, GIoU loss on decoded boxes. All values [code: iBOT], which took the heads from [code: Swin detection].
_base_ = "./mask_rcnn.py"


def box_head(stds):
    """One stage's head; the stages differ in how far a box may move."""
    return dict(
        type="ConvFCBBoxHead",
        num_shared_convs=4,
        num_shared_fcs=1,
        in_channels=256,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=80,
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds),
        reg_class_agnostic=False,
        reg_decoded_bbox=True,
        norm_cfg=dict(type="BN", requires_grad=True),  # SyncBN with several GPUs, see sync_bn
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
    )


def stage(iou):
    """One stage's assignment and sampling."""
    return dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
        ),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    )


model = dict(
    type="CascadeRCNN",
    rpn_head=dict(loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0)),
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            box_head([0.1, 0.1, 0.2, 0.2]),
            box_head([0.05, 0.05, 0.1, 0.1]),
            box_head([0.033, 0.033, 0.067, 0.067]),
        ],
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=[stage(0.5), stage(0.6), stage(0.7)],
    ),
)
