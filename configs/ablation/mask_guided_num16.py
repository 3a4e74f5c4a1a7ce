# Ablation, DeiT-S, 100 epochs: candidates are the lowest sixteenth, 6 of 196 tokens hidden [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(num=16))
