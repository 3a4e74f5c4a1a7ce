# UperNet on CamVid's 367 train frames for studies/street_scenes.py, the quickstart's with CamVid's classes at half
# its resolution. All [ours]. Augmentation, learning rate and length were chosen on random weights alone (seed 1, one
# run each, val frames), so that no choice favours pretraining: 2e-3 reaches mIoU 28.9; 1e-3 with change of colour and
# crops of 1 to 1.5 times the test size 23.1; 4e-3 was stopped half way with the higher training loss.
_base_ = "../../configs/quickstart/upernet.py"

data_root = "data/camvid-as-cityscapes/"
classes = (
    "road",
    "sidewalk",
    "building",
    "fence",
    "pole",
    "traffic sign",
    "vegetation",
    "sky",
    "person",
    "rider",
    "car",
)
size, crop_size = (240, 180), (176, 224)  # width, height of a frame; height, width of a crop
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        model_args=dict(embed_dim=192, num_heads=3),
        init_cfg=dict(checkpoint="work_dirs/street_scenes/pretrain/guided_25/seed1/latest.pth"),
    ),
    decode_head=dict(in_channels=[192, 192, 192], num_classes=len(classes)),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=size, ratio_range=(0.9, 1.3), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: the label map keeps its 480x360
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4, dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline)
)
test_dataloader = val_dataloader

iterations = 400
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(type="MSTOptimWrapper", dtype="bfloat16", optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=30, end=iterations),
]
