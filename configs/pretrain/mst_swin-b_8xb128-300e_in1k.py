# MST, Swin-B, 300 epochs on ImageNet: the values of Swin-T [ours].
_base_ = "./mst_swin-t_8xb128-300e_in1k.py"

model = dict(backbone=dict(name="swin_base_patch4_window7_224"))
