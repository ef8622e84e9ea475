{{ pm_trades(ref('pm_frame'), ref('pm_config')) }}
