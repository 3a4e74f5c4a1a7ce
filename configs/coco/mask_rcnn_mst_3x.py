# As mask_rcnn_mst.py, 3x schedule.
_base_ = "./mask_rcnn_mst.py"

model = dict(backbone=dict(drop_path_rate=0.2))  # [code: Swin detection], 3x
train_cfg = dict(max_epochs=36)  # [code: Swin detection], 3x
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),  # [code: Swin detection]
    dict(type="MultiStepLR", milestones=[27, 33], gamma=0.1, begin=0, end=36),  # [code: Swin detection], 3x
]
