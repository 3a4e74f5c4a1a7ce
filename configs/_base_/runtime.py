# What every transfer config shares. Tags on values: [paper], [summary], [code: X] and ours, as in docs/reproduction.md.
custom_imports = dict(imports=["mst_transfer", "mst_transfer.training.loops"], allow_failed_imports=False)
runner_type = "MSTRunner"

default_hooks = dict(
    first_steps=dict(type="FirstStepsHook"),
    # ours: share of broken images; seconds without a sign of life after which a lost process ends the job
    watch=dict(type="WatchHook", max_bad_share=0.01, silence=60.0),
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl", timeout=1800),  # gloo where there is no GPU; timeout [s]: ours
)
sync_bn = "torch"  # with several GPUs every batch norm becomes SyncBN, as mmseg's and iBOT's configs have it
find_unused_parameters = False
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
randomness = dict(seed=0)
load_from = None
resume = False
