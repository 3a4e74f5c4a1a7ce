# Ablation, DeiT-S, 100 epochs: restoration loss with weight 0.6 [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(lambda_rec=0.6)
