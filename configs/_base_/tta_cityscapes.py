# Multi-scale + flip of the full-size Cityscapes configs, used by tools/test.py --tta: six sizes, each also mirrored.
tta_sizes = [(round(2048 * f), round(1024 * f)) for f in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]  # [code: mmseg]
tta_model = dict(type="SegTTAModel")
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=size, keep_ratio=True) for size in tta_sizes],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],  # behind the flip: predictions are mirrored back, labels stay
            [dict(type="PackSegInputs")],
        ],
    ),
]
