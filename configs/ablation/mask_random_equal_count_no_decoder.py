# Ablation, DeiT-S, 100 epochs: equal count, decoder off [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="random_equal_count"), decoder=None)
