# Ablation, DeiT-S, 100 epochs: the most attended tokens are hidden, decoder off [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="attention_reversed"), decoder=None)
