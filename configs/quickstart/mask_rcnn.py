# Mask R-CNN at toy size on the backbone of quickstart/pretrain.py. All [ours].
_base_ = ["../_base_/mask_rcnn.py", "../_base_/coco_instance.py"]

data_root = "quickstart_out/data/coco/"
classes = ("person", "car", "truck", "bus", "bicycle")
model = dict(
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_tiny_patch16_224",
        model_args=dict(img_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4),
        pyramid=True,
        out_indices=(1, 2, 3),  # strides 4, 8, 16
        init_cfg=dict(
            type="Pretrained", checkpoint="quickstart_out/pretrain/latest.pth", prefix="teacher.backbone."
        ),
    ),
    neck=dict(in_channels=[128] * 3, out_channels=64, num_outs=4),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),  # anchors of 16 to 128 px
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28, roi_layer=dict(sampling_ratio=2)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=5, reg_class_agnostic=True),
        mask_roi_extractor=dict(
            out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28, roi_layer=dict(sampling_ratio=2)
        ),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.33)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=(256, 192), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(256, 192), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    batch_sampler=None,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f"{data_root}annotations/instances_val2017.json")
test_evaluator = val_evaluator

train_cfg = dict(
    _delete_=True, type="ExactIterLoop", max_iters=500, val_begin=100000
)  # tools/test.py follows
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=50, end=500),
]
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100000, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
