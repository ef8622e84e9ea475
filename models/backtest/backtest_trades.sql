{{ pm_trades(ref('backtest_frame'), ref('pm_config')) }}
