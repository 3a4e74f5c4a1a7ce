# What the demonstration pretrains before your eyes: the recipe of shipped.py, for a minute or two. All [ours].
_base_ = "./shipped.py"

train_cfg = dict(max_iters=450)
optim_wrapper = dict(dtype="auto")
default_hooks = dict(
    schedule=dict(warmup_epochs=1.0),
    logger=dict(interval=10),
    checkpoint=dict(interval=100000),  # the end alone
)
