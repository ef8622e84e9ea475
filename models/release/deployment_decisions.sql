{{ decide_deployment(
    ref('walk_forward_summary'), ref('model_gating'), ref('backtest_manifest'), ref('deployment_rules')
) }}
