# COCO instance segmentation: data, multi-scale training, metric, 12 epochs.
_base_ = "./runtime.py"

default_scope = "mmdet"
data_root = "{{$MST_DATA:data}}/coco/"

# DETR-style multi-scale training [code: Swin detection]: resize the short side to one of eleven lengths, or
# resize, crop and resize again.
short_sides = [(side, 1333) for side in range(480, 801, 32)]  # [code: Swin detection]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),  # [code: Swin detection]
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomChoiceResize", scales=short_sides, keep_ratio=True)],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(400, 1333), (500, 1333), (600, 1333)],  # [code: Swin detection]
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),  # [code: Swin detection]
                    allow_negative_crop=True,
                ),
                dict(type="RandomChoiceResize", scales=short_sides, keep_ratio=True),
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),  # [code: Swin detection]
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=2,  # 8 GPUs x 2 images = 16 per step [code: Swin detection]
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="MSTCocoMetric",  # by faster-coco-eval; the same numbers as mmdet's CocoMetric, which is slower
    ann_file=f"{data_root}annotations/instances_val2017.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator

# max_iters stops early inside an epoch; the schedules keep their full length.
train_cfg = dict(type="CappedEpochLoop", max_epochs=12, max_iters=None, val_interval=1)  # 1x
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
