"""Keywords that a recipe passes on to timm and to Lightning, so that mistyped ones are caught without them.

Compared with the installed libraries by tests/test_train_optim.py. What timm counts in epochs is counted in
updates here and ends in `_steps`.
"""

#: `schedule.params`, but for the schedule `plateau`.
SCHEDULE = (
    "cooldown_steps",
    "cycle_decay",
    "cycle_limit",
    "cycle_mul",
    "decay_fn",
    "decay_milestones",
    "decay_rate",
    "decay_steps",
    "k_decay",
    "noise",
    "noise_pct",
    "noise_seed",
    "noise_std",
    "patience_steps",
    "stable_timescale",
    "warmup_lr",
    "warmup_prefix",
)
PLATEAU = ("decay_rate", "patience")

#: `trainer.extra`: what resembles one of these, and is none, is a mistake; anything else Lightning judges.
TRAINER = (
    "accelerator",
    "accumulate_grad_batches",
    "barebones",
    "benchmark",
    "callbacks",
    "check_val_every_n_epoch",
    "default_root_dir",
    "detect_anomaly",
    "deterministic",
    "devices",
    "enable_autolog_hparams",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "inference_mode",
    "limit_predict_batches",
    "limit_test_batches",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "logger",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "model_registry",
    "num_nodes",
    "num_sanity_val_steps",
    "overfit_batches",
    "plugins",
    "precision",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "strategy",
    "sync_batchnorm",
    "use_distributed_sampler",
    "val_check_interval",
)
