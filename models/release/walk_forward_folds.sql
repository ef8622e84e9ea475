{{ release_folds(ref('executed_positions'), ref('backtest_frame')) }}
