# Ablation, DeiT-S, 100 epochs: 300 epochs, everything else as at 100 [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

train_cfg = dict(max_epochs=300)
