# Ablation, DeiT-S, 100 epochs: candidates are the lowest half, 49 of 196 tokens hidden [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(num=2))
