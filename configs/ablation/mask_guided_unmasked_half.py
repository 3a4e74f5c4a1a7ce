# Ablation, DeiT-S, 100 epochs: half of the views stay whole [code: iBOT].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(unmasked_image_probability=0.5))
