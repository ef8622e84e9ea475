{{ release_history(ref('executed_positions'), ref('backtest_frame')) }}
