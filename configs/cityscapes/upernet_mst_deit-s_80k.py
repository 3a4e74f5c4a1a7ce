# As upernet_mst_deit-s.py, 80k iterations.
_base_ = "./upernet_mst_deit-s.py"

train_cfg = dict(max_iters=80000, val_begin=8000, val_interval=8000)  # [code: mmseg]
default_hooks = dict(checkpoint=dict(interval=8000))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),  # [code: iBOT]
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=80000),  # [code: iBOT]; end: 80k
]
