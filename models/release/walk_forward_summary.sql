{{ release_summary(ref('walk_forward_folds'), ref('walk_forward_thresholds')) }}
