# MST pretraining, everything the recipes share. Tags as in docs/reproduction.md:
# [paper], [summary], [code: X], [ours]. The paper's body was not available; see "Sources" there.
custom_imports = dict(imports=["mst_pretrain"], allow_failed_imports=False)
runner_type = "MSTRunner"
default_scope = "mmengine"

data_root = "{{$MST_DATA:data}}/imagenet/train"

model = dict(
    type="MST",
    backbone=dict(name="vit_small_patch16_224", drop_path_rate=0.1),  # [code: DINO], student only
    head=dict(
        prototypes=65536,  # [code: DINO]
        hidden_dim=2048,  # [code: DINO]
        bottleneck_dim=256,  # [code: DINO]
        norm="none",  # [code: DINO]; "bn" / "syncbn" is the paper's ablation [summary]
        norm_last_layer=True,  # [code: DINO], 100 epochs
    ),
    masking=dict(
        mode="attention",  # [paper]
        num=8,  # [ours]
        prob=0.5,  # [ours]: hides about 196 / 8 * 0.5 = 12 of 196 tokens of a DeiT-S view
        unmasked_image_probability=0.0,  # [ours]; iBOT needed 0.5 [code: iBOT]
    ),
    mask_local=False,  # [ours]
    decoder=dict(width=256),  # CNN on all tokens [summary]; layers [ours]
    distillation=dict(
        student_temperature=0.1,  # [code: DINO]
        center_momentum=0.9,  # [code: DINO]
    ),
    lambda_ce=1.0,  # [ours]
    lambda_rec=1.0,  # [ours]
    gradient_checkpointing=False,
    compile=None,
    init_from=None,  # a backbone to start from; also --init-from
    data_preprocessor=dict(type="MultiCropPreprocessor"),
)

train_dataloader = dict(
    batch_size=128,  # [code: DINO], 300 epochs on 8 GPUs
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="ResumableSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="UnlabelledImages",
        data_root=data_root,
        seed=None,  # the run's: randomness.seed
        check=True,
        decode="host",  # or "device": a GPU decodes JPEGs and cuts the crops
        cache="auto",  # decoded pixels are kept where all fit into a quarter of the free memory
        crops=dict(  # all [code: DINO]
            global_crops=[
                dict(size=224, scale=(0.4, 1.0), blur_probability=1.0),
                dict(size=224, scale=(0.4, 1.0), blur_probability=0.1, solarize_probability=0.2),
            ],
            local_crop=dict(size=96, scale=(0.05, 0.4), blur_probability=0.5),
            local_count=8,
        ),
    ),
)
train_cfg = dict(type="PretrainLoop", max_epochs=300, max_iters=None, accumulate=1)  # [code: DINO]

optim_wrapper = dict(
    type="MSTOptimWrapper",
    constructor="MSTOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=5e-4),  # [code: DINO]; the schedule sets lr and weight decay
    clip_grad_per_tensor=3.0,  # [code: DINO]
    clip_grad=None,
    # [ours] "auto": bfloat16 on a GPU that computes in it, else float32. DINO's is float16 with loss scaling
    # [code: DINO], here --amp. Or "float32", or "bfloat16" on a CPU or a GPU.
    dtype="auto",
)

default_hooks = dict(
    schedule=dict(
        type="ScheduleHook",
        base_lr=5e-4,  # [code: DINO]
        base_batch=256,  # [code: DINO]
        final_lr=1e-6,  # [code: DINO]
        warmup_epochs=10.0,  # [code: DINO]
        weight_decay=(0.04, 0.4),  # [code: DINO]
        momentum=(0.996, 1.0),  # [code: DINO]
        teacher_temperature=(0.04, 0.04),  # [code: DINO], 100 epochs
        teacher_temperature_epochs=0.0,  # [code: DINO], 100 epochs
        freeze_last_layer_epochs=1.0,  # [code: DINO]
    ),
    teacher=dict(type="TeacherHook"),
    health=dict(type="HealthHook", max_skipped=20, collapse_patience=5000),  # [ours]
    first_steps=dict(type="FirstStepsHook"),
    # share of broken images; seconds without a sign of life after which a lost process ends the job
    watch=dict(type="WatchHook", max_bad_share=0.01, silence=60.0),  # [ours]
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(
        type="HealthyCheckpointHook",
        interval=2000,
        max_keep_ckpts=2,
        keep_every_epochs=None,  # [ours]: or a number of epochs, of which one checkpoint each stays for good
    ),
    param_scheduler=None,
    sampler_seed=None,
)
evaluation = dict(
    # Labelled images, held out: CLASS/IMAGE below train and val, or CLASS/IMAGE alone. "best" is by k-NN on them;
    # without any by RankMe [arXiv 2210.02885].
    knn=None,
    every_epochs=10.0,  # [ours]
)
log_processor = dict(by_epoch=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl", timeout=1800),  # [ours]: seconds that a process waits for the others
)
randomness = dict(seed=0)
log_level = "INFO"
load_from = None
resume = False
