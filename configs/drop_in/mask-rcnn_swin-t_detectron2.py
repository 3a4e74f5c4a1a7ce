# Run in detectron2 (commit 02b5c4e) by checks outside this repository: it builds, loads by DetectionCheckpointer with
# features equal within 4e-7 at five sizes, trains two steps and infers. The tests here have stand-ins for detectron2.
"""Mask R-CNN, Swin-T, COCO, 12 epochs (1x) for detectron2: a LazyConfig, as its projects/ViTDet builds Swin recipes.

    python tools/convert_checkpoint.py work_dirs/RUN/latest.pth swin_t_detectron2.pth --to detectron2  # here
    python tools/lazyconfig_train_net.py --config-file mask_rcnn_swin_t_1x.py --num-gpus 8  # in detectron2

Every weight of the file has a place but ``norm``, which detectron2's Swin does not have; norm0 to norm3, pyramid and
heads are new, and detectron2's log says both. Optimiser and schedule are those of configs/coco/mask_rcnn_mst.py; the
data pipeline is detectron2's own (short side 640 to 800, no crops), so the figures will not be the same.
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.modeling import SwinTransformer
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

constants = model_zoo.get_config("common/data/constants.py").constants

dataloader = model_zoo.get_config("common/data/coco.py").dataloader  # 16 images per step
dataloader.train.mapper.image_format = "RGB"  # the test mapper follows

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.pixel_mean = constants.imagenet_rgb256_mean
model.pixel_std = constants.imagenet_rgb256_std
model.input_format = "RGB"
model.backbone.bottom_up = L(SwinTransformer)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.1,  # [code: Swin detection], 1x
)
model.backbone.in_features = ("p0", "p1", "p2", "p3")  # strides 4 to 32; the pyramid renames them p2 to p5

train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = "swin_t_detectron2.pth"

# 12 epochs [code: Swin detection] = 90000 iterations * 16 images / 118000 images of an epoch
train.max_iter = 90000
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01],
        milestones=[
            train.max_iter * 8 // 12,
            train.max_iter * 11 // 12,
        ],  # x0.1 at epochs 8 and 11 [code: Swin detection]
        num_updates=train.max_iter,
    ),
    warmup_length=500 / train.max_iter,  # [code: Swin detection]
    warmup_factor=0.001,  # [code: Swin detection]
)

optimizer = model_zoo.get_config("common/optim.py").AdamW  # weight_decay_norm=0.0 covers the norm layers
optimizer.lr = 1e-4  # [code: Swin detection], 16 images
optimizer.weight_decay = 0.05  # [code: Swin detection]
optimizer.params.overrides = {
    "relative_position_bias_table": {"weight_decay": 0.0},
    "absolute_pos_embed": {"weight_decay": 0.0},
}
