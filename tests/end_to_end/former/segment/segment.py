# A fine-tuning as it was written for the commit before the packages got rooms: it names mst_transfer.engine.
custom_imports = dict(imports=["mst_transfer", "mst_transfer.engine"], allow_failed_imports=False)
runner_type = "MSTRunner"
default_scope = "mmseg"
data_root = "data"
work_dir = "work_dirs/segment"
classes = ("dark", "bright")
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="FolderSegmentation",
        data_root=data_root,
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="FolderSegmentation",
        data_root=data_root,
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MSTIoUMetric")
test_evaluator = val_evaluator
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        size=(32, 32),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_tiny_patch16_224",
        model_args=dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2),
        pyramid=False,
        out_indices=(1,),
        init_cfg=dict(type="Pretrained", checkpoint="pretrain/iter_3.pth", prefix="teacher.backbone."),
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=16,
        in_index=0,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=len(classes),
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
train_cfg = dict(type="ExactIterLoop", max_iters=6, val_begin=100, val_interval=100)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=0, end=6)]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3),
)
env_cfg = dict(dist_cfg=dict(backend="nccl"))
log_processor = dict(type="LogProcessor", by_epoch=False)
randomness = dict(seed=0)
load_from = None
resume = False
