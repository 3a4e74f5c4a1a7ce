# Test-time augmentation of the full-size COCO configs, used by tools/test.py --tta: three sizes, each also mirrored.
tta_sizes = [(666, 400), (1333, 800), (2000, 1200)]  # 0.5, 1 and 1.5 of the test size; factors [code: mmdet]
tta_model = dict(type="MSTDetTTAModel")
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=size, keep_ratio=True) for size in tta_sizes],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        *("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
                        *("flip", "flip_direction"),
                    ),
                )
            ],
        ],
    ),
]
