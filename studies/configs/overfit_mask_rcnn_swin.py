# Can this detector learn at all? Mask R-CNN with a reduced Swin on four photographs, without augmentation, on a CPU:
# see studies/overfit.py, which makes the four photographs' folder. All [ours].
_base_ = ["../../configs/_base_/mask_rcnn.py", "../../configs/_base_/coco_instance.py"]

data_root = "work_dirs/overfit/data/"
width = 128
model = dict(
    backbone=dict(
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        model_args=dict(embed_dim=48, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16)),
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=[48, 96, 192, 384], out_channels=width),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[2, 4]),  # 8 to 256 px: the photographs have things of 7 px
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=width, fc_out_channels=512),
        mask_roi_extractor=dict(out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(in_channels=width, conv_out_channels=width),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=128, pos_fraction=0.25)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)

size = (320, 256)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=size, keep_ratio=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=False),
    batch_sampler=None,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f"{data_root}annotations/instances_val2017.json")
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type="ExactIterLoop", max_iters=400, val_begin=50, val_interval=50)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=30, end=400),
]
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100000, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False, window_size=10)
