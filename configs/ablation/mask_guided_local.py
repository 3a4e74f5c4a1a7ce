# Ablation, DeiT-S, 100 epochs: local crops are masked too [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(mask_local=True)
