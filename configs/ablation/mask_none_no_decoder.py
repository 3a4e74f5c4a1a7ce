# Ablation, DeiT-S, 100 epochs: no mask and no decoder: plain DINO from the same code [code: DINO], but for the first
# [CLS] token: timm draws it with a standard deviation of 1e-6, DINO with 0.02.
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="none"), decoder=None)
