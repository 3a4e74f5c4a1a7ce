# Pretraining on CamVid's 367 train frames of 480x360 for studies/street_scenes.py. All [ours]. The small-data values
# are those of the mask study on a CPU; see "Small data" in benchmarks/README.md.
_base_ = "./mask_cpu.py"

data_root = "data/camvid-as-cityscapes/leftImg8bit/train"
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        crops=dict(
            # A frame shows a whole street: 64 px of 15 to 60 % of it keep the scale of the fine-tuning within a factor
            # of three (186 to 372 px of the frame against 128), and two views of a frame still overlap.
            global_crops=[
                dict(size=64, scale=(0.15, 0.6), blur_probability=0.5, blur_sigma=(0.1, 0.7)),
                dict(
                    size=64,
                    scale=(0.15, 0.6),
                    blur_probability=0.1,
                    blur_sigma=(0.1, 0.7),
                    solarize_probability=0.2,
                ),
            ],
            local_crop=dict(size=32, scale=(0.02, 0.15), blur_probability=0.2, blur_sigma=(0.1, 0.5)),
        ),
    ),
)
train_cfg = dict(max_epochs=None, max_iters=2000)  # 32,000 frames seen, each 87 times
default_hooks = dict(schedule=dict(warmup_epochs=5.0))  # 110 to 115 steps
