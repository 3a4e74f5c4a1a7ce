# Ablation, DeiT-S, 100 epochs: Bernoulli p = 1.0, 24 of 196 tokens hidden [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(prob=1.0))
