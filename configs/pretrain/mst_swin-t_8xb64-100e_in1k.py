# MST, Swin-T, 100 epochs on ImageNet: 8 GPUs x 64 images = batch 512 [code: DINO].
_base_ = "./mst_deit-s_8xb64-100e_in1k.py"

model = dict(backbone=dict(name="swin_tiny_patch4_window7_224", drop_path_rate=0.1))  # [code: EsViT]
