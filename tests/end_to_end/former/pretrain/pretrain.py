custom_imports = dict(
    allow_failed_imports=False,
    imports=[
        "mst_pretrain",
    ],
)
data_root = "data/images"
default_hooks = dict(
    checkpoint=dict(interval=3, max_keep_ckpts=2, type="HealthyCheckpointHook"),
    exact_resume=dict(type="ExactResumeHook"),
    first_steps=dict(type="FirstStepsHook"),
    health=dict(collapse_patience=5000, max_skipped=20, type="HealthHook"),
    logger=dict(interval=1, log_metric_by_epoch=False, type="LoggerHook"),
    param_scheduler=None,
    sampler_seed=None,
    schedule=dict(
        base_batch=256,
        base_lr=0.0005,
        final_lr=1e-06,
        freeze_last_layer_epochs=1,
        momentum=(
            0.996,
            1.0,
        ),
        teacher_temperature=(
            0.04,
            0.04,
        ),
        teacher_temperature_epochs=0,
        type="ScheduleHook",
        warmup_epochs=10,
        weight_decay=(
            0.04,
            0.4,
        ),
    ),
    teacher=dict(type="TeacherHook"),
    timer=dict(type="IterTimerHook"),
    watch=dict(max_bad_share=0.01, type="WatchHook"),
)
default_scope = "mmengine"
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
launcher = "none"
load_from = None
log_level = "INFO"
log_processor = dict(by_epoch=False)
model = dict(
    backbone=dict(
        depth=2,
        drop_path_rate=0.1,
        embed_dim=16,
        img_size=32,
        name="vit_tiny_patch16_224",
        num_heads=2,
        patch_size=8,
    ),
    compile=None,
    data_preprocessor=dict(type="MultiCropPreprocessor"),
    decoder=dict(min_width=4, width=8),
    distillation=dict(center_momentum=0.9, student_temperature=0.1),
    gradient_checkpointing=False,
    head=dict(bottleneck_dim=8, hidden_dim=16, norm="none", norm_last_layer=True, prototypes=24),
    init_from=None,
    lambda_ce=1.0,
    lambda_rec=1.0,
    mask_local=False,
    masking=dict(mode="attention", num=8, prob=0.5, unmasked_image_probability=0.0),
    type="MST",
)
optim_wrapper = dict(
    clip_grad=None,
    clip_grad_per_tensor=3.0,
    constructor="MSTOptimWrapperConstructor",
    dtype="auto",
    optimizer=dict(lr=0.0005, type="AdamW"),
    type="MSTOptimWrapper",
)
randomness = dict(seed=0)
resume = False
runner_type = "MSTRunner"
train_cfg = dict(accumulate=1, max_epochs=3, max_iters=None, type="PretrainLoop")
train_dataloader = dict(
    batch_size=2,
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        check=True,
        crops=dict(
            global_crops=[
                dict(size=32),
                dict(size=32),
            ],
            local_count=1,
            local_crop=dict(
                blur_probability=0.5,
                scale=(
                    0.05,
                    0.4,
                ),
                size=16,
            ),
        ),
        data_root="data/images",
        seed=None,
        type="UnlabelledImages",
    ),
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    prefetch_factor=None,
    sampler=dict(shuffle=True, type="ResumableSampler"),
)
work_dir = "work_dirs/pretrain"
